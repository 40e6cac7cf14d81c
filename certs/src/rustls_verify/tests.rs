//! The verifiers in real handshakes, in memory.

use super::*;
use crate::testing::{TestCa, TestLeaf, hours, leaf_params, now};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, ClientConfig, ClientConnection, ServerConfig, ServerConnection, version};
use rustls_pki_types::ServerName;

const SERVER: &str = "spiffe://example.org/server";
const CLIENT: &str = "spiffe://example.org/client";

#[derive(Debug)]
struct Fixed(SystemTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0))
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    leaf: &TestLeaf,
    verifier: Arc<dyn ClientCertVerifier>,
    time: SystemTime,
) -> ServerConfig {
    ServerConfig::builder_with_details(provider(), Arc::new(Fixed(time)))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, leaf.key_der())
        .unwrap()
}

fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<&TestLeaf>,
    time: SystemTime,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Fixed(time)))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match own {
        Some(leaf) => builder.with_client_auth_cert(vec![leaf.der.clone()], leaf.key_der()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// What each side says at the end; the server's view of the client with it.
type Outcome = (Result<(), rustls::Error>, Result<Option<SpiffeId>, rustls::Error>);

fn handshake(client: ClientConfig, server: ServerConfig) -> Outcome {
    let name = ServerName::try_from("ignored.invalid").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut at_client, mut at_server) = (Ok(()), Ok(()));
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        at_server = at_server.and_then(|()| server.process_new_packets().map(drop));
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        at_client = at_client.and_then(|()| client.process_new_packets().map(drop));
    }
    let who = server.peer_certificates().map(|chain| verify::peer_of_verified(chain).unwrap().id().clone());
    (at_client, at_server.map(|()| who))
}

/// A mesh handshake in which one thing may be changed.
struct Mesh {
    ca: TestCa,
    server: TestLeaf,
    client: Option<TestLeaf>,
    auth: ClientAuth,
    time: SystemTime,
}

impl Mesh {
    fn new() -> Self {
        let ca = TestCa::new("example.org");
        let (server, client) = (ca.leaf(SERVER), Some(ca.leaf(CLIENT)));
        Self { ca, server, client, auth: ClientAuth::Required, time: now() }
    }

    fn run(&self) -> Outcome {
        let bundles = Arc::new(self.ca.bundles());
        let of_clients = Arc::new(SpiffeClientVerifier::new(Arc::clone(&bundles), self.auth));
        let of_servers = Arc::new(SpiffeServerVerifier::new(bundles));
        handshake(
            client_config(of_servers, self.client.as_ref(), self.time),
            server_config(vec![self.server.der.clone()], &self.server, of_clients, self.time),
        )
    }
}

fn alert(description: AlertDescription) -> rustls::Error {
    rustls::Error::AlertReceived(description)
}

#[test]
fn two_workloads_of_a_domain_shake_hands() {
    let (client, server) = Mesh::new().run();
    assert_eq!(client, Ok(()));
    assert_eq!(server.unwrap().unwrap().as_str(), CLIENT);
}

#[test]
fn a_client_without_a_certificate_passes_only_where_it_is_optional() {
    let mut mesh = Mesh { client: None, ..Mesh::new() };
    let (client, server) = mesh.run();
    assert_eq!(server, Err(rustls::Error::NoCertificatesPresented));
    assert_eq!(client, Err(alert(AlertDescription::CertificateRequired)));
    mesh.auth = ClientAuth::Optional;
    assert_eq!(mesh.run(), (Ok(()), Ok(None)));
}

#[test]
fn an_optional_certificate_must_still_be_valid() {
    let foreign = TestCa::new("example.org").leaf(CLIENT);
    let mesh = Mesh { client: Some(foreign), auth: ClientAuth::Optional, ..Mesh::new() };
    let (client, server) = mesh.run();
    assert_eq!(server, Err(CertificateError::UnknownIssuer.into()));
    assert_eq!(client, Err(alert(AlertDescription::UnknownCA)));
}

#[test]
fn the_time_of_the_config_decides_and_the_alert_tells() {
    let mesh = Mesh { time: now() + hours(2), ..Mesh::new() };
    let (client, server) = mesh.run();
    assert!(matches!(
        client,
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))
    ));
    assert_eq!(server, Err(alert(AlertDescription::CertificateExpired)));
    let mesh = Mesh { time: now() - hours(2), ..Mesh::new() };
    assert!(matches!(
        mesh.run().0,
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }))
    ));
}

#[test]
fn a_cause_without_a_kind_of_its_own_travels_inside() {
    let mut mesh = Mesh::new();
    let mut params = leaf_params(CLIENT);
    params.subject_alt_names.clear();
    mesh.client = Some(mesh.ca.sign(&params));
    let error = mesh.run().1.unwrap_err();
    assert!(matches!(cause(&error), Some(verify::Error::Leaf(_))), "{error:?}");
    assert_eq!(cause(&CertificateError::Expired.into()), None);
}

/// A first contact with the CA, whose server sends `chain`.
fn pinned(pin: [u8; 32], leaf: &TestLeaf, others: &[&TestCa]) -> Result<(), rustls::Error> {
    let mut chain = vec![leaf.der.clone()];
    chain.extend(others.iter().map(|ca| ca.der.clone()));
    let expected = SpiffeId::parse(SERVER).unwrap();
    let verifier = Arc::new(PinnedRootVerifier::new(pin, expected));
    let no_auth = WebPkiClientVerifier::no_client_auth();
    handshake(client_config(verifier, None, now()), server_config(chain, leaf, no_auth, now())).0
}

#[test]
fn a_pinned_root_makes_the_first_contact() {
    let ca = TestCa::new("example.org");
    let pin = spki_sha256(&ca.der).unwrap();
    let unknown = Err(CertificateError::UnknownIssuer.into());
    assert_eq!(pinned(pin, &ca.leaf(SERVER), &[&ca]), Ok(()));
    // The root is not sent along; another root is; the pin is another's.
    assert_eq!(pinned(pin, &ca.leaf(SERVER), &[]), unknown);
    let other = TestCa::new("example.org");
    assert_eq!(pinned(pin, &other.leaf(SERVER), &[&other]), unknown);
    assert_eq!(pinned([0; 32], &ca.leaf(SERVER), &[&ca]), unknown);
    // The true root is sent along, but has not signed the leaf.
    assert_eq!(pinned(pin, &other.leaf(SERVER), &[&ca, &other]), unknown);
}

#[test]
fn a_pinned_root_vouches_for_the_expected_server_alone() {
    let ca = TestCa::new("example.org");
    let pin = spki_sha256(&ca.der).unwrap();
    let error = pinned(pin, &ca.leaf(CLIENT), &[&ca]).unwrap_err();
    assert!(format!("{error:?}").contains("UnexpectedId"), "{error:?}");
    let error = pinned(pin, &ca.leaf("spiffe://other.example/server"), &[&ca]).unwrap_err();
    assert!(matches!(cause(&error), Some(verify::Error::UnknownTrustDomain { .. })), "{error:?}");
}

#[test]
fn a_pinned_key_in_a_certificate_it_did_not_sign_is_not_trusted() {
    let ca = TestCa::new("example.org");
    let other = TestCa::new("example.org");
    // Somebody else's signature over the pinned key.
    let params = crate::testing::ca_params("example.org", "root");
    let forged = params.signed_by(ca.issuer.key(), &other.issuer).unwrap().der().clone();
    let pin = spki_sha256(&forged).unwrap();
    let forged = TestCa { der: forged, ..TestCa::new("example.org") };
    assert_eq!(pinned(pin, &ca.leaf(SERVER), &[&forged]), Err(CertificateError::UnknownIssuer.into()));
}
