//! Every key's type, default and range: the one place that has them.
//!
//! Validation reads the constants; `docs/config.md` is compared with [`rows`] by a test, so neither can drift.
//! Where a default is another mesh's, its comment says whose.

use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};

use super::units::{Bytes, Unit};
use crate::model::{
    cluster::{AppProtocol, Balance},
    dns::Family,
    listener::Protocol,
    transport::HttpVersion,
};

/// A key that holds a quantity.
#[derive(Clone, Copy, Debug)]
pub struct Key<T> {
    /// The key.
    pub name: &'static str,
    /// Its value where the file gives none; `None` is written `none`.
    pub default: Option<T>,
    /// Smallest value.
    pub min: T,
    /// Largest value.
    pub max: T,
    /// Whether `none` may be written.
    pub may_be_none: bool,
}

/// A key that holds one of a few words.
#[derive(Clone, Copy, Debug)]
pub struct Choice<T: 'static> {
    /// The key.
    pub name: &'static str,
    /// The word that holds if the file says nothing.
    pub default: (&'static str, T),
    /// The others.
    pub others: &'static [(&'static str, T)],
}

/// The words of `clusters[].tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Mutual TLS with SPIFFE identities.
    Mesh,
    /// TLS to a service outside the mesh.
    Public,
    /// No encryption, to a service outside the mesh.
    None,
}

/// A key's row in `docs/config.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The section: `limits`, `clusters[].retry`; empty for the top.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// What may stand there.
    pub kind: String,
    /// What holds if nothing stands there; `required` if something must.
    pub default: String,
    /// The smallest and largest value; empty if there is no such thing.
    pub range: String,
}

/// What stands in for "never": model times are durations, and a year is longer than any process of ours lives.
pub const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

const fn key<T: Copy>(name: &'static str, default: T, min: T, max: T) -> Key<T> {
    Key { name, default: Some(default), min, max, may_be_none: false }
}

const fn or_none<T: Copy>(name: &'static str, default: Option<T>, min: T, max: T) -> Key<T> {
    Key { name, default, min, max, may_be_none: true }
}

/// Data-path threads. `auto` is taken too: the cores that the process may use, by its cgroup.
pub const WORKERS: Key<u64> = key("workers", 1, 1, 64);
/// Where key and SVID are kept between restarts.
pub const STATE_DIR: &str = "/var/lib/outrider";
/// Lifetime of an SVID to ask for. Short ones are for tests.
pub const VALIDITY: Key<Duration> = key("validity", secs(24 * HOUR), secs(10), secs(90 * DAY));
/// The admin socket.
pub const ADMIN_SOCKET: &str = "/run/outrider/admin.sock";
/// The read-only listener.
pub const ADMIN_LISTEN: &str = "0.0.0.0:4391";
/// Cipher suites of TLS 1.3 by their IANA names, in default order (RFC 8446 §B.4).
pub const CIPHER_SUITES: &[(&str, CipherSuite)] = &[
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
];
/// Key exchange groups, in default order: the hybrid post-quantum one first.
pub const KEY_EXCHANGE: &[(&str, NamedGroup)] = &[
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("P-256", NamedGroup::secp256r1),
];
/// How long idle HTTP/1 connections of the own app are still served.
pub const IDLE_GRACE: Key<Duration> = key("idle_grace", secs(5), secs(0), secs(HOUR));
/// When a drain is forced.
pub const DEADLINE: Key<Duration> = key("deadline", secs(30), secs(1), secs(24 * HOUR));

/// Connections per listener, over all workers.
pub const LISTENER_CONNECTIONS: Key<u64> = key("max_connections", 10_000, 1, 1_000_000);
/// Connections that one SPIFFE ID may have at a listener: half of all. It is a service's, with many replicas.
pub const PEER_CONNECTIONS: Key<u64> = key("max_connections_per_peer", 5_000, 1, 1_000_000);
/// Handshakes under way per worker: about what one core gets done within half a second.
pub const MAX_HANDSHAKES: Key<u64> = key("max_handshakes", 512, 4, 100_000);
/// Bytes of a header block (Envoy: 60 KiB).
pub const HEADER_BYTES: Key<Bytes> = key("header_bytes", Bytes::kib(64), Bytes::kib(8), Bytes::mib(1));
/// Fields of a header block (as Envoy).
pub const HEADER_COUNT: Key<u64> = key("header_count", 100, 10, 1000);
/// Streams of one HTTP/2 connection (Envoy 1024, HAProxy 100, hyper 200).
pub const MAX_STREAMS: Key<u64> = key("max_streams", 256, 1, 10_000);
/// Streams per second of one HTTP/2 connection that are reset before their answer (Envoy: 500, if that is half of all).
pub const MAX_RESETS: Key<u64> = key("max_resets", 500, 10, 1_000_000);
/// TLS handshake of a peer.
pub const HANDSHAKE_TIMEOUT: Key<Duration> = key("handshake_timeout", secs(10), millis(100), secs(300));
/// From the first byte of an HTTP/1 request's head to its last.
pub const HEADER_READ_TIMEOUT: Key<Duration> = key("header_read_timeout", secs(60), secs(1), secs(HOUR));
/// A downstream HTTP connection without a request (as Envoy): longer than clients keep one, so that they close first.
pub const IDLE_TIMEOUT: Key<Duration> = key("idle_timeout", secs(HOUR), secs(1), secs(24 * HOUR));
/// HTTP/2 stream window.
pub const STREAM_WINDOW: Key<Bytes> = key("stream_window", Bytes::kib(256), Bytes::kib(64), Bytes::mib(16));
/// Memory of the process over which new work is shed; `auto` and `none` are taken too.
pub const MEMORY: Key<Bytes> =
    Key { name: "memory", default: None, min: Bytes::mib(32), max: Bytes::mib(1 << 20), may_be_none: false };
/// What `auto` means for `memory`: so much of the cgroup's limit, in percent. The rest is for what the kernel keeps for
/// us (socket buffers) and for what comes in before the next look.
pub const MEMORY_PERCENT: u64 = 80;
/// What `auto` means for `memory` where there is no cgroup limit.
pub const MEMORY_WITHOUT_CGROUP: Bytes = Bytes::mib(2048);

/// For an answer of one DNS server (as resolv.conf(5)).
pub const DNS_TIMEOUT: Key<Duration> = key("timeout", secs(5), millis(10), secs(60));
/// Rounds over all DNS servers (as resolv.conf(5)).
pub const DNS_ATTEMPTS: Key<u64> = key("attempts", 2, 1, 10);
/// How long the start waits for the first answers (Envoy waits as long for the first of a control plane:
/// `initial_fetch_timeout`).
pub const DNS_START_TIMEOUT: Key<Duration> = key("start_timeout", secs(15), secs(0), secs(600));
/// Least time that an answer counts (Envoy's `dns_min_refresh_rate`). Short ones are for tests.
pub const MIN_TTL: Key<Duration> = key("min_ttl", secs(5), millis(50), secs(HOUR));
/// Most time that an answer counts, so that a record with a day's TTL does not pin endpoints for a day (Envoy's DNS
/// cache forgets unused hosts as fast: `host_ttl`).
pub const MAX_TTL: Key<Duration> = key("max_ttl", secs(300), millis(50), secs(24 * HOUR));
/// How long answers that there is nothing are doubted.
pub const EMPTY_AFTER: Key<Duration> = or_none("empty_after", Some(secs(60)), secs(0), secs(24 * HOUR));

/// Connect and handshake, each attempt.
pub const CONNECT_TIMEOUT: Key<Duration> = key("connect_timeout", secs(2), millis(10), secs(300));
/// Request to response head (as Istio and Linkerd: none).
pub const REQUEST_TIMEOUT: Key<Duration> = or_none("request_timeout", None, millis(1), secs(24 * HOUR));
/// No byte in either direction (as Envoy).
pub const STREAM_IDLE_TIMEOUT: Key<Duration> =
    or_none("stream_idle_timeout", Some(secs(300)), secs(1), secs(24 * HOUR));
/// An unused connection to an endpoint.
pub const POOL_IDLE_TIMEOUT: Key<Duration> = key("pool_idle_timeout", secs(60), millis(100), secs(24 * HOUR));
/// An unused connection to the own app (as Linkerd).
pub const APP_POOL_IDLE_TIMEOUT: Key<Duration> = Key { default: Some(secs(3)), ..POOL_IDLE_TIMEOUT };
/// Requests under way in a cluster (as Envoy).
pub const MAX_REQUESTS: Key<u64> = key("max_requests", 1024, 1, 1_000_000);
/// Connections of a cluster (as Envoy).
pub const MAX_CONNECTIONS: Key<u64> = key("max_connections", 1024, 1, 1_000_000);

/// Attempts beyond the first.
pub const MAX_RETRIES: Key<u64> = key("max_retries", 2, 0, 10);
/// Share of recent requests that may be retries (GEP-3388, Linkerd).
pub const BUDGET_PERCENT: Key<u64> = key("budget_percent", 20, 0, 100);
/// Retries per second that are always allowed (GEP-3388, Linkerd).
pub const BUDGET_MIN_PER_SECOND: Key<u64> = key("budget_min_per_second", 10, 0, 10_000);
/// Bytes of a body kept for a repetition (Linkerd).
pub const REPLAY_BYTES: Key<Bytes> = key("replay_bytes", Bytes::kib(64), Bytes(0), Bytes::mib(16));
/// First backoff (Envoy).
pub const BACKOFF_BASE: Key<Duration> = key("backoff_base", millis(25), millis(1), secs(10));

/// What a listener carries.
pub const PROTOCOL: Choice<Protocol> =
    Choice { name: "protocol", default: ("http", Protocol::Http), others: &[("tcp", Protocol::Tcp)] };
/// What the own app speaks.
pub const APP_PROTOCOL: Choice<AppProtocol> = Choice {
    name: "app_protocol",
    default: ("auto", AppProtocol::Auto),
    others: &[("http1", AppProtocol::Http1), ("http2", AppProtocol::Http2)],
};
/// What the other end of a mesh connection is: whether it is a standard peer.
pub const PEER: Choice<bool> =
    Choice { name: "peer", default: ("outrider", false), others: &[("standard", true)] };
/// How a cluster is reached.
pub const TLS: Choice<Tls> = Choice {
    name: "tls",
    default: ("mesh", Tls::Mesh),
    others: &[("public", Tls::Public), ("none", Tls::None)],
};
/// What sidecars speak with each other for HTTP.
pub const MESH_PROTOCOL: Choice<HttpVersion> = Choice {
    name: "mesh_protocol",
    default: ("http2", HttpVersion::Http2),
    others: &[("http1", HttpVersion::Http1)],
};
/// What a standard peer is spoken to with.
pub const PEER_PROTOCOL: Choice<HttpVersion> = Choice { name: "peer_protocol", ..MESH_PROTOCOL };
/// What an unencrypted service is spoken to with.
pub const PLAIN_PROTOCOL: Choice<AppProtocol> = Choice { name: "plain_protocol", ..APP_PROTOCOL };
/// What a service that is reached by public TLS is spoken to with.
pub const PUBLIC_PROTOCOL: Choice<AppProtocol> = Choice { name: "protocol", ..APP_PROTOCOL };
/// Whose signature makes a server's certificate believed.
pub const ROOTS: &str = "system";
/// Which DNS records give the endpoints; `None` stands for SRV.
pub const DNS_RECORD: Choice<Option<Family>> = Choice {
    name: "record",
    default: ("any", Some(Family::Any)),
    others: &[("a", Some(Family::V4)), ("aaaa", Some(Family::V6)), ("srv", None)],
};
/// How an endpoint is chosen.
pub const BALANCE: Choice<Balance> = Choice {
    name: "balance",
    default: ("peak_ewma", Balance::PeakEwma),
    others: &[("round_robin", Balance::RoundRobin)],
};

/// Every key of the file, section by section.
#[must_use]
pub fn rows() -> Vec<Row> {
    [top_rows(), limit_rows(), dns_rows(), listener_rows(), cluster_rows()].concat()
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
        APP_POOL_IDLE_TIMEOUT.row("inbound[]"),
        MAX_REQUESTS.row("inbound[]"),
        MAX_CONNECTIONS.row("inbound[]"),
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
        POOL_IDLE_TIMEOUT.row("clusters[]"),
        plain("clusters[]", "retry", "section", ""),
        MAX_REQUESTS.row("clusters[]"),
        MAX_CONNECTIONS.row("clusters[]"),
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

fn plain(section: &'static str, name: &'static str, kind: &str, default: &str) -> Row {
    Row { section, name, kind: kind.to_owned(), default: default.to_owned(), range: String::new() }
}

fn names<T>(named: &[(&'static str, T)]) -> String {
    named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl<T: Unit> Key<T> {
    fn row(&self, section: &'static str) -> Row {
        let or_none = if self.may_be_none { " or `none`" } else { "" };
        Row {
            section,
            name: self.name,
            kind: format!("{}{or_none}", T::WHAT),
            default: self.default.map_or_else(|| "none".to_owned(), T::show),
            range: format!("{}..={}", self.min.show(), self.max.show()),
        }
    }
}

impl<T: Copy> Choice<T> {
    /// All words, the default first.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, T)> {
        [&[self.default], self.others].concat()
    }

    fn row(&self, section: &'static str) -> Row {
        let words: Vec<String> = self.words().iter().map(|(word, _)| format!("`{word}`")).collect();
        let default = self.default.0.to_owned();
        Row { section, name: self.name, kind: words.join(" or "), default, range: String::new() }
    }
}
