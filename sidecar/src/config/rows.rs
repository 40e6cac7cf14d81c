//! Every key of the file, as `docs/config.md` shows it.

use super::{
    authorization_rows::authorization_rows,
    defaults::*, // every key that has a default: the file is about them
    defaults::{
        routes::SHARE,
        streams::{APP_PROXY_PROTOCOL, PROXY_REQUIRED},
    },
    edits_rows::edits_rows,
    route_rows::{self, route_rows},
    row::{Row, names, plain},
    telemetry_rows::telemetry_rows,
};

/// Who may connect where there is no `allow`.
const ANYBODY: &str = "any workload of `trust_domain`, and of those that rules name";

/// Every key of the file, section by section.
#[must_use]
pub fn rows() -> Vec<Row> {
    let rate_limits = [
        rate_limit_rows("inbound[].rate_limits[]", "the word of `by`"),
        vec![RATE_BY.row("inbound[].rate_limits[]")],
        rate_limit_rows("clusters[].rate_limits[]", "all"),
        fault_rows("clusters[].fault"),
        route_rows::limit_rows(),
        edits_rows(),
    ];
    let before = [top_rows(), intercept_rows(), telemetry_rows(), limit_rows(), dns_rows()].concat();
    let before = [before, authorization_rows(), listener_rows()].concat();
    let proxy_protocol = proxy_protocol_rows("inbound[].proxy_protocol");
    let of_clusters = [cluster_rows(), outlier_rows(), health_check_rows(), route_rows()].concat();
    let before = [before, probe_rows()].concat();
    [before, proxy_protocol, of_clusters, rate_limits.concat(), tcp_route_rows()].concat()
}

fn top_rows() -> Vec<Row> {
    vec![
        plain("", "service", "name", "required"),
        plain("", "trust_domain", "trust domain", "required"),
        plain("", "zone", "name", ""),
        Row { kind: "whole number or `auto`".to_owned(), ..WORKERS.row("") },
        plain("", "state_dir", "path", STATE_DIR),
        plain("", "identity", "section", "required"),
        plain("", "tls", "section", ""),
        plain("", "admin", "section", ""),
        plain("", "drain", "section", ""),
        plain("", "limits", "section", ""),
        plain("", "dns", "section", ""),
        plain("", "intercept", "section", ""),
        plain("", "controller", "section", ""),
        plain("", "forwarded", "section", ""),
        plain("", "telemetry", "section", ""),
        plain("", "authorization", "section", ""),
        plain("", "federation", "list of sections", ""),
        plain("", "probes", "list of sections", ""),
        plain("", "inbound", "list of sections", ""),
        plain("", "outbound", "list of sections", ""),
        plain("", "clusters", "list of sections", ""),
        plain("", "tcp_routes", "list of sections", ""),
        plain("", "routes", "list of sections", ""),
        plain("identity", "ca", "section", ""),
        plain("identity", "file", "section", ""),
        plain("identity.ca", "address", "`host:port`", "required"),
        plain("identity.ca", "join_token_file", "path", ""),
        plain("identity.ca", "service_account_token_file", "path", ""),
        plain("identity.ca", "bundle_file", "path", ""),
        VALIDITY.row("identity.ca"),
        plain("identity.file", "certificate", "path", "required"),
        plain("identity.file", "key", "path", "required"),
        plain("identity.file", "bundle", "path", "required"),
        plain("federation[]", "trust_domain", "trust domain", "required"),
        plain("federation[]", "endpoint", "`https://` URL", ""),
        plain("federation[]", "profile", "`https_web` or `https_spiffe`", ""),
        plain("federation[]", "endpoint_spiffe_id", "SPIFFE ID", ""),
        plain("federation[]", "bundle_file", "path", ""),
        plain("federation[]", "roots", "`system` or path", ROOTS),
        plain("tls", "cipher_suites", "list of names", &names(CIPHER_SUITES)),
        plain("tls", "key_exchange", "list of names", &names(KEY_EXCHANGE)),
        plain("admin", "socket", "path", ADMIN_SOCKET),
        plain("admin", "listen", "`IP:port` or `none`", ADMIN_LISTEN),
        IDLE_GRACE.row("drain"),
        DEADLINE.row("drain"),
        CLIENT_CERT.row("forwarded"),
        plain("controller", "address", "`host:port`", "required"),
        plain("controller", "spiffe_id", "SPIFFE ID", "required"),
        CONTROLLER_WAIT.row("controller"),
        CONTROLLER_IDLE.row("controller"),
        MAX_WANTED.row("controller"),
        MAX_WAITING.row("controller"),
    ]
}

fn intercept_rows() -> Vec<Row> {
    let of_port = |section| {
        vec![
            INTERCEPTED_PROTOCOL.row(section),
            APP_PROTOCOL.row(section),
            PEER.row(section),
            plain(section, "allow", "list of SPIFFE IDs", ANYBODY),
            PLAINTEXT.row(section),
            plain(section, "plaintext_until", "date", ""),
            plain(section, "plaintext_from", "list of addresses or ranges", ""),
            plain(section, "probes", "list of paths", ""),
            APP_TLS.row(section),
            TRUSTED_HOPS.row(section),
            CONNECT_TIMEOUT.row(section),
            STREAM_IDLE_TIMEOUT.row(section),
            HALF_OPEN_TIMEOUT.row(section),
            APP_POOL_IDLE_TIMEOUT.row(section),
            MAX_REQUESTS.row(section),
            MAX_PEER_PERCENT.row(section),
            MAX_CONNECTIONS.row(section),
            MAX_PENDING.row(section),
            plain(section, "rate_limits", "list of sections", ""),
            plain(section, "proxy_protocol", "section", ""),
            APP_PROXY_PROTOCOL.row(section),
            plain(section, "routes", "list of sections", ""),
        ]
    };
    let mut rows = vec![
        INTERCEPT_MODE.row("intercept"),
        INTERCEPT_OWN.row("intercept"),
        INTERCEPT_UID.row("intercept"),
        INTERCEPT_MARK.row("intercept"),
        plain("intercept", "outbound", "section", ""),
        plain("intercept", "inbound", "section", ""),
        OUTBOUND_PORT.row("intercept.outbound"),
        UNKNOWN.row("intercept.outbound"),
        plain("intercept.outbound", "except_ports", "list of ports", ""),
        plain("intercept.outbound", "except_cidrs", "list of addresses or ranges", ""),
        plain("intercept.outbound", "except_uids", "list of user numbers", ""),
        INBOUND_PORT.row("intercept.inbound"),
        plain("intercept.inbound", "except_ports", "list of ports", ""),
        plain("intercept.inbound", "except_cidrs", "list of addresses or ranges", ""),
        plain("intercept.inbound", "ports", "list of sections", ""),
        plain("intercept.inbound", "other_ports", "section", ""),
        plain("intercept.inbound.ports[]", "port", "port", "required"),
    ];
    rows.extend(of_port("intercept.inbound.ports[]"));
    // A key like the others, so that the message about it can say what is wrong.
    rows.push(plain("intercept.inbound.other_ports", "port", "nothing", ""));
    rows.extend(of_port("intercept.inbound.other_ports"));
    rows
}

fn limit_rows() -> Vec<Row> {
    vec![
        LISTENER_CONNECTIONS.row("limits"),
        PEER_CONNECTIONS.row("limits"),
        MAX_HANDSHAKES.row("limits"),
        HEADER_BYTES.row("limits"),
        HEADER_COUNT.row("limits"),
        MAX_STREAMS.row("limits"),
        MAX_RESETS.row("limits"),
        HANDSHAKE_TIMEOUT.row("limits"),
        HEADER_READ_TIMEOUT.row("limits"),
        IDLE_TIMEOUT.row("limits"),
        DOWNSTREAM_AGE.row("limits"),
        TCP_USER_TIMEOUT.row("limits"),
        STREAM_WINDOW.row("limits"),
        Row { kind: "size, `auto` or `none`".to_owned(), default: "auto".to_owned(), ..MEMORY.row("limits") },
    ]
}

fn dns_rows() -> Vec<Row> {
    vec![
        plain("dns", "servers", "list of `IP:port`", "those of `/etc/resolv.conf`"),
        DNS_TIMEOUT.row("dns"),
        DNS_ATTEMPTS.row("dns"),
        DNS_START_TIMEOUT.row("dns"),
        plain("clusters[].dns", "name", "name in the DNS", "required"),
        DNS_RECORD.row("clusters[].dns"),
        plain("clusters[].dns", "port", "port", ""),
        MIN_TTL.row("clusters[].dns"),
        MAX_TTL.row("clusters[].dns"),
        EMPTY_AFTER.row("clusters[].dns"),
    ]
}

fn listener_rows() -> Vec<Row> {
    vec![
        plain("inbound[]", "name", "name", "inbound-<index>"),
        plain("inbound[]", "listen", "`IP:port`", "required"),
        plain("inbound[]", "app", "`IP:port`", "required"),
        INBOUND_PROTOCOL.row("inbound[]"),
        APP_PROTOCOL.row("inbound[]"),
        PEER.row("inbound[]"),
        plain("inbound[]", "allow", "list of SPIFFE IDs", ANYBODY),
        CONNECT_TIMEOUT.row("inbound[]"),
        STREAM_IDLE_TIMEOUT.row("inbound[]"),
        HALF_OPEN_TIMEOUT.row("inbound[]"),
        APP_POOL_IDLE_TIMEOUT.row("inbound[]"),
        MAX_REQUESTS.row("inbound[]"),
        MAX_PEER_PERCENT.row("inbound[]"),
        MAX_CONNECTIONS.row("inbound[]"),
        MAX_PENDING.row("inbound[]"),
        plain("inbound[]", "rate_limits", "list of sections", ""),
        plain("inbound[]", "proxy_protocol", "section", ""),
        APP_PROXY_PROTOCOL.row("inbound[]"),
        plain("inbound[]", "routes", "list of sections", ""),
        plain("outbound[]", "name", "name", "outbound-<index>"),
        plain("outbound[]", "listen", "`IP:port`", "required"),
        PROTOCOL.row("outbound[]"),
        plain("outbound[]", "cluster", "name of a cluster", ""),
        plain("outbound[]", "proxy_protocol", "section", ""),
    ]
}

fn tcp_route_rows() -> Vec<Row> {
    vec![
        plain("tcp_routes[]", "name", "name", "required"),
        plain("tcp_routes[]", "services", "list of names of clusters", ""),
        plain("tcp_routes[]", "ports", "list of ports", ""),
        plain("tcp_routes[]", "snis", "list of names", ""),
        plain("tcp_routes[]", "clusters", "list of sections", "required"),
        plain("tcp_routes[].clusters[]", "name", "name of a cluster", "required"),
        SHARE.row("tcp_routes[].clusters[]"),
    ]
}

fn probe_rows() -> Vec<Row> {
    let port = |section| plain(section, "port", "port", "required");
    vec![
        plain("probes[]", "name", "name", "required"),
        plain("probes[]", "http", "section", ""),
        plain("probes[]", "tcp", "section", ""),
        plain("probes[]", "grpc", "section", ""),
        PROBE_TIMEOUT.row("probes[]"),
        port("probes[].http"),
        plain("probes[].http", "path", "path", PROBE_PATH),
        PROBE_SCHEME.row("probes[].http"),
        plain("probes[].http", "host", "loopback address or `localhost`", ""),
        plain("probes[].http", "headers", "list of sections", ""),
        plain("probes[].http.headers[]", "name", "field name", "required"),
        plain("probes[].http.headers[]", "value", "text", "required"),
        port("probes[].tcp"),
        plain("probes[].tcp", "host", "loopback address or `localhost`", ""),
        port("probes[].grpc"),
        plain("probes[].grpc", "service", "name", ""),
    ]
}

fn proxy_protocol_rows(section: &'static str) -> Vec<Row> {
    vec![plain(section, "from", "list of addresses or ranges", "required"), PROXY_REQUIRED.row(section)]
}

fn health_check_rows() -> Vec<Row> {
    let section = "clusters[].health_check";
    vec![
        CHECK_PROTOCOL.row(section),
        plain(section, "path", "path", CHECK_PATH),
        plain(section, "host", "`host` or `host:port`", "whom requests are for"),
        plain(section, "service", "name", ""),
        CHECK_INTERVAL.row(section),
        CHECK_TIMEOUT.row(section),
        UNHEALTHY_THRESHOLD.row(section),
        HEALTHY_THRESHOLD.row(section),
    ]
}

fn cluster_rows() -> Vec<Row> {
    vec![
        plain("clusters[]", "name", "name", "required"),
        plain("clusters[]", "authorities", "list of `host` or `host:port`", "the cluster's name"),
        plain("clusters[]", "addresses", "list of `IP` or `IP:port`", ""),
        INTERCEPTED_PROTOCOL.row("clusters[]"),
        plain("clusters[]", "endpoints", "list of sections", ""),
        plain("clusters[]", "endpoints_file", "path", ""),
        plain("clusters[]", "dns", "section", ""),
        plain("clusters[]", "spiffe_ids", "list of SPIFFE IDs", ""),
        TLS.row("clusters[]"),
        PEER.row("clusters[]"),
        MESH_PROTOCOL.row("clusters[]"),
        PEER_PROTOCOL.row("clusters[]"),
        PLAIN_PROTOCOL.row("clusters[]"),
        plain("clusters[]", "public", "section", ""),
        BALANCE.row("clusters[]"),
        plain("clusters[]", "health_check", "section", ""),
        plain("clusters[]", "affinity", "section", ""),
        PANIC_PERCENT.row("clusters[]"),
        SLOW_START.row("clusters[]"),
        ZONES.row("clusters[]"),
        CONNECT_TIMEOUT.row("clusters[]"),
        QUEUE_TIMEOUT.row("clusters[]"),
        REQUEST_TIMEOUT.row("clusters[]"),
        STREAM_IDLE_TIMEOUT.row("clusters[]"),
        HALF_OPEN_TIMEOUT.row("clusters[]"),
        POOL_IDLE_TIMEOUT.row("clusters[]"),
        MAX_CONNECTION_AGE.row("clusters[]"),
        plain("clusters[]", "retry", "section", ""),
        plain("clusters[]", "outlier_detection", "section", ""),
        MAX_REQUESTS.row("clusters[]"),
        MAX_CONNECTIONS.row("clusters[]"),
        MAX_PENDING.row("clusters[]"),
        plain("clusters[]", "rate_limits", "list of sections", ""),
        plain("clusters[]", "fault", "section", ""),
        plain("clusters[]", "routes", "list of sections", ""),
        plain("clusters[].endpoints[]", "address", "`IP:port`", "required"),
        plain("clusters[].endpoints[]", "spiffe_id", "SPIFFE ID", "the cluster's `spiffe_ids`"),
        WEIGHT.row("clusters[].endpoints[]"),
        plain("clusters[].endpoints[]", "zone", "name", ""),
        plain("clusters[].endpoints[]", "ready", "`true` or `false`", "true"),
        plain("clusters[].affinity", "by", "`header` or `cookie` or `source` or `spiffe_id`", "required"),
        plain("clusters[].affinity", "name", "name", ""),
        COOKIE_TTL.row("clusters[].affinity"),
        MAX_LOAD_PERCENT.row("clusters[].affinity"),
        plain("clusters[].public", "server_name", "DNS name or IP address", "required"),
        plain("clusters[].public", "roots", "`system` or path", ROOTS),
        plain("clusters[].public", "certificate", "path", ""),
        plain("clusters[].public", "key", "path", ""),
        PUBLIC_PROTOCOL.row("clusters[].public"),
    ]
    .into_iter()
    .chain(retry_rows("clusters[].retry"))
    .chain(budget_rows())
    .collect()
}

/// What routes have, too.
pub(super) fn retry_rows(section: &'static str) -> Vec<Row> {
    let statuses: Vec<String> = STATUSES.iter().map(ToString::to_string).collect();
    vec![
        MAX_RETRIES.row(section),
        PER_TRY_TIMEOUT.row(section),
        plain(section, "statuses", "list of statuses or `5xx`", &statuses.join(", ")),
        plain(section, "grpc_statuses", "list of gRPC statuses", &GRPC_STATUSES.join(", ")),
        METHODS.row(section),
        REPLAY_BYTES.row(section),
        BACKOFF_BASE.row(section),
        Row { kind: "duration, `p95` or `none`".to_owned(), ..HEDGE.row(section) },
    ]
}

fn outlier_rows() -> Vec<Row> {
    let section = "clusters[].outlier_detection";
    vec![
        CONSECUTIVE_GATEWAY_FAILURES.row(section),
        CONSECUTIVE_LOCAL_FAILURES.row(section),
        SUCCESS_RATE_STDEV.row(section),
        FAILURE_PERCENT.row(section),
        SLOW_FACTOR.row(section),
        SLOW_FLOOR.row(section),
        MIN_REQUESTS.row(section),
        MIN_ENDPOINTS.row(section),
        WINDOW.row(section),
        EJECTION_TIME.row(section),
        MAX_EJECTION_TIME.row(section),
        MAX_EJECTED_PERCENT.row(section),
    ]
}

fn budget_rows() -> Vec<Row> {
    let section = "clusters[].retry";
    vec![BUDGET_PERCENT.row(section), BUDGET_MIN_PER_SECOND.row(section), MAX_ACTIVE.row(section)]
}

pub(super) fn rate_limit_rows(section: &'static str, name: &str) -> Vec<Row> {
    vec![
        plain(section, "name", "name", name),
        Row { default: "required".to_owned(), ..RATE_REQUESTS.row(section) },
        RATE_PER.row(section),
        Row { default: "requests".to_owned(), ..RATE_BURST.row(section) },
        RATE_HEADERS.row(section),
    ]
}

pub(super) fn fault_rows(section: &'static str) -> Vec<Row> {
    vec![
        FAULT_DELAY.row(section),
        FAULT_DELAY_PERCENT.row(section),
        FAULT_ABORT.row(section),
        FAULT_ABORT_GRPC.row(section),
        FAULT_ABORT_PERCENT.row(section),
        plain(section, "header", "name of a field", ""),
        plain(section, "value", "value of a field", ""),
    ]
}
