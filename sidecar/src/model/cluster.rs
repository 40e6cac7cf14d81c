//! Clusters: named sets of endpoints with one balancing and resilience policy.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use outrider_certs::SpiffeId;

use super::{
    dns::DnsSettings,
    listener::Protocol,
    runtime::{ClusterRuntime, EndpointRuntime},
    settings::Limits,
    transport::{ExpectedIds, PublicTls, Transport},
};

/// The name of a cluster: unique in a configuration, 1 to 128 printable ASCII characters (checked by `config`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// Wraps a checked name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The cluster of destinations that no other has.
    #[must_use]
    pub fn passthrough() -> Self {
        Self::new("passthrough")
    }

    /// Whether it is the cluster of the own app behind an inbound listener, which `config` names `inbound/…`.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.0.starts_with("inbound/")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What configuration says of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// Its name.
    pub name: ClusterName,
    /// Hosts, or hosts with ports, in lower case, that route to it.
    pub authorities: Vec<String>,
    /// Addresses under which apps know it, beside those of its endpoints: a service's.
    pub addresses: Vec<ServiceAddress>,
    /// What intercepted connections to it carry.
    pub protocol: Protocol,
    /// Where its endpoints come from.
    pub source: EndpointSource,
    /// How its endpoints are reached.
    pub transport: Transport,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What may be repeated.
    pub retry: RetryPolicy,
    /// How much may be under way.
    pub caps: Caps,
}

impl ClusterSettings {
    /// Who must answer at endpoints that name no ID of their own, where the cluster's are `ids`.
    #[must_use]
    pub fn expected(&self, ids: &Arc<[SpiffeId]>) -> ExpectedIds {
        if self.transport.is_outside() { ExpectedIds::Outside } else { ExpectedIds::OneOf(Arc::clone(ids)) }
    }
}

/// An address that stands for a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAddress {
    /// The address.
    pub ip: IpAddr,
    /// The port; `None`: every one.
    pub port: Option<u16>,
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSource {
    /// The configuration itself.
    Static(Vec<EndpointSettings>),
    /// A file that is watched: YAML, `endpoints:` as in the configuration.
    File {
        /// That file.
        path: PathBuf,
        /// Who endpoints that name no SPIFFE ID of their own must be.
        default_spiffe_ids: Arc<[SpiffeId]>,
    },
    /// A name that is resolved.
    Dns(DnsSettings),
}

/// One address of a cluster, as discovery gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it is.
    pub address: SocketAddr,
    /// Who must answer there: one of these IDs. Never empty for a mesh transport (checked by `config`).
    pub spiffe_ids: Arc<[SpiffeId]>,
}

/// What an app, or a service outside the mesh, speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppProtocol {
    /// What the calling app spoke (peers tell, or ALPN does); what ALPN says, for `tls: public`.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The better of two random ones, by latency and load (the default).
    PeakEwma,
    /// One after the other.
    RoundRobin,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect and TLS handshake, each attempt.
    pub connect: Duration,
    /// From the request's arrival to the response's head; `None`: only `stream_idle` bounds it.
    pub request: Option<Duration>,
    /// No byte in either direction on a stream. Not for opaque streams: what they carry may be silent for days.
    pub stream_idle: Duration,
    /// An opaque stream of which one direction has ended is reset when the other has not moved for this; `None`: never.
    pub half_open: Option<Duration>,
    /// An unused pooled connection is closed after this.
    pub pool_idle: Duration,
    /// A connection takes nothing new after this, give or take a tenth, and closes when what is under way has ended.
    pub connection_age: Duration,
}

/// What may be repeated, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts beyond the first, 0..=10.
    pub max_retries: u32,
    /// Share of recent requests that may be retries, 0.0..=1.0.
    pub budget_ratio: f64,
    /// Retries per second that are always allowed.
    pub budget_min_per_second: u32,
    /// Bytes of a request body kept so that it can be sent again; past that it streams and cannot be retried.
    pub replay_bytes: usize,
    /// First backoff; it doubles, fully jittered, up to ten times this.
    pub backoff_base: Duration,
}

/// How much may be under way in a cluster; over a cap is answered at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Requests or streams in flight.
    pub max_requests: u32,
    /// Upstream connections, over all endpoints and workers.
    pub max_connections: u32,
    /// Requests or streams that wait for a connection, over all workers.
    pub max_pending: u32,
}

/// A cluster as the data side sees it: settings, endpoints and counters of one snapshot.
#[derive(Debug)]
pub struct Cluster {
    /// What configuration says.
    pub settings: Arc<ClusterSettings>,
    /// What its connections may cost.
    pub limits: Arc<Limits>,
    /// Its endpoints, in discovery's order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Counters, carried over from snapshot to snapshot by name.
    pub runtime: Arc<ClusterRuntime>,
    /// For `Transport::Public`; `None` until its files could be read.
    pub public: Option<Arc<PublicTls>>,
}

impl Cluster {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.settings.name
    }

    /// The cluster with one endpoint only: its policy and counters, for who has chosen already.
    #[must_use]
    pub fn only(&self, endpoint: Arc<Endpoint>) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
            limits: Arc::clone(&self.limits),
            endpoints: vec![endpoint],
            runtime: Arc::clone(&self.runtime),
            public: self.public.clone(),
        }
    }
}

/// One endpoint of one snapshot.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is and who it must be.
    pub settings: EndpointSettings,
    /// Counters, carried over by cluster, transport, address and SPIFFE IDs: a recycled address starts afresh, and so
    /// does whatever needs other connections than before.
    pub runtime: Arc<EndpointRuntime>,
    /// In whose name it is connected to, where it is the own app behind a transparent listener.
    pub client: Option<IpAddr>,
}

impl Endpoint {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.settings.address
    }
}
