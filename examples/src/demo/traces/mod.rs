//! The traces of the demo's calls: where the sidecars send them, and which of them are shown.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, Uri, header::HOST, uri::PathAndQuery};
use http_body_util::Full;
use serde::Serialize;
use tokio::net::TcpStream;

use super::{
    plan::{Plan, Service, Workload},
    report::Report,
};
use crate::{
    client::Client,
    effects,
    otlp::{
        receiver::Receiver,
        shares::{self, Share, Shares},
        span::{Kind, Span},
        traces::Traces,
        tree::Tree,
    },
};

/// Where OTLP over HTTP is posted to (OpenTelemetry Protocol Exporter).
const HTTP_PATH: &str = "/v1/traces";
/// Time for the last spans to arrive (sidecars send them once a second), or for a collector to be reached.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Where the sidecars send their spans, as their configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `http://` or `https://`, host, and port where there is one; of HTTP the path as well.
    pub endpoint: String,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken with a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC
    Grpc,
    /// OTLP over HTTP, binary
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        })
    }
}

impl Target {
    /// The collector that a user named. Without a protocol it is HTTP if the URL ends in `/v1/traces`, else gRPC.
    ///
    /// # Errors
    /// If it is no `http://` or `https://` with a host, or has a path though it is gRPC.
    pub fn named(url: &Url, protocol: Option<Protocol>) -> anyhow::Result<Self> {
        let Url { origin, path } = url;
        let protocol = match protocol {
            Some(protocol) => protocol,
            None if path.ends_with(HTTP_PATH) => Protocol::Http,
            None => Protocol::Grpc,
        };
        let path = match (protocol, path.as_str()) {
            (Protocol::Grpc, "/") => "",
            (Protocol::Grpc, path) => {
                anyhow::bail!("--otlp {origin}{path}: gRPC takes no path; HTTP's ends in {HTTP_PATH}")
            }
            (Protocol::Http, "/") => HTTP_PATH,
            (Protocol::Http, path) => path,
        };
        Ok(Self { endpoint: format!("{origin}{path}"), protocol })
    }

    /// Whether somebody accepts connections there: better now than after a run.
    ///
    /// # Errors
    /// If nobody does.
    pub async fn reach(&self) -> anyhow::Result<()> {
        let uri: Uri = self.endpoint.parse()?;
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
        let port = port.unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let connected = tokio::time::timeout(DEADLINE, TcpStream::connect(format!("{host}:{port}"))).await;
        let nobody = || format!("--otlp {}: nobody is there", self.endpoint);
        connected.with_context(nobody)?.with_context(nobody)?;
        Ok(())
    }
}

/// A URL as `--otlp` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    origin: String,
    path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let example = "write it as http://localhost:4317 or http://localhost:4318/v1/traces";
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {example}"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(example.to_owned());
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(format!("without user and query; {example}"));
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::path).to_owned();
        Ok(Self { origin: format!("{scheme}://{authority}"), path })
    }
}

/// What the demo's own receiver got.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// Spans that arrived.
    pub spans: u64,
    /// Traces kept of them: all, or a sample where they were many.
    pub traces: usize,
    /// Those that are whole: one tree from `web` to `inventory`.
    pub whole: usize,
    /// A usual one: of those without a failure, the one of median duration.
    pub typical: Option<Call>,
    /// The same of those with an attempt that was repeated.
    pub repeated: Option<Call>,
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Its trace, 32 hexadecimal digits.
    pub trace_id: String,
    /// How long it took, in microseconds.
    pub duration_us: f64,
    /// Apps' part of it.
    pub app_us: f64,
    /// Proxies' part of it, with the network between them.
    pub proxy_us: f64,
    /// Apps' part by service.
    pub apps: Vec<Part>,
    /// Proxies' part by hop.
    pub proxies: Vec<Part>,
    /// Its spans, each after its parent.
    pub hops: Vec<HopSpan>,
    /// The same, to be drawn.
    #[serde(skip)]
    pub spans: Vec<Span>,
}

/// Somebody's part of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// A service, or a hop as `web ▸ orders`.
    pub whose: String,
    /// In microseconds.
    pub us: f64,
}

/// A span of a call.
#[derive(Clone, Debug, Serialize)]
pub struct HopSpan {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span that it is part of.
    pub parent_id: Option<String>,
    /// Whose sidecar made it.
    pub service: String,
    /// `in`, `out`, or neither.
    pub kind: &'static str,
    /// As sidecars name it.
    pub name: String,
    /// After the call began, in microseconds.
    pub start_us: f64,
    /// In microseconds.
    pub duration_us: f64,
    /// The answer's status.
    pub status: Option<u16>,
    /// Whether it failed.
    pub is_error: bool,
    /// Attempts before it.
    pub resend: u32,
    /// The endpoint that was asked.
    pub endpoint: Option<String>,
}

/// Waits until a whole call is there, and says what is.
pub async fn collect(receiver: &Receiver) -> Calls {
    let until = effects::now() + DEADLINE;
    loop {
        let calls = receiver.read(choose);
        if calls.typical.is_some() || effects::now() > until {
            return calls;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until each sidecar says that the collector took spans of it. Those of which it took none are faults.
pub async fn sent(plan: &Plan) -> Vec<String> {
    let until = effects::now() + DEADLINE;
    let mut faults = Vec::new();
    for service in [Service::Web, Service::Orders] {
        let workload = plan.first(service);
        while taken(workload).await.is_none_or(|taken| taken == 0.0) {
            if effects::now() > until {
                faults.push(format!(
                    "{} took no span of the sidecar of {}: its log may say why",
                    plan.traces.endpoint, workload.name
                ));
                break;
            }
            tokio::time::sleep(POLL).await;
        }
    }
    faults
}

/// The spans that a collector took of a sidecar, by its metrics.
async fn taken(workload: &Workload) -> Option<f64> {
    let request = Request::get("/metrics").header(HOST, "sidecar").body(Full::new(Bytes::new())).ok()?;
    let answer = Client::new(workload.health.to_string()).send(request).await.ok()?;
    count(&String::from_utf8_lossy(answer.body()))
}

fn count(metrics: &str) -> Option<f64> {
    let is_it =
        |line: &&str| line.starts_with("outrider_export_sent_total{") && line.contains("signal=\"spans\"");
    metrics.lines().find(is_it)?.split(' ').nth(1)?.parse().ok()
}

/// Looks for the calls to show.
#[must_use]
pub fn choose(traces: &Traces) -> Calls {
    let (mut usual, mut repeated) = (Vec::new(), Vec::new());
    for spans in traces.all() {
        let tree = Tree::new(spans);
        if !is_whole(&tree) {
            continue;
        }
        let (start, end) = tree.extent().unwrap_or_default();
        let kind = match spans.iter().any(|span| span.resend > 0) {
            true => &mut repeated,
            false => &mut usual,
        };
        kind.push((end - start, spans));
    }
    Calls {
        spans: traces.received(),
        traces: traces.all().count(),
        whole: usual.len() + repeated.len(),
        typical: median(usual),
        repeated: median(repeated),
    }
}

/// Whether it is one tree that the sidecar of `web` began, with every hop of both sides on the way to `inventory`.
#[must_use]
pub fn is_whole(tree: &Tree<'_>) -> bool {
    let way = [
        (Service::Inventory, Kind::Server),
        (Service::Orders, Kind::Client),
        (Service::Orders, Kind::Server),
        (Service::Web, Kind::Client),
    ];
    let is_way = |place: usize| {
        let upwards = tree.upwards(place).filter(|node| node.span.kind != Kind::Internal);
        let upwards = upwards.map(|node| (&*node.span.service, node.span.kind, node.span.is_proxy));
        upwards.eq(way.iter().map(|(service, kind)| (service.name(), *kind, true)))
    };
    let mut roots = tree.roots();
    let is_one = roots.next().is_some_and(|root| !root.is_orphan) && roots.next().is_none();
    is_one && (0..tree.nodes.len()).any(is_way)
}

/// The one of median duration; of equal ones always the same.
fn median(mut calls: Vec<(u64, &[Span])>) -> Option<Call> {
    calls.sort_by_key(|(nanos, spans)| (*nanos, spans.first().map(|span| span.trace)));
    let (nanos, spans) = calls.get(calls.len() / 2)?;
    let tree = Tree::new(spans);
    let shares = Shares::new(&tree, &shares::own(&tree));
    let parts = |parts: &[Share]| {
        parts.iter().map(|Share { whose, nanos }| Part { whose: whose.clone(), us: micros(*nanos) }).collect()
    };
    let start = tree.extent().map_or(0, |(start, _)| start);
    Some(Call {
        trace_id: format!("{:032x}", spans.first()?.trace),
        duration_us: micros(*nanos),
        app_us: micros(shares.of_apps()),
        proxy_us: micros(shares.of_proxies()),
        apps: parts(&shares.apps),
        proxies: parts(&shares.proxies),
        hops: tree.nodes.iter().map(|node| hop(node.span, start)).collect(),
        spans: spans.to_vec(),
    })
}

fn hop(span: &Span, start: u64) -> HopSpan {
    HopSpan {
        span_id: format!("{:016x}", span.id),
        parent_id: span.parent.map(|parent| format!("{parent:016x}")),
        service: span.service.to_string(),
        kind: match span.kind {
            Kind::Server => "in",
            Kind::Client => "out",
            Kind::Internal => "",
        },
        name: span.name.to_string(),
        start_us: micros(span.start - start),
        duration_us: micros(span.nanos()),
        status: span.status,
        is_error: span.is_error,
        resend: span.resend,
        endpoint: span.endpoint.as_deref().map(str::to_owned),
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

impl Report {
    /// The same with the calls that the demo received, which is a fault if none of them is whole.
    #[must_use]
    pub fn with_calls(mut self, calls: Option<Calls>) -> Self {
        let fault = calls.as_ref().filter(|calls| calls.typical.is_none()).map(|calls| {
            let Calls { spans, traces, whole, .. } = calls;
            format!("no whole trace of a usual call arrived: {spans} spans, {traces} traces, {whole} of them whole")
        });
        self.calls = calls;
        self.with(fault.into_iter().collect())
    }
}

/// Where to look for what went to somebody else's collector.
#[must_use]
pub fn where_to_look(target: &Target, last: Option<&str>) -> String {
    let Target { endpoint, protocol } = target;
    let host = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let mut text = format!("Traces went to {endpoint} ({protocol}): service `{}`.", Service::Web);
    if let Some(trace) = last {
        text += &format!(
            " The last call is trace {trace};\nin Jaeger, if it is there: http://{host}:16686/trace/{trace}; in Grafana: Explore, Tempo, that ID."
        );
    }
    text
}

/// The trace of a call, from the `traceparent` that a service saw.
///
/// # Errors
/// If it is not one.
pub fn trace_id(traceparent: &str) -> anyhow::Result<&str> {
    let id = traceparent.split('-').nth(1).filter(|id| id.len() == 32);
    id.with_context(|| format!("{traceparent:?} is no traceparent"))
}

#[cfg(test)]
mod tests;
