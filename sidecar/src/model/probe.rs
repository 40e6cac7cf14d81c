//! Probes of the own app, performed for somebody who cannot reach it: the kubelet, which has no certificate.

use std::{net::IpAddr, time::Duration};

use http::{HeaderName, HeaderValue};

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Under which it is asked for: `container/readiness`.
    pub name: String,
    /// What is done.
    pub action: ProbeAction,
    /// For the whole of it, connecting and redirects included.
    pub timeout: Duration,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// `GET`: a status of 200 to 399 is success.
    Http(HttpProbe),
    /// That it is accepted is success.
    Tcp {
        /// The app's port.
        port: u16,
        /// Where in the place of the address that was asked.
        host: Option<IpAddr>,
    },
    /// `grpc.health.v1.Health/Check`: `SERVING` is success.
    Grpc {
        /// The app's port.
        port: u16,
        /// The service; empty: the server as a whole.
        service: String,
    },
}

/// A probe by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// The app's port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// By TLS; the server's certificate is not looked at, as the kubelet does not.
    pub is_tls: bool,
    /// Where in the place of the address that was asked; a loopback address.
    pub host: Option<IpAddr>,
    /// Fields of the request; `host` among them says whom it is for.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ProbeAction {
    /// The word for it in configuration and dumps.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp { .. } => "tcp",
            Self::Grpc { .. } => "grpc",
        }
    }

    /// The app's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Http(http) => http.port,
            Self::Tcp { port, .. } | Self::Grpc { port, .. } => *port,
        }
    }
}
