//! Clusters: named sets of endpoints with one balancing and resilience policy.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use outrider_certs::SpiffeId;

pub use super::{
    balance::{Balance, Balancing},
    endpoint::{Endpoint, EndpointSettings},
};
use super::{
    dns::DnsSettings,
    edge_cells::EdgeCells,
    health_check::HealthCheck,
    lineup::LineupCell,
    listener::Protocol,
    maglev::Maglev,
    outlier::OutlierSettings,
    policy::{Policy, RetryBudget, Route},
    rate_limit::RateLimiters,
    runtime::ClusterRuntime,
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

    /// The cluster that requests of rules count for which send their callers elsewhere. It has no endpoints.
    #[must_use]
    pub fn redirect() -> Self {
        Self::new("outrider/redirect")
    }

    /// The name as text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
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
    /// Who may be chosen.
    pub balancing: Balancing,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What holds for a request that no route says otherwise of.
    pub policy: Arc<Policy>,
    /// What holds for requests of a certain kind.
    pub routes: Vec<Route>,
    /// How much may be repeated of all that it carries.
    pub retry_budget: RetryBudget,
    /// When an endpoint is ejected; `None`: never, for there is one only, or nobody knows which.
    pub outlier: Option<OutlierSettings>,
    /// How much may be under way.
    pub caps: Caps,
    /// How its endpoints are checked; `None`: they are not.
    pub health_check: Option<HealthCheck>,
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
    /// The controller, in that revision of what it says of the service.
    Controller(u64),
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

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect and TLS handshake, each attempt.
    pub connect: Duration,
    /// For an endpoint that may be asked, where there is none; zero: not at all.
    pub queue: Duration,
    /// No byte in either direction on a stream. Not for opaque streams: what they carry may be silent for days.
    pub stream_idle: Duration,
    /// An opaque stream of which one direction has ended is reset when the other has not moved for this; `None`: never.
    pub half_open: Option<Duration>,
    /// An unused pooled connection is closed after this.
    pub pool_idle: Duration,
    /// A connection takes nothing new after this, give or take a tenth, and closes when what is under way has ended.
    pub connection_age: Duration,
}

/// How much may be under way in a cluster; over a cap is answered at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Requests or streams in flight.
    pub max_requests: u32,
    /// Of them, those of one caller at a listener of ours. Not for clusters that the own app calls.
    pub max_per_peer: u32,
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
    /// Where this sidecar stands, in the words of endpoints' zones.
    pub zone: Option<Arc<str>>,
    /// Its endpoints, in discovery's order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Counters, carried over from snapshot to snapshot by name.
    pub runtime: Arc<ClusterRuntime>,
    /// For `Transport::Public`; `None` until its files could be read.
    pub public: Option<Arc<PublicTls>>,
    /// Its one endpoint was chosen already: it gets what comes, whatever its standing.
    pub is_chosen: bool,
    /// Who of the endpoints share its requests for now. Read and renewed by `balance`.
    pub lineup: LineupCell,
    /// Which endpoint a key leads to; only with [`Balance::Maglev`], and with endpoints to choose from.
    pub maglev: Option<Maglev>,
    /// What was used of its rate limits, carried over from snapshot to snapshot where the settings stayed.
    pub limiters: Arc<RateLimiters>,
    /// Whose requests these are, as counted.
    pub edges: EdgeCells,
}

impl Cluster {
    /// A cluster of this sidecar, which stands nobody knows where, without the files of `tls: public` and without rate
    /// limits.
    #[must_use]
    pub fn new(
        settings: Arc<ClusterSettings>,
        limits: Arc<Limits>,
        endpoints: Vec<Arc<Endpoint>>,
        runtime: Arc<ClusterRuntime>,
    ) -> Self {
        let needs_table = settings.balance == Balance::Maglev && endpoints.len() > 1;
        let maglev = needs_table.then(|| Maglev::new(&endpoints));
        let edges = EdgeCells::new(settings.routes.len());
        Self {
            settings,
            limits,
            zone: None,
            endpoints,
            runtime,
            public: None,
            limiters: Arc::default(),
            is_chosen: false,
            lineup: LineupCell::default(),
            maglev,
            edges,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.settings.name
    }

    /// The cluster with one endpoint only: its policy and counters, for who has chosen already.
    #[must_use]
    pub fn only(&self, endpoint: Arc<Endpoint>) -> Self {
        let (settings, limits) = (Arc::clone(&self.settings), Arc::clone(&self.limits));
        let runtime = Arc::clone(&self.runtime);
        Self {
            zone: self.zone.clone(),
            public: self.public.clone(),
            is_chosen: true,
            limiters: Arc::clone(&self.limiters),
            edges: self.edges.clone(),
            ..Self::new(settings, limits, vec![endpoint], runtime)
        }
    }
}
