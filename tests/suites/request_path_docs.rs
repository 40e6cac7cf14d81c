//! The table of the proxy's own answers in `docs/request-path.md` is what the code does.
//!
//! `UPDATE_DOCS=1 cargo test --workspace request_path` writes it.

use std::{env, fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use outrider::{
    connect,
    headers::framing::FramingError,
    model::{ClusterName, health::Tally, wanted::Key},
    pipeline::error::ProxyError,
    relay::received::Broken,
    resilience::{circuit_breaker::Overflow, fault::Abort, retry::Processed},
    telemetry::explain,
};
use tokio::io::AsyncWriteExt;

const BEGIN: &str = "<!-- answers: made from the code, see tests/suites/request_path_docs.rs -->";
const END: &str = "<!-- answers end -->";

/// An error of the HTTP library, which only the library can make.
async fn hyper_error() -> Broken {
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"this is not HTTP\r\n\r\n").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    let request = Request::new(Empty::<Bytes>::new());
    let (answer, _ended) = tokio::join!(sender.send_request(request), connection);
    answer.expect_err("no HTTP came back").into()
}

/// One of each variant. A new one does not compile until [`event`] has words for it.
fn one_of_each(http: &Arc<Broken>) -> Vec<ProxyError> {
    let endpoint = SocketAddr::from(([127, 0, 0, 1], 4343));
    let cluster = ClusterName::new("orders");
    let refused = || connect::Error::Tcp(Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
    let overflow = |cap| ProxyError::Overflow { cluster: cluster.clone(), cap };
    vec![
        ProxyError::BadRequest("two hosts".to_owned()),
        ProxyError::HeadersTooLarge,
        ProxyError::Unsupported("CONNECT"),
        ProxyError::NoRoute { authority: "orders".to_owned() },
        ProxyError::NoRule { authority: "orders".to_owned() },
        ProxyError::NotDiscovered(Key::name("orders").unwrap()),
        ProxyError::NotAllowed,
        ProxyError::NoLongerAllowed,
        ProxyError::NotAuthorized,
        ProxyError::NoEndpoint { cluster: cluster.clone(), tally: Tally::default() },
        overflow(Overflow::Requests),
        overflow(Overflow::Connections),
        overflow(Overflow::Pending),
        overflow(Overflow::Peer),
        overflow(Overflow::Memory),
        ProxyError::RateLimited { cluster: cluster.clone(), quota: None },
        ProxyError::FaultInjected(Abort { status: StatusCode::SERVICE_UNAVAILABLE, grpc_status: 14 }),
        ProxyError::Connect { endpoint, source: refused() },
        ProxyError::Identity { endpoint, source: refused() },
        ProxyError::NotProcessed { endpoint, said: None },
        ProxyError::Reset { endpoint, source: Arc::clone(http) },
        ProxyError::Protocol { endpoint, source: Arc::clone(http) },
        ProxyError::BadResponse { endpoint, source: FramingError::ContentLength },
        ProxyError::ResponseHeadersTooLarge { endpoint },
        ProxyError::TryTimeout { endpoint, limit: Duration::from_secs(1) },
        ProxyError::Timeout { limit: Duration::from_secs(1) },
        ProxyError::DeadlineExceeded { limit: Duration::from_secs(1) },
        ProxyError::Idle { limit: Duration::from_secs(300) },
        ProxyError::Downstream,
    ]
}

/// What happened, for people. Exhaustive: a new variant needs its words here and its place in [`one_of_each`].
fn event(error: &ProxyError) -> &'static str {
    match error {
        ProxyError::BadRequest(_) => "The request is malformed or ambiguous.",
        ProxyError::HeadersTooLarge => {
            "The request's header block is beyond `header_bytes` or `header_count`."
        }
        ProxyError::Unsupported(_) => "The request asks for a feature of HTTP that is not carried.",
        ProxyError::NoRoute { .. } => "No cluster has this authority.",
        ProxyError::NoRule { .. } => {
            "The host or service has rules (`routes`), and the request is of none of them."
        }
        ProxyError::NotDiscovered(_) => {
            "Nobody knows where it leads, and the controller did not say so in time."
        }
        ProxyError::NotAllowed => {
            "The caller may not call here any more, or may not ask for this in plaintext."
        }
        ProxyError::NoLongerAllowed => {
            "The rules changed while the request waited for its answer, and allow it no more."
        }
        ProxyError::NotAuthorized => "No rule of `authorization` allows the call.",
        ProxyError::NoEndpoint { .. } => "The cluster has no endpoint that may be asked.",
        ProxyError::Overflow { cap: Overflow::Requests, .. } => "The cluster's cap on requests is reached.",
        ProxyError::Overflow { cap: Overflow::Connections, .. } => {
            "The cluster's cap on connections is reached."
        }
        ProxyError::Overflow { cap: Overflow::Pending, .. } => {
            "The cluster's cap on requests that wait for a connection is reached."
        }
        ProxyError::Overflow { cap: Overflow::Peer, .. } => {
            "The caller has its share of the cap on requests, `max_peer_percent`."
        }
        ProxyError::Overflow { cap: Overflow::Memory, .. } => {
            "The process is over its memory budget, and the cluster has some requests in flight."
        }
        ProxyError::RateLimited { .. } => "A rate limit is reached.",
        ProxyError::FaultInjected(_) => "A `fault` orders this answer, with this status or another.",
        ProxyError::Connect { .. } => "No connection to the endpoint could be had.",
        ProxyError::Identity { .. } => "Who answers at the endpoint's address is not who it must be.",
        ProxyError::NotProcessed { .. } => {
            "The endpoint closed or refused the stream before it took the request."
        }
        ProxyError::Reset { .. } => "The endpoint reset or closed before an answer.",
        ProxyError::Protocol { .. } => "What the endpoint answered is not HTTP.",
        ProxyError::BadResponse { .. } => {
            "The endpoint's answer breaks a rule that readers take differently."
        }
        ProxyError::ResponseHeadersTooLarge { .. } => {
            "The answer's header block is beyond `header_bytes` or `header_count`."
        }
        ProxyError::TryTimeout { .. } => "No answer within the time of one attempt.",
        ProxyError::Timeout { .. } => "No answer within the request's timeout.",
        ProxyError::DeadlineExceeded { .. } => {
            "The time that the caller gave ran out: its `grpc-timeout`, or what it had left itself."
        }
        ProxyError::Idle { .. } => "Nothing moved in either direction for too long before an answer.",
        ProxyError::Downstream => "The downstream broke off its request.",
    }
}

fn grpc_name(code: u8) -> &'static str {
    match code {
        1 => "CANCELLED",
        4 => "DEADLINE_EXCEEDED",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        _ => "?",
    }
}

fn row(error: &ProxyError) -> String {
    let retried_here = match error.retry_class() {
        None => "never",
        Some(Processed::No) => "any method",
        Some(Processed::Maybe) => "idempotent methods",
    };
    let retried_before = if error.is_unprocessed() {
        "any method"
    } else if error.retry_class().is_some() {
        "idempotent methods"
    } else {
        "never"
    };
    format!(
        "| {} | {} | {} {} | {} | `{}` | {retried_here} | {retried_before} |",
        event(error),
        error.status().as_u16(),
        error.grpc_status(),
        grpc_name(error.grpc_status()),
        error.flag().letters(),
        error.reason(),
    )
}

fn table(errors: &[ProxyError]) -> String {
    let head = "| What happened | HTTP | gRPC | flag | reason | repeated here | repeated by the caller's sidecar |\n\
                |---|---|---|---|---|---|---|";
    let rows: Vec<_> = errors.iter().map(row).collect();
    format!("{head}\n{}\n", rows.join("\n"))
}

#[tokio::test]
async fn the_table_of_answers_is_what_the_code_does() {
    let errors = one_of_each(&Arc::new(hyper_error().await));
    let fresh = table(&errors);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/request-path.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning is marked");
    let (written, after) = rest.split_once(END).expect("the table's end is marked");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}\n\n{fresh}\n{END}{after}")).unwrap();
        return;
    }
    assert_eq!(written.trim(), fresh.trim(), "out of date: run with UPDATE_DOCS=1");
}

#[tokio::test]
async fn every_reason_can_be_explained() {
    for error in one_of_each(&Arc::new(hyper_error().await)) {
        assert!(
            explain::of_reason(error.reason()).is_some(),
            "{} needs its words in remedy.rs",
            error.reason()
        );
    }
}

#[tokio::test]
async fn reasons_are_unique_and_speak_of_one_flag() {
    let errors = one_of_each(&Arc::new(hyper_error().await));
    let mut reasons: Vec<_> = errors.iter().map(ProxyError::reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), errors.len(), "{reasons:?}");
}
