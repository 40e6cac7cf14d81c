//! Valid settings and clusters for unit tests of the decision modules.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use outrider_certs::TrustDomain;
use rustls::{CipherSuite, NamedGroup};

use super::{
    cluster::{
        Balance, Caps, Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings, EndpointSource,
        RetryPolicy, Timeouts,
    },
    generation::Generation,
    intercept::{InboundRules, InterceptSettings, Mode, OutboundRules, Own},
    listener::Protocol,
    runtime::{ClusterRuntime, EndpointRuntime},
    settings::{
        AdminSettings, Bootstrap, DrainSettings, IdentitySource, Limits, MemoryBudget, Settings, TlsSettings,
    },
    snapshot::Snapshot,
    transport::{HttpVersion, PeerKind, Transport},
};

/// What is fixed for the life of a process, with the documented defaults.
pub(crate) fn bootstrap() -> Bootstrap {
    Bootstrap {
        service: "orders".to_owned(),
        trust_domain: TrustDomain::parse("test.mesh").unwrap(),
        workers: NonZeroUsize::MIN,
        has_auto_workers: false,
        state_dir: "/none".into(),
        identity: IdentitySource::File {
            certificate: "/none".into(),
            key: "/none".into(),
            bundle: "/none".into(),
        },
        tls: TlsSettings {
            cipher_suites: vec![CipherSuite::TLS13_AES_128_GCM_SHA256],
            key_exchange: vec![NamedGroup::X25519MLKEM768],
        },
        admin: AdminSettings { socket: "/none".into(), listen: None },
        intercept: None,
    }
}

/// Interception with an exception of every kind.
pub(crate) fn intercept(mode: Mode, own: Own) -> InterceptSettings {
    InterceptSettings {
        mode,
        own,
        outbound: OutboundRules {
            port: 4340,
            except_ports: vec![3306, 25],
            except_cidrs: vec!["10.8.0.0/16".parse().unwrap(), "fd08::/16".parse().unwrap()],
            except_uids: vec![7],
        },
        inbound: InboundRules {
            port: 4343,
            except_ports: vec![9090],
            except_cidrs: vec!["fd09::/16".parse().unwrap()],
        },
    }
}

/// What a connection may cost, as documented.
pub(crate) fn limits() -> Limits {
    Limits {
        max_connections: 10_000,
        max_connections_per_peer: 5_000,
        max_handshakes: 512,
        header_bytes: 64 << 10,
        header_count: 100,
        max_streams: 256,
        max_resets: 500,
        handshake_timeout: Duration::from_secs(10),
        header_read_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(3600),
        tcp_user_timeout: None,
        stream_window_bytes: 256 << 10,
        memory: MemoryBudget::None,
    }
}

/// A configuration with these clusters and no listeners.
pub(crate) fn config(clusters: &[Arc<ClusterSettings>]) -> Settings {
    Settings {
        bootstrap: bootstrap(),
        drain: DrainSettings { idle_grace: Duration::from_secs(5), deadline: Duration::from_secs(30) },
        limits: Arc::new(limits()),
        listeners: Vec::new(),
        clusters: clusters.to_vec(),
    }
}

/// The snapshot before the first, of a configuration that names nothing.
pub(crate) fn snapshot() -> Snapshot {
    Snapshot::empty(Arc::new(Generation::first(Arc::new(config(&[])))))
}

/// Settings of a mesh cluster with the documented defaults.
pub(crate) fn settings(name: &str) -> ClusterSettings {
    ClusterSettings {
        name: ClusterName::new(name),
        authorities: vec![name.to_owned()],
        addresses: Vec::new(),
        protocol: Protocol::Detect,
        source: EndpointSource::Static(Vec::new()),
        transport: Transport::Mesh(PeerKind::Outrider, HttpVersion::Http2),
        balance: Balance::PeakEwma,
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            request: None,
            stream_idle: Duration::from_secs(300),
            half_open: Some(Duration::from_secs(3600)),
            pool_idle: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
        },
        retry: RetryPolicy {
            max_retries: 2,
            budget_ratio: 0.2,
            budget_min_per_second: 10,
            replay_bytes: 64 << 10,
            backoff_base: Duration::from_millis(25),
        },
        caps: Caps { max_requests: 1024, max_connections: 1024, max_pending: 1024 },
    }
}

/// A cluster of `endpoints` endpoints at 10.0.0.0:1, 10.0.0.1:1 and so on, all new at `now`.
pub(crate) fn cluster(settings: ClusterSettings, endpoints: u8, now: Instant) -> Cluster {
    let endpoint = |index| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, index), 1));
        Arc::new(Endpoint {
            settings: EndpointSettings { address, spiffe_ids: Arc::from([]) },
            runtime: Arc::new(EndpointRuntime::new(now)),
            client: None,
        })
    };
    Cluster {
        settings: Arc::new(settings),
        limits: Arc::new(limits()),
        endpoints: (0..endpoints).map(endpoint).collect(),
        runtime: Arc::new(ClusterRuntime::new(now)),
        public: None,
    }
}
