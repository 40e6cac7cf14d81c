//! Every key's type, default and range: the one place that has them.
//!
//! Validation reads the constants; `docs/config.md` is compared with `config::rows` by a test, so neither can drift.
//! Where a default is another mesh's, its comment says whose.

use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};

use super::units::Bytes;
use crate::model::{
    cluster::{AppProtocol, Balance},
    dns::Family,
    intercept::{Mode, Unknown},
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
/// Bytes that nobody acknowledges, or takes (why there is none by default: `net/tcp.rs`).
pub const TCP_USER_TIMEOUT: Key<Duration> = or_none("tcp_user_timeout", None, secs(1), secs(HOUR));
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
/// An opaque stream of which one direction has ended, and the other does not move. Apps that forget to close their half would
/// fill the process up with half-closed connections else. As long as kube-proxy has the kernel keep such a connection
/// (`--conntrack-tcp-timeout-close-wait`) and Envoy keeps any silent one (`tcp_proxy.idle_timeout`): whoever ends its half
/// and waits longer for an answer has met that limit before.
pub const HALF_OPEN_TIMEOUT: Key<Duration> =
    or_none("half_open_timeout", Some(secs(HOUR)), secs(1), secs(24 * HOUR));
/// An unused connection to an endpoint.
pub const POOL_IDLE_TIMEOUT: Key<Duration> = key("pool_idle_timeout", secs(60), millis(100), secs(24 * HOUR));
/// An unused connection to the own app (as Linkerd).
pub const APP_POOL_IDLE_TIMEOUT: Key<Duration> = Key { default: Some(secs(3)), ..POOL_IDLE_TIMEOUT };
/// Age at which a connection takes nothing new (Envoy, gRPC: none): handshakes cost nothing then, certificates live a day.
pub const MAX_CONNECTION_AGE: Key<Duration> =
    or_none("max_connection_age", Some(secs(HOUR)), secs(1), secs(24 * HOUR));
/// Requests under way in a cluster (as Envoy).
pub const MAX_REQUESTS: Key<u64> = key("max_requests", 1024, 1, 1_000_000);
/// Connections of a cluster (as Envoy).
pub const MAX_CONNECTIONS: Key<u64> = key("max_connections", 1024, 1, 1_000_000);
/// Requests of a cluster that wait for a connection (as Envoy).
pub const MAX_PENDING: Key<u64> = key("max_pending", 1024, 1, 1_000_000);

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

/// What an explicit listener carries.
pub const PROTOCOL: Choice<Protocol> =
    Choice { name: "protocol", default: ("http", Protocol::Http), others: &[("tcp", Protocol::Tcp)] };
/// What intercepted connections carry.
pub const INTERCEPTED_PROTOCOL: Choice<Protocol> = Choice {
    name: "protocol",
    default: ("detect", Protocol::Detect),
    others: &[("http", Protocol::Http), ("tcp", Protocol::Tcp)],
};
/// How inbound connections are brought here.
pub const INTERCEPT_MODE: Choice<Mode> =
    Choice { name: "mode", default: ("redirect", Mode::Redirect), others: &[("tproxy", Mode::Tproxy)] };
/// How the kernel knows our own connections: whether by their mark.
pub const INTERCEPT_OWN: Choice<bool> =
    Choice { name: "own", default: ("uid", false), others: &[("mark", true)] };
/// The user that the sidecar runs as. Not root: whatever root does would be left alone.
pub const INTERCEPT_UID: Key<u64> = key("uid", 4343, 1, 4_294_967_294);
/// The mark of the sidecar's connections.
pub const INTERCEPT_MARK: Key<u64> = key("mark", 4343, 1, 4_294_967_295);
/// Where the kernel brings what the own app sends.
pub const OUTBOUND_PORT: Key<u64> = key("port", 4340, 1, 65_535);
/// Where the kernel brings what comes from others.
pub const INBOUND_PORT: Key<u64> = key("port", 4343, 1, 65_535);
/// What becomes of destinations that no cluster has (as Istio and Linkerd).
pub const UNKNOWN: Choice<Unknown> = Choice {
    name: "unknown",
    default: ("passthrough", Unknown::Passthrough),
    others: &[("deny", Unknown::Deny)],
};
/// Whether anybody may come in without TLS, for as long as `plaintext_until` says.
pub const PLAINTEXT: Choice<bool> =
    Choice { name: "plaintext", default: ("refuse", false), others: &[("permissive", true)] };
/// Whether TLS that is not the mesh's goes to the app.
pub const APP_TLS: Choice<bool> =
    Choice { name: "app_tls", default: ("terminate", false), others: &[("passthrough", true)] };
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
