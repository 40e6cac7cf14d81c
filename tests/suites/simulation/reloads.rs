//! Other configurations, again and again, while everything else happens.

use std::time::Duration;

use outrider::{app::App, model::Settings};

use super::{identities::spiffe_id, load::OUTBOUND, log::Log, mesh::INBOUND_PORT, service::APP};

/// The caller's listeners and clusters: variant 0 is what it starts with; `source` says where replicas are found, `policy`
/// what holds for requests. All lead to the same answers.
pub(super) fn outbound(source: &str, policy: &str, variant: u32) -> String {
    let (orders, users) = (spiffe_id("orders"), spiffe_id("users"));
    let more = if variant % 2 == 1 { ", {name: more, listen: '127.0.0.1:4341'}" } else { "" };
    let also = match variant % 3 {
        1 => format!(", {{name: users, spiffe_ids: ['{users}'], endpoints: [{{address: '10.9.9.9:1'}}]}}"),
        _ => String::new(),
    };
    // Not the balance: round-robin goes on asking replicas that are down, which the budget need not cover.
    let pool_idle = 30 + variant;
    let header_count = 100 - variant % 2;
    format!(
        "limits: {{header_count: {header_count}}}\n\
         outbound: [{{name: out, listen: '{OUTBOUND}'}}{more}]\n\
         clusters: [{{name: orders, {source}, spiffe_ids: ['{orders}'], connect_timeout: 500ms, \
         pool_idle_timeout: {pool_idle}s, {policy}}}{also}]\n"
    )
}

/// A replica's listeners, likewise.
pub(super) fn inbound(variant: u32) -> String {
    let web = spiffe_id("web");
    let allow = if variant % 2 == 1 { format!(", allow: ['{web}']") } else { String::new() };
    let more = match variant % 3 {
        1 => format!(", {{name: more, listen: '0.0.0.0:4344', app: '{APP}'}}"),
        _ => String::new(),
    };
    let max_requests = 1000 + variant;
    format!(
        "inbound: [{{name: in, listen: '0.0.0.0:{INBOUND_PORT}', app: '{APP}', \
         max_requests: {max_requests}{allow}}}{more}]\n"
    )
}

/// Has a sidecar go by the next variant every so often, for ever. One that drains refuses, and goes on draining.
pub(super) async fn keep_reloading(
    host: &'static str,
    app: &App,
    every: Option<Duration>,
    log: &Log,
    settings: impl Fn(u32) -> Settings,
) {
    let Some(every) = every else { return std::future::pending().await };
    for variant in 1.. {
        tokio::time::sleep(every).await;
        match app.reload(settings(variant)).await {
            Ok(_addresses) => log.write(format_args!("{host} goes by variant {variant}")),
            Err(rejected) => log.write(format_args!("{host} refuses variant {variant}: {rejected}")),
        }
    }
}
