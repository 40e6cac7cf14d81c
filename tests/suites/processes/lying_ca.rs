//! A server that proves to be the CA and then answers with certificates that it should not give.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use outrider_certs::{
    api::istio_v1_auth::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
    },
    join_token::ca_spiffe_id,
    rustls_verify::provider,
};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ServerConfig, version::TLS13};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::authority::{Authority, id};

/// What to answer with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lie {
    /// A certificate for somebody else.
    OtherId,
    /// The right name, signed by a root that nobody knows.
    ForeignRoot,
}

/// The running server; dropped, it is gone.
#[derive(Debug)]
pub(super) struct LyingCa {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    lie: Mutex<Lie>,
    told: AtomicU64,
    own: Authority,
    foreign: Authority,
}

impl LyingCa {
    /// Starts it in place of `own`'s server.
    pub(super) async fn start(listen: SocketAddr, own: &Authority, foreign: &Authority) -> Self {
        let listener = TcpListener::bind(listen).await.expect("the CA is gone");
        let acceptor = TlsAcceptor::from(Arc::new(server_config(own)));
        let shared = Arc::new(Shared {
            lie: Mutex::new(Lie::OtherId),
            told: AtomicU64::new(0),
            own: own.clone(),
            foreign: foreign.clone(),
        });
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { shared, accepting }
    }

    pub(super) fn tell(&self, lie: Lie) {
        *self.shared.lie.lock().unwrap_or_else(PoisonError::into_inner) = lie;
    }

    /// Lies told so far.
    pub(super) fn told(&self) -> u64 {
        self.shared.told.load(Ordering::SeqCst)
    }
}

impl Drop for LyingCa {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let connections = futures_util::stream::iter([Ok::<_, std::io::Error>(stream)]);
            let service = IstioCertificateServiceServer::from_arc(shared);
            let server = tonic::transport::Server::builder().add_service(service);
            drop(server.serve_with_incoming(connections).await);
        });
    }
}

/// TLS as the CA's own: a leaf of its root for its ID.
fn server_config(own: &Authority) -> ServerConfig {
    let key = KeyPair::generate().expect("a key");
    let domain = own.domain();
    let leaf = leaf(ca_spiffe_id(&domain).as_str()).signed_by(&key, &own.issuer()).expect("signed");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = time::OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - time::Duration::MINUTE, now + time::Duration::HOUR);
    params
}

#[tonic::async_trait]
impl IstioCertificateService for Shared {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.told.fetch_add(1, Ordering::SeqCst);
        let csr = request.into_inner().csr;
        let csr = CertificateSigningRequestParams::from_pem(&csr);
        let key = csr.map_err(|error| Status::invalid_argument(error.to_string()))?.public_key;
        let lie = *self.lie.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, issuer): (_, Issuer<'static, KeyPair>) = match lie {
            Lie::OtherId => (id("payroll"), self.own.issuer()),
            Lie::ForeignRoot => (id(super::mesh::CALLER), self.foreign.issuer()),
        };
        let signed = leaf(name.as_str()).signed_by(&key, &issuer);
        let leaf = signed.map_err(|error| Status::internal(error.to_string()))?.pem();
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, self.own.bundle()] }))
    }
}
