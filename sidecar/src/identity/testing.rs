//! Test doubles: certificates of any kind, a network in memory, and a CA that can lie.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_certs::{
    api::istio_v1_auth::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
    },
    certificate::spki_sha256,
    client::{BUNDLE_PATH, BUNDLE_SEQUENCE_HEADER},
    join_token::{Credential, JoinToken, TokenId, ca_spiffe_id},
    pem,
    rustls_verify::{ClientAuth, SpiffeClientVerifier},
    spiffe_id::{SpiffeId, TrustDomain},
    svid::X509Svid,
    trust_bundle::{TrustBundle, TrustBundles},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::{
    CipherSuite, NamedGroup, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::DuplexStream,
    sync::{Mutex as AsyncMutex, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tower::Service as _;

use crate::{
    clock::Clock,
    model::settings::TlsSettings,
    net::{Listener, Net, Stream},
};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often the fake CA wants its bundle to be looked at.
pub(crate) const REFRESH_HINT: Duration = Duration::from_secs(3600);
pub(crate) const CA_ADDRESS: &str = "10.0.0.1:4350";
pub(crate) const ORDERS: &str = "spiffe://test.mesh/orders";

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("test.mesh").unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// Noon of some day, long after 1970.
pub(crate) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn tls_settings() -> TlsSettings {
    TlsSettings {
        cipher_suites: vec![CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384],
        key_exchange: vec![NamedGroup::X25519MLKEM768, NamedGroup::X25519],
    }
}

/// A root that signs whatever it is told to.
pub(crate) struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (epoch() - 365 * DAY).into();
        params.not_after = (epoch() + 3650 * DAY).into();
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn leaf(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.signed_by(key, &self.0).unwrap().der().clone()
    }

    pub(crate) fn svid(&self, id: &SpiffeId, not_before: SystemTime, not_after: SystemTime) -> X509Svid {
        let key = KeyPair::generate().unwrap();
        let leaf = self.leaf(id, &key, not_before, not_after);
        X509Svid::from_parts(vec![leaf], key_der(&key)).unwrap()
    }

    /// An SVID of one day, issued at [`epoch`].
    pub(crate) fn day_svid(&self, name: &str) -> X509Svid {
        self.svid(&id(name), epoch() - Duration::from_secs(300), epoch() + DAY)
    }
}

pub(crate) fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

pub(crate) fn bundle(roots: &[&Root], sequence: u64) -> TrustBundle {
    let roots = roots.iter().map(|root| root.der()).collect();
    TrustBundle::new(domain(), roots, sequence, Some(REFRESH_HINT)).unwrap()
}

/// A network in memory: with a paused clock, time passes only when nobody has anything to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryNet(Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<DuplexStream>>>>);

impl MemoryNet {
    /// Nobody listens at that address any more.
    pub(crate) fn close(&self, address: &str) {
        self.0.lock().unwrap().remove(&address.parse().unwrap());
    }
}

impl Net for MemoryNet {
    type Stream = DuplexStream;
    type Listener = MemoryListener;

    fn bind(&self, address: SocketAddr) -> io::Result<MemoryListener> {
        let (to, from) = mpsc::channel(64);
        self.0.lock().unwrap().insert(address, to);
        Ok(MemoryListener { address, from: AsyncMutex::new(from) })
    }

    async fn connect(
        &self,
        address: SocketAddr,
        _purpose: crate::net::Purpose,
        _timeout: Duration,
    ) -> io::Result<DuplexStream> {
        let door = self.0.lock().unwrap().get(&address).cloned();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        door.try_send(theirs).map_err(|_full_or_gone| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }
}

#[derive(Debug)]
pub(crate) struct MemoryListener {
    address: SocketAddr,
    from: AsyncMutex<mpsc::Receiver<DuplexStream>>,
}

impl Listener for MemoryListener {
    type Stream = DuplexStream;

    async fn accept(&self) -> io::Result<(DuplexStream, SocketAddr)> {
        let stream = self.from.lock().await.recv().await;
        Ok((stream.ok_or(io::ErrorKind::BrokenPipe)?, self.address))
    }

    fn accept_now(&self) -> io::Result<Option<(DuplexStream, SocketAddr)>> {
        let waiting = self.from.try_lock().ok().and_then(|mut from| from.try_recv().ok());
        Ok(waiting.map(|stream| (stream, self.address)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Stream for DuplexStream {
    fn reset_on_close(&self) {}
}

/// How the CA answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Honest,
    Refuse,
    Hang,
    WrongId,
    OtherKey,
    ForeignRoot,
    Expired,
    TenYears,
    Garbage,
}

/// A CA that does as it is told. Clones are the same CA.
#[derive(Clone)]
pub(crate) struct FakeCa {
    pub(crate) root: Arc<Root>,
    pub(crate) net: MemoryNet,
    clock: Clock,
    script: Arc<Mutex<Script>>,
}

pub(crate) struct Script {
    pub(crate) answer: Answer,
    pub(crate) bundle: TrustBundle,
    /// Who the CA says it is.
    pub(crate) own_id: SpiffeId,
    /// What the CA's own and all other certificates are signed with.
    pub(crate) own_root: Arc<Root>,
    /// Whom the CA lets in, if not those its bundle vouches for.
    pub(crate) admits: Option<TrustBundle>,
    pub(crate) tokens: HashMap<String, SpiffeId>,
    pub(crate) issued: u32,
    /// Bundle sequences that clients acknowledged.
    pub(crate) acknowledged: HashSet<u64>,
    next_token: u8,
}

impl FakeCa {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self::on(MemoryNet::default(), clock)
    }

    pub(crate) fn on(net: MemoryNet, clock: &Clock) -> Self {
        let root = Arc::new(Root::new("root 1"));
        let script = Script {
            answer: Answer::Honest,
            bundle: bundle(&[&root], 1),
            own_id: ca_spiffe_id(&domain()),
            own_root: Arc::clone(&root),
            admits: None,
            tokens: HashMap::new(),
            issued: 0,
            acknowledged: HashSet::new(),
            next_token: 1,
        };
        Self { root, net, clock: clock.clone(), script: Arc::new(Mutex::new(script)) }
    }

    pub(crate) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    /// A fresh join token for `name`, pinned to `root`.
    pub(crate) fn token(&self, name: &str, root: &Root) -> String {
        let number = self.script(|script| {
            script.next_token += 1;
            script.next_token
        });
        let pin = spki_sha256(&root.der()).unwrap();
        let mut token_id = [number; 16];
        token_id[..8].copy_from_slice(&pin[..8]);
        let credential = Credential::new(TokenId::from_bytes(token_id), [number; 32]);
        let token = JoinToken::new(credential, pin, id(name), epoch() + 3650 * DAY).unwrap();
        self.script(|script| script.tokens.insert(token.bearer().to_string(), id(name)));
        token.to_string()
    }

    /// Opens for business at [`CA_ADDRESS`], until [`MemoryNet::close`].
    pub(crate) fn open(&self) {
        let listener = self.net.bind(CA_ADDRESS.parse().unwrap()).unwrap();
        let ca = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(ca.clone().serve(stream));
            }
        });
    }

    async fn serve(self, stream: DuplexStream) {
        let Ok(tls) = TlsAcceptor::from(self.tls()).accept(stream).await else { return };
        let peer = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        let caller = peer.and_then(|chain| {
            let peer = outrider_certs::verify::peer_of_verified(&chain).ok()?;
            Some(peer.id().clone())
        });
        let service = service_fn(move |request| self.clone().answer(request, caller.clone()));
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(server.serve_connection(TokioIo::new(tls), service).await);
    }

    fn tls(&self) -> Arc<ServerConfig> {
        let (own_id, own_root, trusted) = self.script(|script| {
            let admits = script.admits.clone().unwrap_or_else(|| script.bundle.clone());
            (script.own_id.clone(), Arc::clone(&script.own_root), admits)
        });
        let key = KeyPair::generate().unwrap();
        let now = self.clock.wall();
        let leaf = own_root.leaf(&own_id, &key, now - DAY, now + DAY);
        let verifier =
            SpiffeClientVerifier::new(Arc::new(TrustBundles::single(trusted)), ClientAuth::Optional);
        let provider = outrider_certs::rustls_verify::provider();
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![leaf, own_root.der()], key_der(&key))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    async fn answer(
        self,
        request: http::Request<hyper::body::Incoming>,
        caller: Option<SpiffeId>,
    ) -> Result<http::Response<Body>, tonic::Status> {
        let sequence = request.headers().get(BUNDLE_SEQUENCE_HEADER).and_then(|value| value.to_str().ok());
        let sequence = sequence.and_then(|text| text.parse().ok()).unwrap_or(0);
        if request.uri().path() == BUNDLE_PATH {
            let text = self.script(|script| {
                script.acknowledged.insert(sequence);
                script.bundle.to_jwks()
            });
            return Ok(http::Response::new(Body::new(Full::from(text).map_err(|never| match never {}))));
        }
        let mut service = IstioCertificateServiceServer::new(Caller { ca: self, caller });
        service.call(request).await.map_err(|never| match never {})
    }

    fn issue(&self, request: &IstioCertificateRequest, id: &SpiffeId, answer: Answer) -> Vec<String> {
        let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        let validity = Duration::from_secs(u64::try_from(request.validity_duration).unwrap());
        let now = self.clock.wall();
        let (from, to) = (now - Duration::from_secs(300), now + validity);
        let root = self.script(|script| Arc::clone(&script.own_root));
        let other = KeyPair::generate().unwrap();
        let leaf = match answer {
            Answer::Honest | Answer::Refuse | Answer::Hang => root.leaf(id, &csr.public_key, from, to),
            Answer::WrongId => {
                let other_id = SpiffeId::new(&domain(), "/somebody/else").unwrap();
                root.leaf(&other_id, &csr.public_key, from, to)
            }
            Answer::OtherKey => root.leaf(id, &other, from, to),
            Answer::ForeignRoot => Root::new("root of evil").leaf(id, &csr.public_key, from, to),
            Answer::Expired => root.leaf(id, &csr.public_key, from - DAY, from),
            Answer::TenYears => root.leaf(id, &csr.public_key, from, now + 3650 * DAY),
            Answer::Garbage => {
                return vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()];
            }
        };
        self.script(|script| script.issued += 1);
        vec![pem::certificate(&leaf), pem::certificate(&root.der())]
    }
}

struct Caller {
    ca: FakeCa,
    caller: Option<SpiffeId>,
}

#[tonic::async_trait]
impl IstioCertificateService for Caller {
    async fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status> {
        let answer = self.ca.script(|script| script.answer);
        if answer == Answer::Hang {
            pending::<()>().await;
        }
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let id = match bearer.and_then(|text| text.strip_prefix("Bearer ")) {
            Some(bearer) => self.ca.script(|script| script.tokens.remove(bearer)),
            None => self.caller.clone(),
        };
        let id = id.filter(|_| answer != Answer::Refuse);
        let id = id.ok_or_else(|| tonic::Status::unauthenticated("the join token was used or is unknown"))?;
        let cert_chain = self.ca.issue(&request.into_inner(), &id, answer);
        Ok(tonic::Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// Waits up to `limit` (of whatever clock runs) for `claim` to become true, looking ten thousand times.
pub(crate) async fn eventually(limit: Duration, what: &str, mut claim: impl FnMut() -> bool) {
    let step = (limit / 10_000).max(Duration::from_millis(1));
    let waiting = async {
        while !claim() {
            tokio::time::sleep(step).await;
        }
    };
    assert!(tokio::time::timeout(limit, waiting).await.is_ok(), "not within {limit:?}: {what}");
}
