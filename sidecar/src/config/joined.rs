//! The file's settings together with what the controller says of services.
//!
//! ```text
//!   file ────────────────────┐
//!   fragments ──services─────┼──▶ Settings: all of the file, and every service that is sound and takes nothing of it
//! ```
//! # Invariants
//! - Nothing that the controller says changes anything that the file says: names, authorities and addresses of the file are
//!   the file's. A service that would have one of them is left out, and told.
//! - What is wrong with one service costs that service: the last good that was said of it stays.
//! - The outcome depends on what is said and not on the order in which it was said, but for what was the last good.

use std::{collections::HashSet, sync::Arc};

use super::{Fault, Settings, services::Services, told::ToldRules, validate};
use crate::model::{
    ClusterName, ClusterSettings, Listener, ListenerKind,
    cluster::AppProtocol,
    controller::{Fragments, Rejected},
    listener::{Inbound, InterceptedInbound, Protocol},
};

/// Both together.
#[derive(Debug)]
pub struct Joined {
    /// What is to be in force.
    pub settings: Settings,
    /// Services of which what is said is not in it.
    pub rejected: Vec<Rejected>,
}

/// Joins, and remembers what was read.
#[derive(Debug, Default)]
pub struct Joiner {
    services: Services,
    inbound: Option<Read<Ports>>,
    rules: ToldRules,
}

type Ports = Vec<(u16, Protocol, AppProtocol)>;

/// What became of a text that the controller said.
#[derive(Debug)]
struct Read<T> {
    text: Arc<str>,
    faults: Vec<Fault>,
    /// What it says, or the last before it that was sound.
    good: Option<T>,
}

impl Joiner {
    /// Joins what the file says with what the controller says.
    pub fn join(&mut self, file: &Settings, fragments: &Fragments) -> Joined {
        let (mut settings, mut rejected) = (file.clone(), Vec::new());
        self.services.join(&mut settings, &fragments.services, &mut rejected);
        self.read_inbound(fragments.inbound.as_ref());
        if let Some(read) = &self.inbound {
            if !read.faults.is_empty() {
                let faults = read.faults.clone();
                rejected.push(Rejected { service: Rejected::PORTS.into(), faults, is_conflict: false });
            }
            add_ports(&mut settings, read.good.as_deref().unwrap_or_default());
        }
        settings.authorization = self.rules.join(file, fragments.inbound.as_ref(), &mut rejected);
        Joined { settings, rejected }
    }

    fn read_inbound(&mut self, text: Option<&Arc<str>>) {
        let Some(text) = text else { return self.inbound = None };
        if self.inbound.as_ref().is_some_and(|read| read.text == *text) {
            return;
        }
        let before = self.inbound.take().and_then(|read| read.good);
        let text = Arc::clone(text);
        self.inbound = Some(match validate::inbound(&text) {
            Ok(good) => Read { text, faults: Vec::new(), good: Some(good) },
            Err(faults) => Read { text, faults, good: before },
        });
    }
}

/// Has intercepted ports of which the file says nothing carry what the controller says; what else holds for them is what the
/// file says of `other_ports`.
fn add_ports(settings: &mut Settings, ports: &[(u16, Protocol, AppProtocol)]) {
    let other = ClusterName::new("inbound/other");
    let Some(app) = settings.clusters.iter().find(|cluster| cluster.name == other).cloned() else { return };
    let excepted = settings.bootstrap.intercept.as_ref().map(|rules| rules.inbound.except_ports.clone());
    let is_excepted = |port: &u16| excepted.as_ref().is_some_and(|excepted| excepted.contains(port));
    let own: HashSet<u16> = settings.listeners.iter().map(|listener| listener.address.port()).collect();
    for listener in &mut settings.listeners {
        let ListenerKind::InterceptedInbound(known) = &listener.kind else { continue };
        let mut known: InterceptedInbound = known.clone();
        for (port, protocol, app_protocol) in ports {
            let name = ClusterName::new(&format!("inbound/{port}"));
            let is_taken = known.ports.contains_key(port)
                || is_excepted(port)
                || own.contains(port)
                || settings.clusters.iter().any(|cluster| cluster.name == name);
            if is_taken {
                continue;
            }
            let rules = Inbound {
                app: name.clone(),
                protocol: *protocol,
                app_protocol: *app_protocol,
                ..Inbound::clone(&known.others)
            };
            known.ports.insert(*port, Arc::new(rules));
            settings.clusters.push(Arc::new(ClusterSettings { name, ..ClusterSettings::clone(&app) }));
        }
        let kind = ListenerKind::InterceptedInbound(known);
        if kind != listener.kind {
            *listener = Arc::new(Listener { kind, ..Listener::clone(listener) });
        }
    }
}
