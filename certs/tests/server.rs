//! The CA's server inside this process, under a clock of our own.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests may read clocks, spawn and panic")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::*;
use outrider_certs::ca::{self, CaState, Limits, NewCa, Options, Rate, Validity};
use outrider_certs::client::{self, SvidRequest};
use outrider_certs::clock::WallClock;
use outrider_certs::join_token::{JoinToken, ca_spiffe_id};
use outrider_certs::request::KeyPairAndCsr;
use outrider_certs::svid::X509Svid;
use outrider_certs::trust_bundle::TrustBundle;
use outrider_certs::verify::peer_of_verified;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

#[derive(Debug)]
struct TestClock(Mutex<SystemTime>);

impl WallClock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// A running CA.
struct Ca {
    folder: tempfile::TempDir,
    address: SocketAddr,
    metrics: SocketAddr,
    clock: Arc<TestClock>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ca::ServeError>>,
}

impl Ca {
    async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(Mutex::new(SystemTime::UNIX_EPOCH + hours(500_000))));
        let new = NewCa { trust_domain: domain(), root_lifetime: hours(10_000) };
        let state = CaState::init(&folder.path().join("ca"), &new, clock.now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metrics_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, metrics) = (listener.local_addr().unwrap(), metrics_listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let validity = Validity { default: hours(24), min: Duration::from_secs(60), max: hours(48) };
        let names = vec!["localhost".parse().unwrap()];
        let metrics_listener = Some(metrics_listener);
        let options = Options { validity, limits, names, metrics_listener, ..Options::default() };
        let wall: Arc<dyn WallClock> = Arc::<TestClock>::clone(&clock);
        let task = tokio::spawn(ca::serve(listener, state, options, wall, shutdown.clone()));
        Self { folder, address, metrics, clock, shutdown, task }
    }

    fn state(&self) -> CaState {
        CaState::open(&self.folder.path().join("ca")).unwrap()
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn advance(&self, by: Duration) {
        *self.clock.0.lock().unwrap() += by;
    }

    fn token(&self) -> JoinToken {
        self.state().new_token(&id(ID), hours(1), self.now()).unwrap()
    }

    async fn join(&self) -> (X509Svid, TrustBundle) {
        join(self.address, &self.token(), self.now()).await.unwrap()
    }

    fn caller<'a>(&self, svid: Option<&'a X509Svid>) -> Caller<'a> {
        Caller::with_bundle(self.address, self.state().bundle(), svid, self.now())
    }

    /// The value of a metric, 0 if it is not there.
    async fn metric(&self, name: &str) -> u64 {
        let text = http_get(self.metrics, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    async fn until(&self, name: &str, value: u64) {
        eventually(name, async || (self.metric(name).await == value).then_some(())).await;
    }
}

#[tokio::test]
async fn a_token_leads_to_an_svid_and_that_to_the_next() {
    let ca = Ca::start(Limits::default()).await;
    let (svid, bundle) = ca.join().await;
    assert_eq!(svid.id().as_str(), ID);
    assert_eq!(svid.not_after(), ca.now() + hours(24));
    assert_eq!(&bundle, ca.state().bundle());
    ca.advance(hours(14));
    let renewed = renew(ca.address, &svid, &bundle, svid.id(), ca.now()).await.unwrap();
    assert_eq!(renewed.id(), svid.id());
    assert_eq!(renewed.not_after(), ca.now() + hours(24));
    let other = renew(ca.address, &svid, &bundle, &id("spiffe://example.org/admin"), ca.now()).await;
    assert_eq!(refusal(other).0, Code::PermissionDenied);
    assert_eq!(ca.metric("outrider_ca_issued_total{proof=\"join_token\"}").await, 1);
    assert_eq!(ca.metric("outrider_ca_issued_total{proof=\"svid\"}").await, 1);
    assert_eq!(ca.metric("outrider_ca_refused_total{reason=\"csr_name\"}").await, 1);
}

#[tokio::test]
async fn lifetimes_beyond_the_bounds_are_shortened_or_raised() {
    let ca = Ca::start(Limits::default()).await;
    for (wanted, given) in
        [(hours(2), hours(2)), (hours(9999), hours(48)), (Duration::from_millis(1), hours(1) / 60)]
    {
        let (token, pair) = (ca.token(), KeyPairAndCsr::generate(&id(ID)).unwrap());
        let bearer = token.bearer();
        let request = SvidRequest { bearer: Some(&bearer), validity: Some(wanted), ..wish(pair.csr_pem()) };
        let issued = ca.caller(None).request(request).await.unwrap();
        assert_eq!(issued.not_after().unwrap(), ca.now() + given);
        assert_eq!(issued.root.as_ref(), Some(ca.state().root()));
    }
}

#[tokio::test]
async fn an_expired_token_is_refused_by_name() {
    let ca = Ca::start(Limits::default()).await;
    let token = ca.token();
    ca.advance(hours(2));
    let (code, message) = refusal(join(ca.address, &token, ca.now()).await);
    assert_eq!((code, message.as_str()), (Code::Unauthenticated, "the join token expired 1h ago"));
}

#[tokio::test]
async fn an_expired_svid_is_told_so_by_an_alert() {
    let ca = Ca::start(Limits::default()).await;
    let (svid, bundle) = ca.join().await;
    ca.advance(hours(25));
    let error = renew(ca.address, &svid, &bundle, svid.id(), ca.now()).await.unwrap_err();
    assert!(matches!(error, client::Error::Transport(_)) && error.is_retryable());
    assert!(format!("{error:?}").contains("CertificateExpired"), "{error:?}");
    // A new token gets the workload out of it.
    ca.join().await;
}

#[tokio::test]
async fn an_svid_that_expires_on_an_open_connection_proves_nothing_more() {
    let ca = Ca::start(Limits::default()).await;
    let (svid, _) = ca.join().await;
    let stream = ca.caller(Some(&svid)).connect().await.unwrap();
    ca.until("outrider_ca_handshakes_total", 2).await;
    ca.advance(hours(25));
    let pair = KeyPairAndCsr::generate(svid.id()).unwrap();
    let (code, message) = refusal(client::request_svid(stream, wish(pair.csr_pem())).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("has expired"), "{message}");
}

#[tokio::test]
async fn without_proof_there_is_nothing() {
    let ca = Ca::start(Limits::default()).await;
    let pair = KeyPairAndCsr::generate(&id(ID)).unwrap();
    let (code, message) = refusal(ca.caller(None).request(wish(pair.csr_pem())).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("neither a join token"), "{message}");
    for bearer in ["", "garbage", "orc1.00000000000000000000000000000000.AAAA", &"x".repeat(4000)] {
        let request = SvidRequest { bearer: Some(bearer), ..wish(pair.csr_pem()) };
        assert_eq!(refusal(ca.caller(None).request(request).await).0, Code::Unauthenticated, "{bearer}");
    }
    // A token that another CA has made.
    let other = Ca::start(Limits::default()).await;
    let bearer = other.token().bearer();
    let request = SvidRequest { bearer: Some(&bearer), ..wish(pair.csr_pem()) };
    let (code, message) = refusal(ca.caller(None).request(request).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("not known to this CA"), "{message}");
}

#[tokio::test]
async fn a_workload_of_another_domain_gets_no_connection() {
    let ca = Ca::start(Limits::default()).await;
    let other = Ca::start(Limits::default()).await;
    let (stranger, _) = other.join().await;
    let error = ca.caller(Some(&stranger)).bundle(0).await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownCA"), "{error:?}");
    ca.until("outrider_ca_handshakes_failed_total", 1).await;
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused() {
    let ca = Ca::start(Limits::default()).await;
    let (svid, _) = ca.join().await;
    let caller = ca.caller(Some(&svid));
    let (code, message) = refusal(caller.request(wish(&"A".repeat(17 * 1024))).await);
    assert_eq!((code, message.contains("larger than 16384 bytes")), (Code::InvalidArgument, true));
    let (code, _) = refusal(caller.request(wish(&"A".repeat(1 << 20))).await);
    assert_eq!(code, Code::OutOfRange);
    let (code, _) = refusal(caller.request(wish("garbage")).await);
    assert_eq!(code, Code::InvalidArgument);
}

#[tokio::test]
async fn acknowledgements_are_counted() {
    let ca = Ca::start(Limits::default()).await;
    let (current, behind) =
        ("outrider_ca_bundle_holders{state=\"current\"}", "outrider_ca_bundle_holders{state=\"behind\"}");
    let (svid, bundle) = ca.join().await;
    assert_eq!((ca.metric(current).await, ca.metric(behind).await), (0, 1));
    assert_eq!(ca.caller(Some(&svid)).bundle(bundle.sequence()).await.unwrap(), bundle);
    assert_eq!((ca.metric(current).await, ca.metric(behind).await), (1, 0));
    // Who does not say who he is acknowledges nothing.
    ca.caller(None).bundle(0).await.unwrap();
    assert_eq!((ca.metric(current).await, ca.metric(behind).await), (1, 0));
    // A renewal is the same holder with a new leaf.
    renew(ca.address, &svid, &bundle, svid.id(), ca.now()).await.unwrap();
    assert_eq!((ca.metric(current).await, ca.metric(behind).await), (1, 0));
    ca.advance(hours(30));
    assert_eq!((ca.metric(current).await, ca.metric(behind).await), (0, 0));
}

#[tokio::test]
async fn a_caller_over_its_rate_is_refused_and_may_come_back() {
    let per_caller = Rate { per_second: 1, burst: 3 };
    let ca = Ca::start(Limits { per_caller, ..Limits::default() }).await;
    ca.caller(None).bundle(0).await.unwrap();
    let error = eventually("it is over its rate", async || ca.caller(None).bundle(0).await.err()).await;
    assert!(error.is_retryable());
    assert_eq!(refusal::<()>(Err(error)).0, Code::ResourceExhausted);
    // Certificates count against the same rate.
    let over = async || join(ca.address, &ca.token(), ca.now()).await.err();
    let error = eventually("it is over its rate", over).await;
    assert_eq!(refusal::<()>(Err(error)).0, Code::ResourceExhausted);
    eventually("the rate allows one again", async || ca.caller(None).bundle(0).await.ok()).await;
}

#[tokio::test]
async fn strangers_that_use_up_their_total_do_not_keep_a_workload_from_renewing() {
    let per_caller = Rate { per_second: 1000, burst: 1000 };
    let total = Rate { per_second: 1, burst: 3 };
    let ca = Ca::start(Limits { per_caller, total, ..Limits::default() }).await;
    let (svid, bundle) = ca.join().await;
    let error = eventually("they are over their total", async || ca.caller(None).bundle(0).await.err()).await;
    assert_eq!(refusal::<()>(Err(error)).0, Code::ResourceExhausted);
    renew(ca.address, &svid, &bundle, svid.id(), ca.now()).await.unwrap();
    ca.caller(Some(&svid)).bundle(0).await.unwrap();
}

#[tokio::test]
async fn the_own_certificate_renews_itself() {
    let ca = Ca::start(Limits::default()).await;
    let leaf_of = async |ca: &Ca| {
        let stream = ca.caller(None).connect().await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(&chain[1], ca.state().root());
        peer_of_verified(chain).unwrap()
    };
    let first = leaf_of(&ca).await;
    assert_eq!(*first.id(), ca_spiffe_id(&domain()));
    ca.advance(hours(14));
    assert_eq!(leaf_of(&ca).await, first);
    ca.advance(hours(1));
    assert_eq!(leaf_of(&ca).await.not_after(), ca.now() + hours(24));
    // After a long sleep the first handshake already gets a valid one.
    ca.advance(hours(1000));
    assert_eq!(leaf_of(&ca).await.not_after(), ca.now() + hours(24));
}

#[tokio::test]
async fn readiness_tells_that_the_root_has_run_out() {
    let ca = Ca::start(Limits::default()).await;
    assert!(http_get(ca.metrics, "/live").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(ca.metrics, "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(ca.metrics, "/bundle").await.starts_with("HTTP/1.1 404"));
    ca.advance(hours(10_001));
    let answer = http_get(ca.metrics, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("root is not valid"), "{answer}");
}

#[tokio::test]
async fn silent_connections_are_closed_and_where_there_are_too_many_the_oldest() {
    let handshake_timeout = Duration::from_secs(1);
    let ca = Ca::start(Limits { connections: 2, handshake_timeout, ..Limits::default() }).await;
    let mut silent = TcpStream::connect(ca.address).await.unwrap();
    let mut byte = [0];
    assert_eq!(silent.read(&mut byte).await.unwrap(), 0);
    ca.until("outrider_ca_connections", 0).await;
    let (svid, _) = ca.join().await;
    ca.until("outrider_ca_connections", 0).await;
    let mut first = ca.caller(None).connect().await.unwrap();
    let mut known = ca.caller(Some(&svid)).connect().await.unwrap();
    ca.until("outrider_ca_connections", 2).await;
    ca.caller(None).bundle(0).await.unwrap();
    ca.until("outrider_ca_connections_shed_total", 1).await;
    // What HTTP/2 says at the beginning may be read before the end.
    drop(first.read_to_end(&mut Vec::new()).await);
    let is_open = tokio::time::timeout(Duration::from_millis(100), known.read_to_end(&mut Vec::new())).await;
    assert!(is_open.is_err(), "who has proved who it is does not give way to strangers");
}

/// A request for a certificate whose body does not come, over HTTP/1.
async fn unfinished(ca: &Ca) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = Caller { alpn: b"http/1.1", ..ca.caller(None) }.connect().await.unwrap();
    let head = "POST /istio.v1.auth.IstioCertificateService/CreateCertificate HTTP/1.1\r\nhost: ca\r\n\
                content-type: application/grpc\r\ncontent-length: 100\r\n\r\n\0";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn requests_whose_body_does_not_come_keep_nobody_out_and_count_against_the_rate() {
    let per_caller = Rate { per_second: 1, burst: 12 };
    let ca = Ca::start(Limits { requests: 2, per_caller, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(unfinished(&ca).await);
    }
    let (svid, bundle) = ca.join().await;
    renew(ca.address, &svid, &bundle, svid.id(), ca.now()).await.unwrap();
    // Over their rate they are refused by their head.
    let refused = async || {
        held.push(unfinished(&ca).await);
        (ca.metric("outrider_ca_refused_total{reason=\"rate\"}").await > 0).then_some(())
    };
    eventually("they are over their rate", refused).await;
    eventually("they are given up", async || {
        (ca.metric("outrider_ca_requests_shed_total").await >= 8).then_some(())
    })
    .await;
}

#[tokio::test]
async fn garbage_on_the_wire_ends_only_its_connection() {
    let ca = Ca::start(Limits::default()).await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1], &[0; 4096]] {
        let mut stream = TcpStream::connect(ca.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    }
    for bytes in [&b"garbage\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage garbage garbage"] {
        let mut stream = ca.caller(None).connect().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    }
    ca.join().await;
}

#[tokio::test]
async fn the_bundle_comes_over_http1_too() {
    let ca = Ca::start(Limits::default()).await;
    let mut stream = Caller { alpn: b"http/1.1", ..ca.caller(None) }.connect().await.unwrap();
    stream.write_all(b"GET /bundle HTTP/1.1\r\nhost: ca\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: max-age=300"));
    assert_eq!(&TrustBundle::from_jwks(domain(), body.as_bytes()).unwrap(), ca.state().bundle());
}

#[tokio::test]
async fn stopping_lets_nobody_in_and_ends_idle_connections() {
    let ca = Ca::start(Limits::default()).await;
    let idle = Caller { alpn: b"h2", ..ca.caller(None) }.connect().await.unwrap();
    ca.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(15), ca.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(ca.address).await.is_err());
    drop(idle);
}
