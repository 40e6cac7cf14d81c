//! Transports: how the endpoints of a cluster are reached.
//!
//! A cluster has one, and nothing leads from one to another: what cannot be reached its way is not reached.

use std::{path::PathBuf, sync::Arc};

use outrider_certs::SpiffeId;

use super::cluster::AppProtocol;

/// How endpoints are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Mutual TLS with SPIFFE identities; and what HTTP is spoken in.
    Mesh(PeerKind, HttpVersion),
    /// TLS to a service outside the mesh, whose name its certificate must prove.
    Public(Arc<PublicSettings>),
    /// No encryption, to a service outside the mesh; `Auto` is what the calling app speaks.
    Plain(AppProtocol),
    /// Plain bytes to the own app; only `inbound/…` clusters have it.
    App,
}

impl Transport {
    /// Whether a sidecar of ours is at the other end: control headers are sent and honoured, streams are framed.
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        matches!(self, Self::Mesh(PeerKind::Outrider, _))
    }

    /// Whether it leads to services outside the mesh, which learn nothing of it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        match self {
            Self::Public(_) | Self::Plain(_) => true,
            Self::Mesh(..) | Self::App => false,
        }
    }

    /// Whether the other end proves who it is by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Mesh(..) | Self::Public(_) => true,
            Self::Plain(_) | Self::App => false,
        }
    }

    /// The word for it in configuration, metrics and dumps.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Mesh(..) => "mesh",
            Self::Public(_) => "public",
            Self::Plain(_) => "none",
            Self::App => "app",
        }
    }
}

/// What the other end of a mesh connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Another Outrider sidecar: ALPN `outrider-…`, control headers are honoured.
    Outrider,
    /// Anything with a SPIFFE certificate: ALPN `h2`, `http/1.1` or none.
    Standard,
}

/// What HTTP is spoken in on a mesh connection. Opaque streams have no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// ALPN `outrider-h2/1` or `h2`.
    Http2,
    /// ALPN `outrider-h1/1` or `http/1.1`. To sidecars, requests that came as HTTP/2 go as HTTP/2 nevertheless.
    Http1,
}

/// TLS to services outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicSettings {
    /// A DNS name in lower case, or an IP address: what the server's certificate must be for. Names go out as SNI.
    pub server_name: Arc<str>,
    /// Who may vouch for it.
    pub roots: Roots,
    /// What we show, if the server asks.
    pub client: Option<ClientCertificate>,
    /// What is spoken for HTTP; `Auto` is agreed on by ALPN.
    pub protocol: AppProtocol,
}

/// Whose signature makes a server's certificate believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Whom the operating system trusts.
    System,
    /// The certificates of a PEM file.
    File(PathBuf),
}

/// A certificate shown to services outside the mesh. Ours of the mesh never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Leaf and intermediates, PEM.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8 in PEM.
    pub key: PathBuf,
}

/// Ready-made configurations for TLS to one service outside the mesh. All: TLS 1.3 only, no resumption. They differ in
/// ALPN.
#[derive(Clone, Debug)]
pub struct PublicTls {
    /// What the server's certificate must be for.
    pub server_name: rustls::pki_types::ServerName<'static>,
    /// `h2` or `http/1.1`, as the server likes.
    pub either: Arc<rustls::ClientConfig>,
    /// `h2`.
    pub h2: Arc<rustls::ClientConfig>,
    /// `http/1.1`.
    pub h1: Arc<rustls::ClientConfig>,
    /// Bytes: no ALPN.
    pub tcp: Arc<rustls::ClientConfig>,
}

/// Who must answer at those endpoints of a cluster that name no ID of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedIds {
    /// One of these. If there are none, every endpoint must name its own.
    OneOf(Arc<[SpiffeId]>),
    /// Nobody with a SPIFFE ID: the transport knows none, and naming one is a mistake.
    Outside,
}
