//! Logs: the access log has one record of each request, however it ended and whatever becomes of the file; the sidecar's
//! own log stays readable whatever happens.

mod own;
mod places;
mod records;

use std::{fs, net::SocketAddr, path::Path};

use serde_json::Value;

use crate::harness::{HttpApp, TestMesh, body};

/// An app that answers `/ok`, fails at `/fail`, and never answers `/wait`.
async fn app() -> HttpApp {
    HttpApp::start(async |request| {
        let status = match request.uri().path() {
            "/wait" => std::future::pending().await,
            "/fail" => 500,
            _ => 200,
        };
        Ok(http::Response::builder().status(status).header("server", "test").body(body::full("done"))?)
    })
    .await
}

/// The configuration of `web` with an access log of these keys; none: without one.
fn web(orders: SocketAddr, access_log: &str) -> String {
    let cluster = TestMesh::cluster("orders", &[orders], "retry: {max_retries: 0}");
    let listener = "{name: out, listen: '127.0.0.1:0'}";
    let telemetry = format!("telemetry: {{access_log: {{{access_log}}}}}\n");
    let telemetry = if access_log.is_empty() { "" } else { &telemetry };
    format!("{telemetry}outbound: [{listener}]\nclusters: [{cluster}]")
}

/// The whole records in a file of JSON; none if there is no file.
fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
