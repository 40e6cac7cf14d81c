//! Who we are, and whom we trust.

use std::{sync::Arc, time::SystemTime};

use outrider_certs::{svid::X509Svid, trust_bundle::TrustBundles};

/// Our SVID, the bundles we trust, and the TLS configurations made from them. Replaced whole on renewal.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Our certificate and key.
    pub svid: X509Svid,
    /// The roots we trust, per trust domain.
    pub bundles: Arc<TrustBundles>,
    /// Ready-made configurations.
    pub tls: TlsConfigs,
}

impl Identity {
    /// The share of our certificate's life that is over at `now`: 0.0..=1.0 while it is valid, above 1.0 after.
    #[must_use]
    pub fn age_ratio(&self, now: SystemTime) -> f64 {
        let start = self.svid.not_before();
        let life = self.svid.not_after().duration_since(start).unwrap_or_default().as_secs_f64();
        let age = now.duration_since(start).unwrap_or_default().as_secs_f64();
        if life > 0.0 { age / life } else { 1.0 }
    }
}

/// One rustls configuration per kind of connection. All: TLS 1.3 only, both sides authenticated, no resumption, no
/// SNI. They differ in ALPN.
#[derive(Clone, Debug)]
pub struct TlsConfigs {
    /// Inbound from sidecars: `outrider-h2/1`, `outrider-h1/1`, `outrider-tcp/1`.
    pub server_outrider: Arc<rustls::ServerConfig>,
    /// Inbound HTTP from standard peers: `h2`, `http/1.1`.
    pub server_standard_http: Arc<rustls::ServerConfig>,
    /// Inbound bytes from standard peers: no ALPN.
    pub server_standard_tcp: Arc<rustls::ServerConfig>,
    /// Outbound HTTP to sidecars: `outrider-h2/1`.
    pub client_outrider_h2: Arc<rustls::ClientConfig>,
    /// Outbound HTTP/1.1 to sidecars: `outrider-h1/1`.
    pub client_outrider_h1: Arc<rustls::ClientConfig>,
    /// Outbound bytes to sidecars: `outrider-tcp/1`.
    pub client_outrider_tcp: Arc<rustls::ClientConfig>,
    /// Outbound HTTP/2 to standard peers: `h2`.
    pub client_standard_h2: Arc<rustls::ClientConfig>,
    /// Outbound HTTP/1.1 to standard peers: `http/1.1`.
    pub client_standard_h1: Arc<rustls::ClientConfig>,
    /// Outbound bytes to standard peers: no ALPN.
    pub client_standard_tcp: Arc<rustls::ClientConfig>,
}
