//! Everything a configuration file says, after validation.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use outrider_certs::TrustDomain;

use super::{
    authorization::Authorization, cluster::ClusterSettings, controller::ControllerSettings,
    dns::ResolverSettings, federation::FederatedDomain, forwarded::ForwardedSettings,
    intercept::InterceptSettings, listener::Listener, probe::Probe, route_table::RouteTable,
    tcp_route::TcpRoutes, telemetry::TelemetrySettings,
};

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is fixed for the life of the process.
    pub bootstrap: Bootstrap,
    /// Where this sidecar stands, in the words of endpoints' zones.
    pub zone: Option<Arc<str>>,
    /// Whom clusters ask for names.
    pub resolver: Arc<ResolverSettings>,
    /// How we stop.
    pub drain: DrainSettings,
    /// What a connection may cost.
    pub limits: Arc<Limits>,
    /// What apps are told of who is asking.
    pub forwarded: ForwardedSettings,
    /// What is told of requests, and where to.
    pub telemetry: Arc<TelemetrySettings>,
    /// Which calls of peers may go to the own app; `None`: those of everybody who may connect.
    pub authorization: Option<Arc<Authorization>>,
    /// Other trust domains whose workloads may be peers, each once.
    pub federation: Arc<[FederatedDomain]>,
    /// Probes of the own app that are performed for others, each once.
    pub probes: Arc<[Probe]>,
    /// Addresses we accept on.
    pub listeners: Vec<Arc<Listener>>,
    /// Where requests can go, the `inbound/…` clusters of the own app included.
    pub clusters: Vec<Arc<ClusterSettings>>,
    /// Where opaque streams go.
    pub tcp_routes: Arc<TcpRoutes>,
    /// Where requests go by what they are.
    pub routes: Arc<RouteTable>,
}

/// What is fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The own service's name: a metric label.
    pub service: String,
    /// The trust domain we belong to.
    pub trust_domain: TrustDomain,
    /// Data-path threads.
    pub workers: NonZeroUsize,
    /// Whether there are as many of them as there were cores when the configuration was read (`auto`).
    pub has_auto_workers: bool,
    /// Where key and SVID are kept between restarts (0700).
    pub state_dir: PathBuf,
    /// Where our identity comes from.
    pub identity: IdentitySource,
    /// What TLS may use.
    pub tls: TlsSettings,
    /// Where operators look.
    pub admin: AdminSettings,
    /// Which connections the kernel brings to us; `None`: apps and peers address our listeners themselves.
    pub intercept: Option<InterceptSettings>,
    /// Where we ask for what the app uses and the file does not name; `None`: nowhere.
    pub controller: Option<Arc<ControllerSettings>>,
}

/// Where our identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// Our CA, or one that has its ID and its bundle endpoint as well as the Istio CA service.
    Ca {
        /// `host:port` of the CA.
        address: String,
        /// How we prove who we are, and know the CA.
        proof: CaProof,
        /// Lifetime to ask for.
        validity: Duration,
    },
    /// PEM files that something else keeps fresh; watched and swapped live.
    File {
        /// Leaf and intermediates.
        certificate: PathBuf,
        /// PKCS#8 private key.
        key: PathBuf,
        /// Roots of the own trust domain.
        bundle: PathBuf,
    },
}

/// How we prove to the CA who we are, and how it proves itself to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaProof {
    /// Once by a join token, which knows the CA's root; from then on by the certificate itself, which is kept.
    JoinToken {
        /// Where the token is; not needed while a kept SVID is valid.
        file: Option<PathBuf>,
    },
    /// By a service account's token, for every certificate anew; nothing is kept on disk.
    ServiceAccount {
        /// Where the token is; whoever put it there puts another one there before it runs out.
        token_file: PathBuf,
        /// The roots by which the CA is believed, in PEM; read for every connection to it.
        bundle_file: PathBuf,
    },
}

/// What TLS may use, by IANA names, most preferred first; never below TLS 1.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Cipher suites.
    pub cipher_suites: Vec<rustls::CipherSuite>,
    /// Key exchange groups.
    pub key_exchange: Vec<rustls::NamedGroup>,
}

/// Where operators look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Unix socket that also takes commands.
    pub socket: PathBuf,
    /// Read-only `/live /ready /metrics`; `None` switches it off.
    pub listen: Option<SocketAddr>,
}

/// How we stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long idle HTTP/1 connections of the own app are still served, so that none is closed under a request.
    pub idle_grace: Duration,
    /// After this everything left is closed.
    pub deadline: Duration,
}

/// What a connection may cost. Over a limit is refused, never queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections per listener, over all workers.
    pub max_connections: usize,
    /// Connections that one peer may have at a listener, over all workers.
    pub max_connections_per_peer: usize,
    /// TLS handshakes of peers under way, per worker; a quarter of them from one address.
    pub max_handshakes: usize,
    /// Bytes of a request's or response's header block.
    pub header_bytes: usize,
    /// Fields in a request's or response's header block.
    pub header_count: usize,
    /// Streams under way on one HTTP/2 connection.
    pub max_streams: u32,
    /// Streams per second of one HTTP/2 connection that may be reset before their answer.
    pub max_resets: u32,
    /// Time for a TLS handshake from a peer.
    pub handshake_timeout: Duration,
    /// Time for the head of an HTTP/1 request, from its first byte.
    pub header_read_timeout: Duration,
    /// Time that a downstream HTTP connection may be without a request.
    pub idle_timeout: Duration,
    /// After so long a peer's HTTP connection is ended in favour of a new one, give or take a tenth, when what is under way has
    /// ended; `None`: never.
    pub connection_age: Option<Duration>,
    /// Time that bytes sent on any connection may be unacknowledged, or untaken; `None`: as long as the kernel repeats them.
    pub tcp_user_timeout: Option<Duration>,
    /// HTTP/2 stream window; the connection window is that of `max_streams` streams.
    pub stream_window_bytes: u32,
    /// Memory of the process over which new work is shed.
    pub memory: MemoryBudget,
}

/// Memory of the process over which new work is shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBudget {
    /// A share of what the cgroup allows.
    Auto {
        /// Of the limit, 0 to 100.
        percent: u64,
        /// What holds where there is none, in bytes.
        without_limit: u64,
    },
    /// So many bytes.
    Bytes(u64),
    /// Nobody looks.
    None,
}
