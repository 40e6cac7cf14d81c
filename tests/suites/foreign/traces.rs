//! Traces between others' senders and an others' collector: OpenTelemetry's SDK for Python with spans of its own in client and
//! app, and Rotel, a collector that takes OTLP by gRPC and by HTTP and writes down what it got.
//!
//! ```text
//!   client ──▶ web's sidecar ══▶ orders' sidecar ──▶ app       one trace: checkout ▸ CLIENT ▸ SERVER ▸ handle
//!      ╲             ╲                 ╱             ╱
//!       ╲─────────────╲──── Rotel ────╱─────────────╱          OTLP of four senders
//! ```

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    apps, claim,
    mesh::{Mesh, Plan},
    programs::Call,
};
use crate::processes::{authority::id, process::Process, until};

const NEEDS: [&str; 5] = [
    "python3",
    "python:opentelemetry/sdk",
    "python:opentelemetry/exporter/otlp",
    "python:opentelemetry/propagators/b3",
    ROTEL,
];
const ROTEL: &str = "python:rotel/rotel-agent";
/// Clocks of one machine, read by different processes: what a child may be outside its parent, in nanoseconds.
const TOLERANCE: u64 = 5_000_000;

/// A span as Rotel writes it down. Values are as `Str(web)`.
#[derive(Clone, Debug, Default)]
struct Told {
    resource: BTreeMap<String, String>,
    scope: String,
    facts: BTreeMap<String, String>,
    attributes: BTreeMap<String, String>,
    events: Vec<String>,
}

impl Told {
    fn fact(&self, name: &str) -> &str {
        self.facts.get(name).map_or("", String::as_str)
    }

    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }

    fn times(&self) -> (u64, u64) {
        let [start, end] =
            ["Start time", "End time"].map(|name| self.fact(name).parse().expect("nanoseconds"));
        (start, end)
    }
}

/// Reads Rotel's account of what it received.
fn told(log: &str) -> Vec<Told> {
    let mut spans: Vec<Told> = Vec::new();
    let (mut resource, mut scope, mut part) = (BTreeMap::new(), String::new(), "");
    for line in log.lines() {
        let words = line.trim();
        match words.split_once([' ', ':']).map_or(words, |(first, _)| first) {
            "ResourceSpans" => resource = BTreeMap::new(),
            "Resource" => part = "resource",
            "InstrumentationScope" => scope = words["InstrumentationScope".len()..].trim().to_owned(),
            "Span" => {
                part = "facts";
                spans.push(Told { resource: resource.clone(), scope: scope.clone(), ..Told::default() });
            }
            "Attributes" => part = "attributes",
            "Events" | "SpanEvent" => part = "events",
            "Links" | "SpanLink" => part = "links",
            _ => {
                let (Some((name, value)), span) = (words.split_once(':'), spans.last_mut()) else { continue };
                let (name, value) =
                    (name.trim_start_matches("-> ").trim().to_owned(), value.trim().to_owned());
                match (part, span) {
                    ("resource", _) => drop(resource.insert(name, unquoted(&value))),
                    ("facts", Some(span)) => drop(span.facts.insert(name, value)),
                    ("attributes", Some(span)) => drop(span.attributes.insert(name, unquoted(&value))),
                    ("events", Some(span)) if name == "Name" => span.events.push(value),
                    _ => {}
                }
            }
        }
    }
    spans
}

/// `Str(web)`, `Int(200)` without what they are.
fn unquoted(value: &str) -> String {
    let inner = value.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(value).to_owned()
}

async fn rotel(mesh: &Mesh) -> Process {
    let [grpc, http] = mesh.collector();
    let pid_file = mesh.folder.path().join("rotel.pid").display().to_string();
    let arguments = [
        ["start", "--exporter=blackhole", "--debug-log=traces", "--debug-log-verbosity=detailed"]
            .map(str::to_owned),
        [
            format!("--otlp-grpc-endpoint={grpc}"),
            format!("--otlp-http-endpoint={http}"),
            format!("--pid-file={pid_file}"),
            "--environment=test".to_owned(),
        ],
    ];
    let call = Call::new(ROTEL, arguments.concat());
    let mut process = Process::start("rotel", &call.program, call.arguments, mesh.folder.path());
    for address in [grpc, http] {
        until(&format!("the collector listens at {address}"), async || {
            assert!(!process.has_ended(), "it ended while starting");
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
    }
    process
}

/// A mesh with a collector, and an app and clients that send it spans of their own.
struct Traced {
    mesh: Mesh,
    rotel: Process,
    _app: Process,
    /// What Python's exporters take.
    collector: [String; 2],
}

impl Traced {
    /// `protocol` is that of Python's exporters.
    async fn start(traces: &'static str, protocol: &str) -> Self {
        let mesh = Mesh::start(Plan { traces, ..Plan::default() }).await;
        let rotel = rotel(&mesh).await;
        let [grpc, http] = mesh.collector();
        let collector = match protocol {
            "grpc" => format!("http://{grpc}"),
            _ => format!("http://{http}/v1/traces"),
        };
        let collector = [collector, protocol.to_owned()];
        let more: Vec<_> = collector.iter().map(String::as_str).collect();
        let app = apps::script(&mesh, mesh.app(), "otlp_app.py", &more).await;
        Self { mesh, rotel, _app: app, collector }
    }

    /// The client's account of one call.
    async fn call(&self, propagator: &str, sampler: &str) -> Value {
        let [collector, protocol] = &self.collector;
        let url = self.mesh.url("/things?secret=1");
        let call = Call::new("otlp_client.py", [url.as_str(), collector, protocol, propagator]);
        let output = call.command().env("OTEL_TRACES_SAMPLER", sampler).output().await.expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// What the collector has of a trace, once it has so many spans.
    async fn told(&self, trace: &Value, count: usize) -> Vec<Told> {
        let trace = trace.as_str().expect("an ID");
        let of_trace = || {
            let spans = told(&self.rotel.log());
            spans.into_iter().filter(|span| span.fact("Trace ID") == trace).collect::<Vec<_>>()
        };
        until(&format!("{count} spans of {trace} arrived"), async || of_trace().len() >= count).await;
        of_trace()
    }
}

/// The span of that service that its proxy made, or not.
fn of<'a>(spans: &'a [Told], service: &str, is_proxy: bool) -> &'a Told {
    let mut found = spans
        .iter()
        .filter(|span| span.service() == service && (span.scope.contains("outrider") == is_proxy));
    let first = found.next().unwrap_or_else(|| panic!("no span of {service}: {spans:#?}"));
    assert!(found.next().is_none(), "more than one of {service}: {spans:#?}");
    first
}

/// One chain of four: each the child of the one before, and within it.
fn assert_chain(called: &Value, spans: &[Told]) {
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let chain = [("shop", false), ("web", true), ("orders", true), ("orders-app", false)];
    let chain = chain.map(|(service, is_proxy)| of(spans, service, is_proxy));
    let kinds = chain.map(|span| span.fact("Kind"));
    assert_eq!(kinds, ["SPAN_KIND_CLIENT", "SPAN_KIND_CLIENT", "SPAN_KIND_SERVER", "SPAN_KIND_SERVER"]);
    assert_eq!(chain[0].fact("ID"), called["span"], "the client's own");
    assert_eq!(chain[3].fact("ID"), called["app"]["span"], "the app's own");
    for pair in chain.windows(2) {
        let (parent, child) = (pair[0], pair[1]);
        assert_eq!(child.fact("Parent ID"), parent.fact("ID"), "{child:#?} of {parent:#?}");
        let ((start, end), (inner_start, inner_end)) = (parent.times(), child.times());
        let is_within =
            inner_start + TOLERANCE >= start && inner_end <= end + TOLERANCE && inner_start <= inner_end;
        assert!(is_within, "{child:#?} is not within {parent:#?}");
    }
}

/// What the sidecars' spans say by OpenTelemetry's conventions, as another program understood it.
fn assert_conventions(spans: &[Told], mesh: &Mesh) {
    let (client, server) = (of(spans, "web", true), of(spans, "orders", true));
    for span in [client, server] {
        assert!(span.fact("Name").starts_with("GET"), "{span:#?}");
        for (name, value) in
            [("http.request.method", "GET"), ("http.response.status_code", "200"), ("url.path", "/things")]
        {
            assert_eq!(span.attribute(name), value, "{name}: {span:#?}");
        }
        assert!(!format!("{span:?}").contains("secret"), "a query may hold secrets: {span:#?}");
        assert!(!span.events.is_empty(), "{span:#?}");
    }
    for (name, value) in [
        ("outrider.cluster", "http".to_owned()),
        ("outrider.endpoint", mesh.callee.host.inbound().to_string()),
        ("outrider.peer.spiffe_id", id("orders").to_string()),
    ] {
        assert_eq!(client.attribute(name), value, "{name}: {client:#?}");
    }
    assert_eq!(server.attribute("outrider.peer.spiffe_id"), id("web").to_string(), "{server:#?}");
}

#[test]
fn spans_of_apps_and_sidecars_are_one_chain_at_a_collector_of_grpc() {
    claim(&NEEDS, async || {
        let keys = "endpoint: \"http://@GRPC@\", protocol: grpc, sample_percent: 0, interval: 50ms";
        let traced = Traced::start(keys, "grpc").await;
        let called = traced.call("tracecontext", "always_on").await;
        let spans = traced.told(&called["trace"], 4).await;
        assert_chain(&called, &spans);
        assert_conventions(&spans, &traced.mesh);
    });
}

#[test]
fn spans_of_apps_and_sidecars_are_one_chain_at_a_collector_of_http() {
    claim(&NEEDS, async || {
        let keys = "endpoint: \"http://@HTTP@\", protocol: http, compression: gzip, interval: 50ms";
        let traced = Traced::start(keys, "http").await;
        let called = traced.call("tracecontext", "always_on").await;
        let spans = traced.told(&called["trace"], 4).await;
        assert_chain(&called, &spans);
        assert_conventions(&spans, &traced.mesh);
    });
}

#[test]
fn apps_that_speak_b3_are_in_the_same_chain() {
    claim(&NEEDS, async || {
        let keys = "endpoint: \"http://@GRPC@\", interval: 50ms";
        let traced = Traced::start(keys, "grpc").await;
        for (propagator, field) in [("b3", "b3"), ("b3multi", "x-b3-traceid")] {
            let called = traced.call(propagator, "always_on").await;
            let spans = traced.told(&called["trace"], 4).await;
            assert_chain(&called, &spans);
            let sent = called["sent"].as_object().expect("fields");
            assert!(!sent.contains_key("traceparent"), "{called}");
            let fields = called["app"]["fields"].as_object().expect("fields");
            assert!(fields.contains_key(field) && fields.contains_key("traceparent"), "{called}");
        }
    });
}

#[test]
fn what_a_client_did_not_sample_is_sent_by_nobody() {
    claim(&NEEDS, async || {
        let keys = "endpoint: \"http://@GRPC@\", sample_percent: 100, interval: 50ms";
        let traced = Traced::start(keys, "grpc").await;
        let unsampled = traced.call("tracecontext", "always_off").await;
        // Trace Context's second level has a flag beside that of sampling, which some SDKs set.
        let seen = unsampled["app"]["fields"]["traceparent"].as_str().expect("a traceparent");
        let is_unsampled = seen.ends_with("-00") || seen.ends_with("-02");
        let unsampled = unsampled["trace"].as_str().expect("an ID");
        assert!(seen.contains(unsampled) && is_unsampled, "{unsampled}: {seen}");
        // What comes later has arrived.
        let sampled = traced.call("tracecontext", "always_on").await;
        traced.told(&sampled["trace"], 4).await;
        traced.mesh.quiet().await;
        let log = traced.rotel.log();
        assert!(!log.contains(unsampled), "{log}");
    });
}
