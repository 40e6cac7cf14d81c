//! Asks a CA as a sidecar does, with whatever proof.

use std::{net::SocketAddr, sync::Arc};

use outrider_certs::{
    TrustBundle, TrustBundles, X509Svid,
    client::{self, IssuedChain, SvidRequest},
    request::KeyPairAndCsr,
    rustls_verify::{SpiffeServerVerifier, provider},
};
use rustls::{ClientConfig, version::TLS13};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::domain;

async fn connect(
    ca: SocketAddr,
    roots: &TrustBundle,
    svid: Option<&X509Svid>,
) -> Result<TlsStream<TcpStream>, client::Error> {
    let verifier = SpiffeServerVerifier::new(Arc::new(TrustBundles::single(roots.clone())));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        Some(svid) => builder.with_client_auth_cert(svid.chain().to_vec(), svid.key().clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let failed = |error: std::io::Error| client::Error::Transport(error.into());
    let stream = TcpStream::connect(ca).await.map_err(failed)?;
    let name = ServerName::try_from("ignored.invalid").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)
}

/// What a CA gives for a proof: a token, or the certificate of the connection.
pub(super) async fn ask(
    ca: SocketAddr,
    roots: &TrustBundle,
    svid: Option<&X509Svid>,
    bearer: Option<&str>,
) -> Result<(X509Svid, IssuedChain), client::Error> {
    let pair = KeyPairAndCsr::generate_unnamed().unwrap();
    let request = SvidRequest { csr_pem: pair.csr_pem(), validity: None, bearer, bundle_sequence: 0 };
    let issued = client::request_svid(connect(ca, roots, svid).await?, request).await?;
    Ok((X509Svid::from_parts(issued.chain.clone(), pair.key().clone_key()).unwrap(), issued))
}

/// The bundle that a CA publishes.
pub(super) async fn bundle(ca: SocketAddr, roots: &TrustBundle) -> Result<TrustBundle, client::Error> {
    client::fetch_bundle(connect(ca, roots, None).await?, domain(), 0).await
}

/// The status with which a CA refuses, and why.
pub(super) async fn refusal(
    ca: SocketAddr,
    roots: &TrustBundle,
    svid: Option<&X509Svid>,
    bearer: Option<&str>,
) -> (tonic::Code, String) {
    match ask(ca, roots, svid, bearer).await {
        Err(client::Error::Rejected { code, message }) => (code, message),
        other => panic!("not refused: {other:?}"),
    }
}
