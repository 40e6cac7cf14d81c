//! Keys of routes, as `docs/config.md` shows them.

use super::{
    defaults::{
        REQUEST_TIMEOUT,
        routes::{MIRRORED, SHARE},
    },
    row::{Row, plain},
    rows::{fault_rows, rate_limit_rows, retry_rows},
};

/// Where what a section does not say is looked for.
const CLUSTERS: &str = "the cluster's";

/// Every key of routes, wherever they stand.
pub(super) fn route_rows() -> Vec<Row> {
    [
        http_route_rows(),
        vec![plain("clusters[].routes[]", "name", "name", "route-<index>")],
        match_rows(
            "clusters[].routes[]",
            ["clusters[].routes[].headers[]", "clusters[].routes[].query[]", "clusters[].routes[].cookies[]"],
        ),
        policy_rows("clusters[].routes[]", "clusters[].routes[].retry"),
        app_rows(),
    ]
    .concat()
}

/// Their rate limits and faults.
pub(super) fn limit_rows() -> Vec<Row> {
    [
        rate_limit_rows("clusters[].routes[].rate_limits[]", "all"),
        rate_limit_rows("routes[].rules[].rate_limits[]", "all"),
        fault_rows("clusters[].routes[].fault"),
        fault_rows("routes[].rules[].fault"),
    ]
    .concat()
}

fn http_route_rows() -> Vec<Row> {
    let (route, rule, matches) = ("routes[]", "routes[].rules[]", "routes[].rules[].matches[]");
    let rows = vec![
        plain(route, "name", "name", "required"),
        plain(route, "hosts", "list of `host`, `host:port` or `*.host`", ""),
        plain(route, "services", "list of names of clusters", ""),
        plain(route, "rules", "list of sections", "required"),
        plain(rule, "name", "name", "<index>"),
        plain(rule, "matches", "list of sections", "everything"),
        plain(rule, "clusters", "list of sections", "required"),
        plain(rule, "sticky", "section", ""),
        plain(rule, "mirror", "list of sections", ""),
        plain("routes[].rules[].clusters[]", "name", "name of a cluster", "required"),
        SHARE.row("routes[].rules[].clusters[]"),
        plain("routes[].rules[].clusters[]", "request_headers", "section", ""),
        plain("routes[].rules[].clusters[]", "response_headers", "section", ""),
        plain("routes[].rules[].mirror[]", "cluster", "name of a cluster", "required"),
        MIRRORED.row("routes[].rules[].mirror[]"),
        plain("routes[].rules[].sticky", "header", "name of a field", ""),
        plain("routes[].rules[].sticky", "cookie", "name of a cookie", ""),
    ];
    let matches = match_rows(
        matches,
        [
            "routes[].rules[].matches[].headers[]",
            "routes[].rules[].matches[].query[]",
            "routes[].rules[].matches[].cookies[]",
        ],
    );
    [rows, matches, policy_rows(rule, "routes[].rules[].retry")].concat()
}

/// Those of the own app.
fn app_rows() -> Vec<Row> {
    let section = "inbound[].routes[]";
    let policy = vec![
        REQUEST_TIMEOUT.row(section),
        plain(section, "rate_limits", "list of sections", "the listener's"),
        plain(section, "fault", "section", ""),
        plain(section, "request_headers", "section", ""),
        plain(section, "response_headers", "section", ""),
        plain(section, "rewrite", "section", ""),
    ];
    [vec![plain(section, "name", "name", "route-<index>")], key_rows(section), policy].concat()
}

/// What requests must be, and the parts of it.
fn match_rows(section: &'static str, [headers, query, cookies]: [&'static str; 3]) -> Vec<Row> {
    let parts = vec![
        plain(headers, "name", "name of a field", "required"),
        plain(headers, "value", "value of a field", ""),
        plain(query, "name", "name of a parameter", "required"),
        plain(query, "value", "value of a parameter", ""),
        plain(cookies, "name", "name of a cookie", "required"),
        plain(cookies, "value", "value of a cookie", ""),
    ];
    [key_rows(section), parts].concat()
}

fn key_rows(section: &'static str) -> Vec<Row> {
    vec![
        plain(section, "path", "path", ""),
        plain(section, "path_prefix", "path", ""),
        plain(section, "methods", "list of methods", ""),
        plain(section, "headers", "list of sections", ""),
        plain(section, "query", "list of sections", ""),
        plain(section, "cookies", "list of sections", ""),
        plain(section, "grpc", "`service` or `service/method`", ""),
    ]
}

/// What holds for them, where they go out.
fn policy_rows(section: &'static str, retry: &'static str) -> Vec<Row> {
    let rows = vec![
        inherited(REQUEST_TIMEOUT.row(section), CLUSTERS),
        plain(section, "retry", "section", ""),
        plain(section, "rate_limits", "list of sections", CLUSTERS),
        plain(section, "fault", "section", CLUSTERS),
        plain(section, "request_headers", "section", ""),
        plain(section, "response_headers", "section", ""),
        plain(section, "rewrite", "section", ""),
        plain(section, "redirect", "section", ""),
    ];
    let retries = retry_rows(retry).into_iter().map(|row| inherited(row, CLUSTERS));
    rows.into_iter().chain(retries).collect()
}

fn inherited(row: Row, from: &str) -> Row {
    Row { default: from.to_owned(), ..row }
}
