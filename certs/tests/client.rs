//! The client against servers that are not Outrider's CA.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests may read clocks, spawn and panic")]

use outrider_certs::api::istio_v1_auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use outrider_certs::api::istio_v1_auth::{IstioCertificateRequest, IstioCertificateResponse};
use outrider_certs::ca::{CaState, NewCa};
use outrider_certs::client::{Error, IssuedChain, SvidRequest, fetch_bundle, request_svid};
use outrider_certs::request::KeyPairAndCsr;
use outrider_certs::{SpiffeId, TrustDomain, pem};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tonic::{Code, Request, Response, Status};

/// Answers every request the same way.
struct Fake(Result<Vec<String>, Status>);

#[tonic::async_trait]
impl IstioCertificateService for Fake {
    async fn create_certificate(
        &self,
        _request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.0.clone().map(|cert_chain| Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// A connection to a gRPC server that has no bundle endpoint.
fn fake(answer: Result<Vec<String>, Status>) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    let connections = futures_util::stream::iter([Ok::<_, std::io::Error>(far)]);
    let service = IstioCertificateServiceServer::new(Fake(answer));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(connections));
    near
}

async fn ask(io: DuplexStream) -> Result<IssuedChain, Error> {
    let request = SvidRequest { csr_pem: "csr", validity: None, bearer: Some("token"), bundle_sequence: 0 };
    request_svid(io, request).await
}

/// Leaf and root of a real CA, in PEM.
fn chain() -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    let new = NewCa {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        root_lifetime: Duration::from_secs(3600),
    };
    let now = SystemTime::now();
    let ca = Arc::new(CaState::init(&folder.path().join("ca"), &new, now).unwrap());
    let id = SpiffeId::parse("spiffe://example.org/a").unwrap();
    let pair = KeyPairAndCsr::generate(&id).unwrap();
    let issued = ca.issue_by_hand(&id, pair.csr_pem(), Duration::from_secs(60), now).unwrap();
    [pem::certificate(issued.chain.first().unwrap()), pem::certificate(ca.root())]
}

#[tokio::test]
async fn a_ca_without_bundle_endpoint_still_gives_certificates() {
    let [leaf, root] = chain();
    let issued = ask(fake(Ok(vec![leaf.clone(), root.clone()]))).await.unwrap();
    assert_eq!(pem::certificate(issued.chain.first().unwrap()), leaf);
    assert_eq!(issued.chain.len(), 1);
    assert_eq!(pem::certificate(&issued.root.unwrap()), root);
    assert_eq!(issued.bundle, None);
    let whole_in_one = ask(fake(Ok(vec![leaf.clone() + &root]))).await.unwrap();
    assert_eq!(whole_in_one.chain, issued.chain);
    let rootless = ask(fake(Ok(vec![leaf]))).await.unwrap();
    assert_eq!((rootless.chain, rootless.root), (issued.chain, None));
}

#[tokio::test]
async fn refusals_tell_whether_to_try_again() {
    for (code, is_retryable) in [
        (Code::Unauthenticated, false),
        (Code::PermissionDenied, false),
        (Code::InvalidArgument, false),
        (Code::FailedPrecondition, false),
        (Code::Unavailable, true),
        (Code::ResourceExhausted, true),
        (Code::Internal, true),
    ] {
        let error = ask(fake(Err(Status::new(code, "because")))).await.unwrap_err();
        assert_eq!(error.is_retryable(), is_retryable, "{code:?}");
        assert!(
            matches!(&error, Error::Rejected { code: c, message } if *c == code && message == "because"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn answers_that_are_no_chain_are_told_as_such() {
    let [leaf, root] = chain();
    for answer in [
        vec![],
        vec!["garbage".to_owned()],
        vec![root],
        vec![leaf.clone(); 9],
        vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()],
        vec!["x".repeat(100_000)],
    ] {
        let error = ask(fake(Ok(answer))).await.unwrap_err();
        assert!(
            matches!(error, Error::BadAnswer(_) | Error::Rejected { code: Code::OutOfRange, .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_bundle_endpoint_is_a_refusal() {
    let domain = TrustDomain::parse("example.org").unwrap();
    let error = fetch_bundle(fake(Ok(vec![])), domain, 0).await.unwrap_err();
    assert!(
        matches!(&error, Error::Rejected { code: Code::Unimplemented, .. } | Error::BadAnswer(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_is_a_transport_error() {
    let (near, far) = duplex(1024);
    drop(far);
    let error = ask(near).await.unwrap_err();
    assert!(matches!(error, Error::Transport(_)) && error.is_retryable(), "{error:?}");
    let (near, mut far) = duplex(1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = ask(near).await.unwrap_err();
    assert!(matches!(error, Error::Transport(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_silent_costs_a_bounded_time() {
    let (near, _far) = duplex(1024);
    let started = tokio::time::Instant::now();
    let error = ask(near).await.unwrap_err();
    assert!(matches!(error, Error::Deadline), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
}
