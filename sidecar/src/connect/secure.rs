//! The handshake that a cluster's transport asks for, and what is told of one that failed.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    task::Context,
};

use outrider_certs::{SpiffeId, verify::Role};
use rustls::ClientConfig;
use tokio_rustls::client::TlsStream;

use super::{Error, dial::Speak};
use crate::{
    buffer::ReadAhead,
    model::{
        Cluster, Endpoint,
        handshake::TlsFailure,
        identity::{Identity, TlsConfigs},
        transport::{PeerKind, PublicTls},
    },
    net::Stream,
    tls::{
        connect as tls,
        trust::{Guard, Registry},
    },
};

/// What a handshake is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    /// The cluster, for its counters.
    pub(super) cluster: &'a Cluster,
    /// Who must answer.
    pub(super) endpoint: &'a Endpoint,
    /// What will be spoken.
    pub(super) speak: Speak,
}

/// TLS to an endpoint.
#[derive(Debug)]
pub(super) struct Secured<S> {
    /// Decrypted bytes.
    pub(super) stream: TlsStream<ReadAhead<S>>,
    /// Ends with the trust in a mesh peer. Outside the mesh there is none to withdraw: a connection lives as long as it
    /// is used.
    pub(super) trust: Option<Guard>,
    /// Whom a mesh peer proved to be.
    pub(super) peer: Option<SpiffeId>,
}

impl<S> Secured<S> {
    /// To be asked before each read and write: fails once the peer is no longer trusted.
    pub(super) fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.trust.as_ref().map_or(Ok(()), |trust| trust.check(cx))
    }
}

impl Way<'_> {
    /// Mutual TLS with a peer of the mesh.
    pub(super) async fn mesh<S: Stream>(
        self,
        stream: S,
        identity: &Identity,
        peer: PeerKind,
        registry: &Arc<Registry>,
    ) -> Result<Secured<S>, Error> {
        let config = Arc::clone(mesh_config(&identity.tls, peer, self.speak));
        let endpoint = self.endpoint;
        let ip: IpAddr = endpoint.address().ip();
        let (stream, facts) = tls::connect(ReadAhead::new(stream), config, ip, &endpoint.settings.spiffe_ids)
            .await
            .map_err(|error| self.failed(error))?;
        let peer = endpoint.settings.spiffe_ids.iter().find(|id| id.as_str() == &*facts.peer).cloned();
        self.cluster.runtime.tls_handshakes.fetch_add(1, Ordering::Relaxed);
        endpoint.runtime.set_tls(facts);
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let trust = Some(registry.hold(chain, Role::Server, &identity.bundles));
        Ok(Secured { stream, trust, peer })
    }

    /// TLS with a server outside the mesh.
    pub(super) async fn public<S: Stream>(self, stream: S) -> Result<Secured<S>, Error> {
        let public = self.cluster.public.as_deref().ok_or(Error::NoPublicTls)?;
        let config = Arc::clone(public_config(public, self.speak));
        let (stream, facts) = tls::connect_public(ReadAhead::new(stream), config, &public.server_name)
            .await
            .map_err(|error| self.failed(error))?;
        self.cluster.runtime.tls_handshakes.fetch_add(1, Ordering::Relaxed);
        self.endpoint.runtime.set_tls(facts);
        Ok(Secured { stream, trust: None, peer: None })
    }

    /// Counts it, keeps it for operators, and tells the log of the first of each kind and endpoint.
    fn failed(self, error: tls::Error) -> Error {
        let (cluster, endpoint, failure) = (self.cluster, self.endpoint, error.failure());
        if let Some(count) = cluster.runtime.tls_failures.get(failure as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if failure == TlsFailure::NoProtocol {
            // What it spoke before may be what it does not speak any more.
            endpoint.runtime.http_version.store(0, Ordering::Relaxed);
        }
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        if endpoint.runtime.tls_failed(failure, &text) {
            tracing::warn!(
                cluster = %cluster.name(), endpoint = %endpoint.address(), error = text,
                "no TLS with an endpoint; told once for each kind of failure, see outrider_tls_failures_total"
            );
        }
        Error::Tls(Arc::new(error))
    }
}

fn mesh_config(configs: &TlsConfigs, peer: PeerKind, speak: Speak) -> &Arc<ClientConfig> {
    match (peer, speak) {
        // Only public servers are asked what they like.
        (PeerKind::Outrider, Speak::Http2 | Speak::Either) => &configs.client_outrider_h2,
        (PeerKind::Outrider, Speak::Http1) => &configs.client_outrider_h1,
        (PeerKind::Outrider, Speak::Tcp | Speak::OwnTls) => &configs.client_outrider_tcp,
        (PeerKind::Standard, Speak::Http2 | Speak::Either) => &configs.client_standard_h2,
        (PeerKind::Standard, Speak::Http1) => &configs.client_standard_h1,
        (PeerKind::Standard, Speak::Tcp | Speak::OwnTls) => &configs.client_standard_tcp,
    }
}

fn public_config(public: &PublicTls, speak: Speak) -> &Arc<ClientConfig> {
    match speak {
        Speak::Either => &public.either,
        Speak::Http2 => &public.h2,
        Speak::Http1 => &public.h1,
        Speak::Tcp | Speak::OwnTls => &public.tcp,
    }
}
