//! The file as it stands: its keys, all optional and all text, with no meaning.

use serde_saphyr::Spanned;

use crate::model::file::{RawEndpoint, section};

/// A list of texts.
pub(super) type Texts = Vec<Spanned<String>>;

section! {
    pub(super) struct File {
        service: String,
        trust_domain: String,
        workers: String,
        state_dir: String,
        identity: Identity,
        tls: Tls,
        admin: Admin,
        drain: Drain,
        limits: Limits,
        dns: Resolver,
        intercept: Intercept,
        inbound: Vec<Spanned<Inbound>>,
        outbound: Vec<Spanned<Outbound>>,
        clusters: Vec<Spanned<Cluster>>,
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
        probes: Texts,
        app_tls: String,
        connect_timeout: String,
        stream_idle_timeout: String,
        half_open_timeout: String,
        pool_idle_timeout: String,
        max_requests: String,
        max_connections: String,
        max_pending: String,
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
        max_connections: String,
        max_pending: String,
    }
}

section! {
    pub(super) struct Outbound {
        name: String,
        listen: String,
        protocol: String,
        cluster: String,
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
        connect_timeout: String,
        request_timeout: String,
        stream_idle_timeout: String,
        half_open_timeout: String,
        pool_idle_timeout: String,
        max_connection_age: String,
        retry: Retry,
        max_requests: String,
        max_connections: String,
        max_pending: String,
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
        budget_percent: String,
        budget_min_per_second: String,
        replay_bytes: String,
        backoff_base: String,
    }
}
