//! Probes, performed as a manifest has them.

use std::{convert::Infallible, time::Duration};

use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    fields::{list, number, text},
    kubelet::give_up,
    pod::Pod,
};
use crate::kubernetes::webhook::caller::get;

/// Between two looks of one period.
const LOOK: Duration = Duration::from_millis(100);

/// Watches over a container whose process has started, and writes down how it is.
pub(super) async fn watch(pod: &Pod, index: usize) -> Infallible {
    let of = |kind: &'static str| Probe::of(pod, index, kind);
    if let Some(probe) = of("startupProbe") {
        probe.until_good().await;
    }
    let (readiness, liveness) = (of("readinessProbe"), of("livenessProbe"));
    pod.set(index, |status| (status.is_started, status.is_ready) = (true, readiness.is_none()));
    let readiness = async {
        match readiness {
            Some(probe) => probe.keep_ready().await,
            None => std::future::pending().await,
        }
    };
    let liveness = async {
        match liveness {
            Some(probe) => probe.keep_alive().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        never = readiness => never,
        never = liveness => never,
    }
}

/// A probe of a container.
struct Probe<'a> {
    pod: &'a Pod,
    index: usize,
    kind: &'static str,
    probe: &'a Value,
}

impl<'a> Probe<'a> {
    fn of(pod: &'a Pod, index: usize, kind: &'static str) -> Option<Self> {
        let probe = pod.containers[index].spec.get(kind)?;
        Some(Self { pod, index, kind, probe })
    }

    fn seconds(&self, key: &str, default: u32) -> Duration {
        Duration::from_secs(number(self.probe, key).unwrap_or(default).into())
    }

    fn failures(&self) -> u32 {
        number(self.probe, "/failureThreshold").unwrap_or(3)
    }

    /// What the looks of one period come to.
    async fn period(&self) -> bool {
        let end = Instant::now() + self.seconds("/periodSeconds", 10);
        loop {
            if timeout(self.seconds("/timeoutSeconds", 1), self.look()).await == Ok(true) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Until it is good for the first time.
    async fn until_good(&self) {
        for _ in 0..self.failures() {
            if self.period().await {
                return;
            }
        }
        match give_up(self.pod, self.index, self.kind).await {}
    }

    async fn keep_ready(&self) -> Infallible {
        let mut failures = 0;
        loop {
            failures = if self.period().await { 0 } else { failures + 1 };
            if failures == 0 || failures >= self.failures() {
                self.pod.set(self.index, |status| status.is_ready = failures == 0);
            }
            if failures == 0 {
                sleep(self.seconds("/periodSeconds", 10)).await;
            }
        }
    }

    async fn keep_alive(&self) -> Infallible {
        let mut failures = 0;
        while failures < self.failures() {
            failures = if self.period().await { 0 } else { failures + 1 };
            if failures == 0 {
                sleep(self.seconds("/periodSeconds", 10)).await;
            }
        }
        give_up(self.pod, self.index, self.kind).await
    }

    /// One look.
    async fn look(&self) -> bool {
        let container = &self.pod.containers[self.index];
        if let Some(ask) = self.probe.get("httpGet") {
            assert!(
                ask.get("scheme").is_none_or(|scheme| scheme == "HTTP"),
                "no certificates are looked at here: {ask}"
            );
            let (status, _) = get(self.pod.at(self.port(ask)), text(ask, "/path")).await;
            (200..400).contains(&status)
        } else if let Some(ask) = self.probe.get("tcpSocket") {
            TcpStream::connect(self.pod.at(self.port(ask))).await.is_ok()
        } else if let Some(ask) = self.probe.get("exec") {
            let command: Vec<_> =
                list(ask, "/command").iter().map(|word| word.as_str().unwrap().to_owned()).collect();
            let Some(pid) = self.pod.state.borrow().containers[self.index].pid else { return false };
            let ran = container.exec(pid, &command, self.seconds("/timeoutSeconds", 1)).await;
            ran.is_ok_and(|output| output.status.success())
        } else {
            panic!("no such probe here: {}", self.probe)
        }
    }

    /// A port, by number or by its name.
    fn port(&self, ask: &Value) -> u16 {
        let ports = list(&self.pod.containers[self.index].spec, "/ports");
        let named = || ports.iter().find(|port| port["name"] == ask["port"])?.get("containerPort");
        let found = ask["port"].as_u64().or_else(|| named()?.as_u64());
        found.and_then(|port| port.try_into().ok()).unwrap_or_else(|| panic!("no such port: {ask}"))
    }
}
