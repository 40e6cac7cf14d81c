//! Every key's type, default and range: the one place that has them.
//!
//! Validation reads the constants; `docs/config.md` is compared with `config::rows` by a test, so neither can drift.
//! Where a default is another mesh's, its comment says whose.

pub mod authorization;
mod caps;
mod controller;
mod edits;
mod fault;
mod inbound;
mod probes;
pub mod routes;
pub mod streams;
pub mod telemetry;

use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};

use super::units::{Bytes, Decimal};
use crate::model::settings::TlsSettings;
use crate::model::{
    cluster::{AppProtocol, Balance},
    dns::Family,
    endpoint::MAX_WEIGHT,
    intercept::{Mode, Unknown},
    listener::Protocol,
    policy::Methods,
    rate_limit::By,
    transport::HttpVersion,
};
pub use caps::*; // keys like those here
pub use controller::*; // the same
pub use edits::*;
pub use fault::*;
pub use inbound::{APP_TLS, INBOUND_PROTOCOL, PLAINTEXT};
pub use probes::{PROBE_PATH, PROBE_SCHEME, PROBE_TIMEOUT};

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

/// The words of `clusters[].health_check.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckProtocol {
    /// `GET`.
    Http,
    /// `grpc.health.v1.Health/Check`.
    Grpc,
    /// A stream that is accepted.
    Tcp,
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

impl<T: Copy> Key<T> {
    /// The same key where another section's value holds if nothing is said.
    pub(super) fn or(&self, inherited: Option<T>) -> Self {
        Self { default: inherited, ..*self }
    }
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

/// What TLS may use where nothing is said of it.
#[must_use]
pub fn tls() -> TlsSettings {
    TlsSettings {
        cipher_suites: CIPHER_SUITES.iter().map(|(_, suite)| *suite).collect(),
        key_exchange: KEY_EXCHANGE.iter().map(|(_, group)| *group).collect(),
    }
}
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
/// Age at which a peer's connection is ended in favour of a new one (NGINX's `keepalive_time`; Envoy, gRPC: none): callers that
/// balance by connection find new endpoints by it, and once an hour costs nothing.
pub const DOWNSTREAM_AGE: Key<Duration> =
    or_none("max_connection_age", Some(secs(HOUR)), secs(1), secs(24 * HOUR));
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
/// How long the start waits for the first answers (as Envoy's `initial_fetch_timeout`).
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
/// For an endpoint that may be asked, where there is none (Linkerd: 3 s): longer than a restart's gap, shorter than what a
/// caller takes for a hang.
pub const QUEUE_TIMEOUT: Key<Duration> = or_none("queue_timeout", Some(secs(1)), secs(0), secs(60));
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
/// Requests that a rate limit lets through in its time.
pub const RATE_REQUESTS: Key<u64> = key("requests", 1, 1, 1_000_000);
/// The time that they are for. `RateLimit-Policy` knows whole seconds only.
pub const RATE_PER: Key<Duration> = key("per", secs(1), secs(1), secs(DAY));
/// Requests at once after a quiet time; `requests` if it says nothing (as Linkerd).
pub const RATE_BURST: Key<u64> = key("burst", 1, 1, 1_000_000);
/// Who shares a rate limit.
pub const RATE_BY: Choice<By> =
    Choice { name: "by", default: ("all", By::All), others: &[("caller", By::Caller)] };
/// Which answers tell about a rate limit: whether all of them.
pub const RATE_HEADERS: Choice<bool> =
    Choice { name: "headers", default: ("refused", false), others: &[("always", true)] };

/// What health checks ask by.
pub const CHECK_PROTOCOL: Choice<CheckProtocol> = Choice {
    name: "protocol",
    default: ("http", CheckProtocol::Http),
    others: &[("grpc", CheckProtocol::Grpc), ("tcp", CheckProtocol::Tcp)],
};
/// What HTTP health checks ask for.
pub const CHECK_PATH: &str = "/";
/// Whom health checks are for where no authority leads to the cluster.
pub const CHECK_HOST: &str = "health-check";
/// Between two health checks of one endpoint.
pub const CHECK_INTERVAL: Key<Duration> = key("interval", secs(5), millis(100), secs(HOUR));
/// For one health check (Kubernetes' probes: `timeoutSeconds`).
pub const CHECK_TIMEOUT: Key<Duration> = key("timeout", secs(1), millis(10), secs(60));
/// Failures in a row that make an endpoint unhealthy (HAProxy's `fall`, Kubernetes' `failureThreshold`).
pub const UNHEALTHY_THRESHOLD: Key<u64> = key("unhealthy_threshold", 3, 1, 100);
/// Successes in a row that make it healthy (HAProxy's `rise`).
pub const HEALTHY_THRESHOLD: Key<u64> = key("healthy_threshold", 2, 1, 100);

/// Attempts beyond the first.
pub const MAX_RETRIES: Key<u64> = key("max_retries", 2, 0, 10);
/// Time of one attempt (as Istio: none).
pub const PER_TRY_TIMEOUT: Key<Duration> = or_none("per_try_timeout", None, millis(1), secs(24 * HOUR));
/// Answers of the app that are repeated: those by which a server or gateway says that another may do better (Envoy's
/// `gateway-error`).
pub const STATUSES: &[u16] = &[502, 503, 504];
/// The same by gRPC status (as Istio's `unavailable`).
pub const GRPC_STATUSES: &[&str] = &["UNAVAILABLE"];
/// What is repeated if the app may have seen it.
pub const METHODS: Choice<Methods> = Choice {
    name: "methods",
    default: ("idempotent", Methods::Idempotent),
    others: &[("any", Methods::Any), ("none", Methods::None)],
};
/// Retries and hedges of a cluster that may be under way (as Istio has of requests: Envoy's own 3 refuse too many).
pub const MAX_ACTIVE: Key<u64> = key("max_active", 1024, 0, 1_000_000);
/// After which time a second attempt is made beside a slow one; `p95` is taken too.
pub const HEDGE: Key<Duration> = or_none("hedge", None, millis(1), secs(HOUR));
/// Share of recent requests that may be retries (GEP-3388, Linkerd).
pub const BUDGET_PERCENT: Key<u64> = key("budget_percent", 20, 0, 100);
/// Retries per second that are always allowed (GEP-3388, Linkerd).
pub const BUDGET_MIN_PER_SECOND: Key<u64> = key("budget_min_per_second", 10, 0, 10_000);
/// Bytes of a body kept for a repetition (Linkerd).
pub const REPLAY_BYTES: Key<Bytes> = key("replay_bytes", Bytes::kib(64), Bytes(0), Bytes::mib(16));
/// First backoff (Envoy).
pub const BACKOFF_BASE: Key<Duration> = key("backoff_base", millis(25), millis(1), secs(10));

/// Gateway failures in a row that eject (as Envoy).
pub const CONSECUTIVE_GATEWAY_FAILURES: Key<u64> = or_none("consecutive_gateway_failures", Some(5), 1, 1000);
/// Local failures in a row that eject (as Envoy).
pub const CONSECUTIVE_LOCAL_FAILURES: Key<u64> = or_none("consecutive_local_failures", Some(5), 1, 1000);
/// Deviations below the others' rate of success that eject (as Envoy, which says 1900 for it).
pub const SUCCESS_RATE_STDEV: Key<Decimal> =
    or_none("success_rate_stdev", Some(Decimal::tenths(19)), Decimal::tenths(1), Decimal::tenths(1000));
/// Share of failures that ejects (as Envoy, which has it off).
pub const FAILURE_PERCENT: Key<u64> = or_none("failure_percent", Some(85), 1, 100);
/// How many times the others' median latency ejects.
pub const SLOW_FACTOR: Key<Decimal> =
    or_none("slow_factor", Some(Decimal::tenths(50)), Decimal::tenths(15), Decimal::tenths(10_000));
/// Median latency that is never slow.
pub const SLOW_FLOOR: Key<Duration> = key("slow_floor", millis(100), millis(1), secs(60));
/// Requests in a window without which an endpoint is not judged by it (Envoy: 100 for the rate, 50 for the share).
pub const MIN_REQUESTS: Key<u64> = key("min_requests", 20, 5, 100_000);
/// Endpoints with as many, without which none is compared with the others (Envoy: 5).
pub const MIN_ENDPOINTS: Key<u64> = key("min_endpoints", 3, 2, 1000);
/// What shares and latencies are counted over (as Envoy's `interval`).
pub const WINDOW: Key<Duration> = key("window", secs(10), secs(1), secs(600));
/// The first rest (Envoy: 30 s, Linkerd 1 s; ours ends with a probe).
pub const EJECTION_TIME: Key<Duration> = key("ejection_time", secs(5), millis(100), secs(HOUR));
/// What the rest grows to (as Linkerd; Envoy: 300 s).
pub const MAX_EJECTION_TIME: Key<Duration> = key("max_ejection_time", secs(60), millis(100), secs(24 * HOUR));
/// Share of endpoints that may be out of use (Envoy: 10 %, or one; its panic begins at 50 %).
pub const MAX_EJECTED_PERCENT: Key<u64> = key("max_ejected_percent", 50, 0, 50);

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
/// An endpoint's share of requests beside the others'.
pub const WEIGHT: Key<u64> = key("weight", 1, 1, MAX_WEIGHT as u64);
/// How an endpoint is chosen.
pub const BALANCE: Choice<Balance> = Choice {
    name: "balance",
    default: ("peak_ewma", Balance::PeakEwma),
    others: &[
        ("least_request", Balance::LeastRequest),
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("maglev", Balance::Maglev),
    ],
};
/// With a smaller share of usable endpoints all are used (as Envoy).
pub const PANIC_PERCENT: Key<u64> = key("panic_percent", 50, 0, 100);
/// How long an endpoint that is new or back gets less than its share (as Envoy: none).
pub const SLOW_START: Key<Duration> = or_none("slow_start", None, secs(1), secs(HOUR));
/// Whether endpoints of the own zone come first.
pub const ZONES: Choice<bool> =
    Choice { name: "zones", default: ("prefer", true), others: &[("ignore", false)] };
/// How long a browser keeps the cookie of an affinity.
pub const COOKIE_TTL: Key<Duration> = or_none("ttl", None, secs(1), secs(365 * DAY));
/// How much of the average load an endpoint may have before keys pass it over (as HAProxy's `hash-balance-factor`).
pub const MAX_LOAD_PERCENT: Key<u64> = or_none("max_load_percent", None, 101, 10_000);
