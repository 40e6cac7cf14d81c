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
        Balance, Balancing, Caps, Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings,
        EndpointSource, Timeouts,
    },
    dns::ResolverSettings,
    forwarded::ForwardedSettings,
    generation::Generation,
    intercept::{InboundRules, InterceptSettings, Mode, OutboundRules, Own},
    listener::Protocol,
    outlier::OutlierSettings,
    policy::{Policy, RetryBudget, RetryPolicy},
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
        controller: None,
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
        connection_age: Some(Duration::from_secs(3600)),
        tcp_user_timeout: None,
        stream_window_bytes: 256 << 10,
        memory: MemoryBudget::None,
    }
}

/// A configuration with these clusters and no listeners.
pub(crate) fn config(clusters: &[Arc<ClusterSettings>]) -> Settings {
    Settings {
        bootstrap: bootstrap(),
        zone: None,
        resolver: Arc::new(resolver()),
        drain: DrainSettings { idle_grace: Duration::from_secs(5), deadline: Duration::from_secs(30) },
        limits: Arc::new(limits()),
        forwarded: ForwardedSettings::default(),
        telemetry: Arc::default(),
        authorization: None,
        federation: Arc::default(),
        probes: Arc::default(),
        listeners: Vec::new(),
        clusters: clusters.to_vec(),
        tcp_routes: Arc::default(),
        routes: Arc::default(),
    }
}

/// The snapshot before the first, of a configuration that names nothing.
pub(crate) fn snapshot() -> Snapshot {
    Snapshot::empty(Arc::new(Generation::first(Arc::new(config(&[])))))
}

/// The system's name servers, with the documented patience.
pub(crate) fn resolver() -> ResolverSettings {
    ResolverSettings {
        servers: Vec::new(),
        timeout: Duration::from_secs(5),
        attempts: 2,
        start_timeout: Duration::from_secs(15),
        mark: None,
    }
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
        balancing: Balancing { affinity: None, panic_percent: 50, slow_start: None, prefers_zone: true },
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            queue: Duration::from_secs(1),
            stream_idle: Duration::from_secs(300),
            half_open: Some(Duration::from_secs(3600)),
            pool_idle: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
        },
        policy: Arc::new(Policy {
            request_timeout: None,
            retry: RetryPolicy {
                max_retries: 2,
                statuses: [502, 503, 504].into_iter().collect(),
                grpc_statuses: [14].into_iter().collect(),
                replay_bytes: 64 << 10,
                backoff_base: Duration::from_millis(25),
                ..RetryPolicy::NONE
            },
            ..Policy::bare()
        }),
        routes: Vec::new(),
        retry_budget: RetryBudget { ratio: 0.2, min_per_second: 10, max_active: 1024 },
        outlier: Some(outlier()),
        caps: Caps { max_requests: 1024, max_per_peer: 1024, max_connections: 1024, max_pending: 1024 },
        health_check: None,
    }
}

/// Outlier detection as documented.
pub(crate) fn outlier() -> OutlierSettings {
    OutlierSettings {
        consecutive_gateway_failures: Some(5),
        consecutive_local_failures: Some(5),
        success_rate_stdev: Some(1.9),
        failure_percent: Some(85),
        slow_factor: Some(5.0),
        slow_floor: Duration::from_millis(100),
        min_requests: 20,
        min_endpoints: 3,
        window: Duration::from_secs(10),
        ejection_time: Duration::from_secs(5),
        max_ejection_time: Duration::from_secs(60),
        max_ejected_percent: 50,
    }
}

/// A cluster of `endpoints` endpoints at 10.0.0.0:1, 10.0.0.1:1 and so on, all new at `now`.
pub(crate) fn cluster(settings: ClusterSettings, endpoints: u8, now: Instant) -> Cluster {
    let endpoint = |index| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, index), 1));
        Arc::new(Endpoint {
            settings: EndpointSettings::new(address, Arc::from([])),
            runtime: Arc::new(EndpointRuntime::new(now)),
            client: None,
        })
    };
    let endpoints = (0..endpoints).map(endpoint).collect();
    Cluster::new(Arc::new(settings), Arc::new(limits()), endpoints, Arc::new(ClusterRuntime::new(now)))
}
