//! The file as it stands: its keys, all optional and all text, with no meaning.

mod authorization;
mod edits;
mod probes;
mod routes;
mod tcp_routes;
mod telemetry;
mod workload;

use serde_saphyr::Spanned;

use crate::model::file::{RawEndpoint, section};

pub(super) use authorization::{Authorization, Rule as AuthorizationRule};
pub(super) use edits::{FieldEdits, Forwarded, Redirect, Rewrite};
pub(super) use probes::{GrpcProbe, HttpProbe, Probe, TcpProbe};
pub(super) use routes::{
    HttpRoute, InboundRoute, Match, Mirror, NameAndValue, Route, Rule, RuleCluster, Sticky, WeightedCluster,
};
pub(super) use tcp_routes::TcpRoute;
pub(super) use telemetry::{AccessLog, Attribute, ExportHeader, Metrics, Telemetry, Traces};
pub(super) use workload::Workload;

/// A list of texts.
pub(super) type Texts = Vec<Spanned<String>>;

section! {
    pub(super) struct File {
        service: String,
        trust_domain: String,
        zone: String,
        workers: String,
        state_dir: String,
        identity: Identity,
        tls: Tls,
        admin: Admin,
        drain: Drain,
        limits: Limits,
        dns: Resolver,
        intercept: Intercept,
        controller: Controller,
        forwarded: Forwarded,
        telemetry: Telemetry,
        authorization: Authorization,
        federation: Vec<Spanned<Federated>>,
        probes: Vec<Spanned<Probe>>,
        inbound: Vec<Spanned<Inbound>>,
        outbound: Vec<Spanned<Outbound>>,
        clusters: Vec<Spanned<Cluster>>,
        tcp_routes: Vec<Spanned<TcpRoute>>,
        routes: Vec<Spanned<HttpRoute>>,
    }
}

section! {
    pub(super) struct Identity {
        ca: Ca,
        file: IdentityFile,
    }
}

section! {
    pub(super) struct Ca {
        address: String,
        join_token_file: String,
        service_account_token_file: String,
        bundle_file: String,
        validity: String,
    }
}

section! {
    pub(super) struct IdentityFile {
        certificate: String,
        key: String,
        bundle: String,
    }
}

section! {
    pub(super) struct Controller {
        address: String,
        spiffe_id: String,
        wait: String,
        idle: String,
        max_wanted: String,
        max_waiting: String,
    }
}

section! {
    pub(super) struct Federated {
        trust_domain: String,
        endpoint: String,
        profile: String,
        endpoint_spiffe_id: String,
        bundle_file: String,
        roots: String,
    }
}

section! {
    pub(super) struct Tls {
        cipher_suites: Texts,
        key_exchange: Texts,
    }
}

section! {
    pub(super) struct Admin {
        socket: String,
        listen: String,
    }
}

section! {
    pub(super) struct Drain {
        idle_grace: String,
        deadline: String,
    }
}

section! {
    pub(super) struct Limits {
        max_connections: String,
        max_connections_per_peer: String,
        max_handshakes: String,
        header_bytes: String,
        header_count: String,
        max_streams: String,
        max_resets: String,
        handshake_timeout: String,
        header_read_timeout: String,
        idle_timeout: String,
        max_connection_age: String,
        tcp_user_timeout: String,
        stream_window: String,
        memory: String,
    }
}

section! {
    pub(super) struct Resolver {
        servers: Texts,
        timeout: String,
        attempts: String,
        start_timeout: String,
    }
}

section! {
    pub(super) struct Intercept {
        mode: String,
        own: String,
        uid: String,
        mark: String,
        outbound: InterceptOutbound,
        inbound: InterceptInbound,
    }
}

section! {
    pub(super) struct InterceptOutbound {
        port: String,
        unknown: String,
        except_ports: Texts,
        except_cidrs: Texts,
        except_uids: Texts,
    }
}

section! {
    pub(super) struct InterceptInbound {
        port: String,
        except_ports: Texts,
        except_cidrs: Texts,
        ports: Vec<Spanned<Port>>,
        other_ports: Port,
    }
}

section! {
    pub(super) struct Port {
        port: String,
        protocol: String,
        app_protocol: String,
        peer: String,
        allow: Texts,
        plaintext: String,
        plaintext_until: String,
        plaintext_from: Texts,
        probes: Texts,
        app_tls: String,
        trusted_hops: String,
        connect_timeout: String,
        stream_idle_timeout: String,
        half_open_timeout: String,
        pool_idle_timeout: String,
        max_requests: String,
        max_peer_percent: String,
        max_connections: String,
        max_pending: String,
        rate_limits: Vec<Spanned<InboundRateLimit>>,
        proxy_protocol: ProxyProtocol,
        app_proxy_protocol: String,
        routes: Vec<Spanned<InboundRoute>>,
    }
}

section! {
    pub(super) struct ProxyProtocol {
        from: Texts,
        required: String,
    }
}

section! {
    pub(super) struct Inbound {
        name: String,
        listen: String,
        app: String,
        protocol: String,
        app_protocol: String,
        peer: String,
        allow: Texts,
        connect_timeout: String,
        stream_idle_timeout: String,
        half_open_timeout: String,
        pool_idle_timeout: String,
        max_requests: String,
        max_peer_percent: String,
        max_connections: String,
        max_pending: String,
        rate_limits: Vec<Spanned<InboundRateLimit>>,
        proxy_protocol: ProxyProtocol,
        app_proxy_protocol: String,
        routes: Vec<Spanned<InboundRoute>>,
    }
}

section! {
    pub(super) struct Outbound {
        name: String,
        listen: String,
        protocol: String,
        cluster: String,
        proxy_protocol: ProxyProtocol,
    }
}

section! {
    pub(super) struct Cluster {
        name: String,
        authorities: Texts,
        addresses: Texts,
        protocol: String,
        endpoints: Vec<Spanned<RawEndpoint>>,
        endpoints_file: String,
        dns: Dns,
        spiffe_ids: Texts,
        tls: String,
        peer: String,
        mesh_protocol: String,
        peer_protocol: String,
        plain_protocol: String,
        public: Public,
        balance: String,
        health_check: HealthCheck,
        affinity: Affinity,
        panic_percent: String,
        slow_start: String,
        zones: String,
        connect_timeout: String,
        queue_timeout: String,
        request_timeout: String,
        stream_idle_timeout: String,
        half_open_timeout: String,
        pool_idle_timeout: String,
        max_connection_age: String,
        retry: Retry,
        outlier_detection: Outlier,
        max_requests: String,
        max_connections: String,
        max_pending: String,
        rate_limits: Vec<Spanned<RateLimit>>,
        fault: Fault,
        routes: Vec<Spanned<Route>>,
    }
}

section! {
    pub(super) struct HealthCheck {
        protocol: String,
        path: String,
        host: String,
        service: String,
        interval: String,
        timeout: String,
        unhealthy_threshold: String,
        healthy_threshold: String,
    }
}

section! {
    pub(super) struct Affinity {
        by: String,
        name: String,
        ttl: String,
        max_load_percent: String,
    }
}

section! {
    pub(super) struct Public {
        server_name: String,
        roots: String,
        certificate: String,
        key: String,
        protocol: String,
    }
}

section! {
    pub(super) struct Dns {
        name: String,
        record: String,
        port: String,
        min_ttl: String,
        max_ttl: String,
        empty_after: String,
    }
}

section! {
    pub(super) struct Retry {
        max_retries: String,
        per_try_timeout: String,
        statuses: Texts,
        grpc_statuses: Texts,
        methods: String,
        budget_percent: String,
        budget_min_per_second: String,
        max_active: String,
        replay_bytes: String,
        backoff_base: String,
        hedge: String,
    }
}

section! {
    pub(super) struct Outlier {
        consecutive_gateway_failures: String,
        consecutive_local_failures: String,
        success_rate_stdev: String,
        failure_percent: String,
        slow_factor: String,
        slow_floor: String,
        min_requests: String,
        min_endpoints: String,
        window: String,
        ejection_time: String,
        max_ejection_time: String,
        max_ejected_percent: String,
    }
}

section! {
    pub(super) struct RateLimit {
        name: String,
        requests: String,
        per: String,
        burst: String,
        headers: String,
    }
}

section! {
    pub(super) struct Fault {
        delay: String,
        delay_percent: String,
        abort: String,
        abort_grpc: String,
        abort_percent: String,
        header: String,
        value: String,
    }
}

section! {
    pub(super) struct InboundRateLimit {
        name: String,
        requests: String,
        per: String,
        burst: String,
        by: String,
        headers: String,
    }
}
