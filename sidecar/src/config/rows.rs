//! Every key of the file, as `docs/config.md` shows it.

use super::{
    defaults::{
        ADMIN_LISTEN, ADMIN_SOCKET, APP_POOL_IDLE_TIMEOUT, APP_PROTOCOL, APP_TLS, BACKOFF_BASE, BALANCE,
        BUDGET_MIN_PER_SECOND, BUDGET_PERCENT, CIPHER_SUITES, CONNECT_TIMEOUT, DEADLINE, DNS_ATTEMPTS,
        DNS_RECORD, DNS_START_TIMEOUT, DNS_TIMEOUT, EMPTY_AFTER, HALF_OPEN_TIMEOUT, HANDSHAKE_TIMEOUT,
        HEADER_BYTES, HEADER_COUNT, HEADER_READ_TIMEOUT, IDLE_GRACE, IDLE_TIMEOUT, INBOUND_PORT,
        INTERCEPT_MARK, INTERCEPT_MODE, INTERCEPT_OWN, INTERCEPT_UID, INTERCEPTED_PROTOCOL, KEY_EXCHANGE,
        LISTENER_CONNECTIONS, MAX_CONNECTION_AGE, MAX_CONNECTIONS, MAX_HANDSHAKES, MAX_PENDING, MAX_REQUESTS,
        MAX_RESETS, MAX_RETRIES, MAX_STREAMS, MAX_TTL, MEMORY, MESH_PROTOCOL, MIN_TTL, OUTBOUND_PORT, PEER,
        PEER_CONNECTIONS, PEER_PROTOCOL, PLAIN_PROTOCOL, PLAINTEXT, POOL_IDLE_TIMEOUT, PROTOCOL,
        PUBLIC_PROTOCOL, REPLAY_BYTES, REQUEST_TIMEOUT, ROOTS, STATE_DIR, STREAM_IDLE_TIMEOUT, STREAM_WINDOW,
        TCP_USER_TIMEOUT, TLS, UNKNOWN, VALIDITY, WORKERS,
    },
    row::{Row, names, plain},
};

/// Every key of the file, section by section.
#[must_use]
pub fn rows() -> Vec<Row> {
    [top_rows(), intercept_rows(), limit_rows(), dns_rows(), listener_rows(), cluster_rows()].concat()
}

fn top_rows() -> Vec<Row> {
    vec![
        plain("", "service", "name", "required"),
        plain("", "trust_domain", "trust domain", "required"),
        Row { kind: "whole number or `auto`".to_owned(), ..WORKERS.row("") },
        plain("", "state_dir", "path", STATE_DIR),
        plain("", "identity", "section", "required"),
        plain("", "tls", "section", ""),
        plain("", "admin", "section", ""),
        plain("", "drain", "section", ""),
        plain("", "limits", "section", ""),
        plain("", "dns", "section", ""),
        plain("", "intercept", "section", ""),
        plain("", "inbound", "list of sections", ""),
        plain("", "outbound", "list of sections", ""),
        plain("", "clusters", "list of sections", ""),
        plain("identity", "ca", "section", ""),
        plain("identity", "file", "section", ""),
        plain("identity.ca", "address", "`host:port`", "required"),
        plain("identity.ca", "join_token_file", "path", ""),
        VALIDITY.row("identity.ca"),
        plain("identity.file", "certificate", "path", "required"),
        plain("identity.file", "key", "path", "required"),
        plain("identity.file", "bundle", "path", "required"),
        plain("tls", "cipher_suites", "list of names", &names(CIPHER_SUITES)),
        plain("tls", "key_exchange", "list of names", &names(KEY_EXCHANGE)),
        plain("admin", "socket", "path", ADMIN_SOCKET),
        plain("admin", "listen", "`IP:port` or `none`", ADMIN_LISTEN),
        IDLE_GRACE.row("drain"),
        DEADLINE.row("drain"),
    ]
}

fn intercept_rows() -> Vec<Row> {
    let of_port = |section| {
        vec![
            INTERCEPTED_PROTOCOL.row(section),
            APP_PROTOCOL.row(section),
            PEER.row(section),
            plain(section, "allow", "list of SPIFFE IDs", "any workload of `trust_domain`"),
            PLAINTEXT.row(section),
            plain(section, "plaintext_until", "date", ""),
            plain(section, "probes", "list of paths", ""),
            APP_TLS.row(section),
            CONNECT_TIMEOUT.row(section),
            STREAM_IDLE_TIMEOUT.row(section),
            HALF_OPEN_TIMEOUT.row(section),
            APP_POOL_IDLE_TIMEOUT.row(section),
            MAX_REQUESTS.row(section),
            MAX_CONNECTIONS.row(section),
            MAX_PENDING.row(section),
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
        PROTOCOL.row("inbound[]"),
        APP_PROTOCOL.row("inbound[]"),
        PEER.row("inbound[]"),
        plain("inbound[]", "allow", "list of SPIFFE IDs", "any workload of `trust_domain`"),
        CONNECT_TIMEOUT.row("inbound[]"),
        STREAM_IDLE_TIMEOUT.row("inbound[]"),
        HALF_OPEN_TIMEOUT.row("inbound[]"),
        APP_POOL_IDLE_TIMEOUT.row("inbound[]"),
        MAX_REQUESTS.row("inbound[]"),
        MAX_CONNECTIONS.row("inbound[]"),
        MAX_PENDING.row("inbound[]"),
        plain("outbound[]", "name", "name", "outbound-<index>"),
        plain("outbound[]", "listen", "`IP:port`", "required"),
        PROTOCOL.row("outbound[]"),
        plain("outbound[]", "cluster", "name of a cluster", ""),
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
        CONNECT_TIMEOUT.row("clusters[]"),
        REQUEST_TIMEOUT.row("clusters[]"),
        STREAM_IDLE_TIMEOUT.row("clusters[]"),
        HALF_OPEN_TIMEOUT.row("clusters[]"),
        POOL_IDLE_TIMEOUT.row("clusters[]"),
        MAX_CONNECTION_AGE.row("clusters[]"),
        plain("clusters[]", "retry", "section", ""),
        MAX_REQUESTS.row("clusters[]"),
        MAX_CONNECTIONS.row("clusters[]"),
        MAX_PENDING.row("clusters[]"),
        plain("clusters[].endpoints[]", "address", "`IP:port`", "required"),
        plain("clusters[].endpoints[]", "spiffe_id", "SPIFFE ID", "the cluster's `spiffe_ids`"),
        plain("clusters[].public", "server_name", "DNS name or IP address", "required"),
        plain("clusters[].public", "roots", "`system` or path", ROOTS),
        plain("clusters[].public", "certificate", "path", ""),
        plain("clusters[].public", "key", "path", ""),
        PUBLIC_PROTOCOL.row("clusters[].public"),
        MAX_RETRIES.row("clusters[].retry"),
        BUDGET_PERCENT.row("clusters[].retry"),
        BUDGET_MIN_PER_SECOND.row("clusters[].retry"),
        REPLAY_BYTES.row("clusters[].retry"),
        BACKOFF_BASE.row("clusters[].retry"),
    ]
}
