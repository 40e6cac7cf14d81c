//! One federated domain in virtual time, with an endpoint that can lie.

use std::{
    fs,
    sync::{Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use outrider_certs::trust_bundle::MAX_DOCUMENT_BYTES;
use rcgen::KeyPair;
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    identity::testing::{DAY, MemoryNet, Root, domain, epoch, eventually, id, key_der, tls_settings},
    model::federation::{BundleEndpoint, BundleUrl, DomainStatus, FederatedDomain, Profile},
    net::Listener as _,
};

const ENDPOINT: &str = "10.0.0.9:4350";
const SERVER: &str = "spiffe://test.mesh/bundles";
/// Once around the longest wait between two looks.
const LONG: Duration = Duration::from_secs(2 * 3600);
/// What sleeping may be late.
const LATE: Duration = Duration::from_millis(20);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn bundle(roots: &[&Root], sequence: u64, hint: Option<Duration>) -> TrustBundle {
    let roots = roots.iter().map(|root| root.der()).collect();
    TrustBundle::new(domain(), roots, sequence, hint).unwrap()
}

/// What the endpoint does when it is asked.
#[derive(Clone)]
enum Reply {
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// A byte of an answer each second, for ever.
    Drips,
    /// Nothing, and the connection stays.
    Silent,
    /// It does not even shake hands.
    Mute,
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
    Reply::Bytes([head.as_bytes(), body].concat())
}

fn gives(bundle: &TrustBundle) -> Reply {
    answer("200 OK", "", bundle.to_jwks().as_bytes())
}

/// A server of HTTPS that does as it is told; clones are the same.
#[derive(Clone)]
struct Endpoint {
    net: MemoryNet,
    clock: Clock,
    script: Arc<Mutex<Script>>,
}

struct Script {
    reply: Reply,
    /// Who it is, and by whose word.
    identity: (String, Arc<Root>),
    /// When it was asked, and for what.
    asked: Vec<(Instant, String)>,
}

impl Endpoint {
    fn new(clock: &Clock, root: &Arc<Root>, reply: Reply) -> Self {
        let script = Script { reply, identity: (SERVER.to_owned(), Arc::clone(root)), asked: Vec::new() };
        Self { net: MemoryNet::default(), clock: clock.clone(), script: Arc::new(Mutex::new(script)) }
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    fn reply(&self, reply: Reply) {
        self.script(|script| script.reply = reply);
    }

    /// Open until [`MemoryNet::close`].
    fn open(&self) {
        let listener = self.net.bind(ENDPOINT.parse().unwrap()).unwrap();
        let endpoint = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(endpoint.clone().serve(stream));
            }
        });
    }

    async fn serve(self, stream: DuplexStream) -> Option<()> {
        if matches!(self.script(|script| script.reply.clone()), Reply::Mute) {
            return std::future::pending().await;
        }
        let mut stream = TlsAcceptor::from(self.tls()).accept(stream).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let now = self.clock.now();
        let head = String::from_utf8(head).unwrap();
        match self.script(|script| {
            script.asked.push((now, head));
            script.reply.clone()
        }) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
            Reply::Drips => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.ok()?;
                loop {
                    stream.write_all(b" ").await.ok()?;
                    stream.flush().await.ok()?;
                    tokio::time::sleep(seconds(1)).await;
                }
            }
            Reply::Silent | Reply::Mute => std::future::pending().await,
        }
        stream.shutdown().await.ok()
    }

    fn tls(&self) -> Arc<ServerConfig> {
        let (name, root) = self.script(|script| script.identity.clone());
        let key = KeyPair::generate().unwrap();
        let now = self.clock.wall();
        let leaf = root.leaf(&id(&name), &key, now - DAY, now + DAY);
        let provider = outrider_certs::rustls_verify::provider();
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key_der(&key))
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn asked(&self) -> usize {
        self.script(|script| script.asked.len())
    }

    /// The times between two looks.
    fn pauses(&self) -> Vec<Duration> {
        let times: Vec<Instant> = self.script(|script| script.asked.iter().map(|(at, _)| *at).collect());
        times.windows(2).map(|two| two[1] - two[0]).collect()
    }
}

/// A sidecar's side of it. The domain is begun with a bundle in a file.
struct Bench {
    clock: Clock,
    folder: TempDir,
    endpoint: Endpoint,
    shared: Arc<Shared<MemoryNet>>,
    slot: Arc<Slot>,
    status: Arc<DomainStatus>,
    running: Option<JoinHandle<()>>,
    root: Arc<Root>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Bench {
    /// The endpoint is open, and gives the bundle 1 of one root, with that hint.
    fn new(hint: Option<Duration>) -> Self {
        let (clock, folder) = (Clock::simulated(epoch(), 7), TempDir::new().unwrap());
        let root = Arc::new(Root::new("root"));
        let endpoint = Endpoint::new(&clock, &root, gives(&bundle(&[&root], 1, hint)));
        endpoint.open();
        let (_never, identity) = watch::channel(None);
        let shared = Arc::new(Shared {
            net: endpoint.net.clone(),
            tls: TlsBase::new(&tls_settings(), &clock).unwrap(),
            clock: clock.clone(),
            folder: Folder::of(&folder.path().join("state")),
            identity,
            bundles: watch::Sender::new(Arc::default()),
            changed: Notify::new(),
        });
        let bench = Self {
            clock,
            folder,
            endpoint,
            shared,
            slot: Arc::default(),
            status: Arc::default(),
            running: None,
            root,
        };
        bench.write(&bundle(&[&bench.root], 0, None).to_pem());
        bench
    }

    /// Running, and the endpoint has answered once.
    async fn answered(hint: Option<Duration>) -> Self {
        let mut bench = Self::new(hint);
        bench.start();
        bench.until("the endpoint has answered", |bench| bench.successes() == 1).await;
        bench
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("bundle"), text).unwrap();
    }

    fn settings(&self, path: &str) -> FederatedDomain {
        let (host, port) = ENDPOINT.rsplit_once(':').unwrap();
        let url = BundleUrl { host: host.into(), port: port.parse().unwrap(), path: path.into() };
        FederatedDomain {
            trust_domain: domain(),
            endpoint: Some(BundleEndpoint { url, profile: Profile::Spiffe(id(SERVER)) }),
            bundle_file: Some(self.folder.path().join("bundle")),
        }
    }

    fn start(&mut self) {
        self.start_as(self.settings("/bundle"));
    }

    fn start_as(&mut self, settings: FederatedDomain) {
        self.stop();
        let (slot, status) = (Arc::clone(&self.slot), Arc::clone(&self.status));
        let domain = Domain::new(Arc::clone(&self.shared), settings, slot, status);
        self.running = Some(tokio::spawn(domain.live()));
    }

    fn stop(&mut self) {
        self.running.take().iter().for_each(JoinHandle::abort);
    }

    /// As after a restart: nothing is left but what is on disk.
    fn restart(&mut self) {
        self.stop();
        (self.slot, self.status) = (Arc::default(), Arc::default());
        self.start();
    }

    fn held(&self) -> TrustBundle {
        self.slot.bundle().unwrap()
    }

    fn error(&self) -> String {
        self.status.refreshes.last().error.unwrap_or_default()
    }

    fn failures(&self) -> u64 {
        self.status.refreshes.failures.load(Ordering::Relaxed)
    }

    fn successes(&self) -> u64 {
        self.status.refreshes.successes.load(Ordering::Relaxed)
    }

    async fn until(&self, what: &str, mut claim: impl FnMut(&Self) -> bool) {
        eventually(LONG, what, || claim(self)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_is_asked_as_often_as_it_hints_within_bounds_and_not_by_the_clock() {
    for (hint, least, most) in [
        (None, seconds(270), seconds(300)),
        (Some(seconds(1)), seconds(5), seconds(5)),
        (Some(seconds(100)), seconds(90), seconds(100)),
        (Some(seconds(7 * 86_400)), seconds(3240), seconds(3600)),
    ] {
        let bench = Bench::answered(hint).await;
        for count in 2..=20 {
            bench.until("one more look", |bench| bench.endpoint.asked() == count).await;
        }
        let pauses = bench.endpoint.pauses();
        assert!(pauses.iter().all(|pause| (least..=most + LATE).contains(pause)), "{hint:?}: {pauses:?}");
        let spread = *pauses.iter().max().unwrap() - *pauses.iter().min().unwrap();
        assert!(least == most || spread > (most - least) / 4, "{hint:?}: {pauses:?}");
        assert_eq!(bench.failures(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_for_its_own_path_and_shown_no_certificate() {
    let bench = Bench::answered(None).await;
    let head = bench.endpoint.script(|script| script.asked[0].1.clone());
    assert!(head.starts_with("GET /bundle HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: 10.0.0.9:4350\r\n"), "{head}");
}

/// What an endpoint can do wrong, and what is told of it.
fn wrongs(root: &Root) -> Vec<(Reply, &'static str)> {
    let good = bundle(&[root], 9, None).to_jwks();
    let elsewhere = "location: https://10.0.0.9:4350/elsewhere\r\n";
    let large = [good.as_bytes(), &vec![b' '; MAX_DOCUMENT_BYTES]].concat();
    let chunked = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(),
        &b"400\r\n".iter().chain(&[b' '; 1024]).chain(b"\r\n").copied().collect::<Vec<u8>>().repeat(300),
    ]
    .concat();
    let endless = format!("x-more: {}\r\n", "a".repeat(20_000));
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":[]}".to_vec();
    let older = bundle(&[root], 4, None);
    let forked = bundle(&[&Root::new("another")], 5, None);
    vec![
        (answer("301 Moved Permanently", elsewhere, good.as_bytes()), "it redirects (301 Moved Permanently)"),
        (answer("302 Found", elsewhere, b""), "it redirects (302 Found)"),
        (answer("307 Temporary Redirect", elsewhere, b""), "it redirects (307"),
        (answer("308 Permanent Redirect", elsewhere, b""), "it redirects (308"),
        (answer("500 Internal Server Error", "", good.as_bytes()), "it answers 500"),
        (answer("203 Non-Authoritative Information", "", good.as_bytes()), "it answers 203"),
        (answer("200 OK", "", &large), "its answer cannot be read: length limit exceeded"),
        (Reply::Bytes(chunked), "its answer cannot be read: length limit exceeded"),
        (answer("200 OK", &endless, good.as_bytes()), "the exchange broke"),
        (Reply::Bytes(cut), "its answer cannot be read"),
        (Reply::Bytes(Vec::new()), "the exchange broke"),
        (Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), "the exchange broke"),
        (answer("200 OK", "", b"<html>"), "it gives no usable bundle"),
        (answer("200 OK", "", bundle(&[root], 0, None).to_pem().as_bytes()), "it gives no usable bundle"),
        (answer("200 OK", "", b""), "it gives no usable bundle"),
        (gives(&older), "its bundle is refused: its sequence 4 is lower than 5"),
        (gives(&forked), "its bundle is refused: its roots differ"),
        (Reply::Silent, "it gave no answer within 10s"),
        (Reply::Drips, "it gave no answer within 10s"),
        (Reply::Mute, "it gave no answer within 10s"),
    ]
}

#[tokio::test(start_paused = true)]
async fn whatever_an_endpoint_does_wrong_the_last_good_bundle_stays_and_it_is_asked_again_sooner() {
    let bench = Bench::new(None);
    let good = bundle(&[&bench.root], 5, Some(seconds(100)));
    bench.endpoint.reply(gives(&good));
    let mut bench = bench;
    bench.start();
    bench.until("the endpoint has answered", |bench| bench.successes() == 1).await;
    for (reply, told) in wrongs(&bench.root) {
        let is_slow = told.contains("10s");
        bench.endpoint.reply(reply);
        let before = bench.failures();
        bench.until("it has failed", |bench| bench.failures() == before + 1).await;
        assert!(bench.error().contains(told), "{told}: {}", bench.error());
        let failed = bench.clock.now();
        bench.until("it has failed again", |bench| bench.failures() == before + 2).await;
        let pause = bench.clock.now() - failed - if is_slow { seconds(10) } else { Duration::ZERO };
        // A quarter of what would be the time between two looks; how often is looked at it here is allowed for.
        assert!((21.5..=26.0).contains(&pause.as_secs_f64()), "{told}: {pause:?}");
        assert_eq!(bench.held(), good, "{told}");
    }
    let elsewhere = |(_, head): &(Instant, String)| head.contains("/elsewhere");
    assert!(!bench.endpoint.script(|script| script.asked.iter().any(elsewhere)), "a redirect was followed");
    let newer = bundle(&[&bench.root, &Root::new("second")], 6, None);
    bench.endpoint.reply(gives(&newer));
    bench.until("it works again", |bench| bench.held() == newer).await;
    assert_eq!(bench.error(), "");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_the_endpoint_is_believed_nothing() {
    let bench = Bench::answered(None).await;
    let (held, impostor) = (bench.held(), Arc::new(Root::new("root")));
    let mut asked = bench.endpoint.asked();
    for (name, root, told) in [
        (SERVER, &impostor, "its server is not trusted"),
        (
            "spiffe://test.mesh/web",
            &bench.root,
            "its server is not spiffe://test.mesh/bundles but spiffe://test.mesh/web",
        ),
        ("spiffe://other.mesh/bundles", &bench.root, "its server is not trusted"),
    ] {
        let newer = bundle(&[&impostor], 9, None);
        bench.endpoint.script(|script| {
            script.identity = (name.to_owned(), Arc::clone(root));
            script.reply = gives(&newer);
        });
        let before = bench.failures();
        bench.until("it has failed", |bench| bench.failures() > before).await;
        assert!(bench.error().contains(told), "{}", bench.error());
        assert_eq!((bench.held(), bench.endpoint.asked()), (held.clone(), asked), "{name}");
        asked = bench.endpoint.asked();
    }
}

#[tokio::test(start_paused = true)]
async fn roots_rotate_through_the_endpoint_and_the_newest_vouches_for_it() {
    let bench = Bench::answered(Some(seconds(10))).await;
    let (first, second) = (Arc::clone(&bench.root), Arc::new(Root::new("second")));
    let step = |roots: &[&Root], sequence, server: &Arc<Root>| {
        let next = bundle(roots, sequence, Some(seconds(10)));
        bench.endpoint.script(|script| {
            script.identity.1 = Arc::clone(server);
            script.reply = gives(&next);
        });
        next
    };
    // Announced, used, and the old one taken away: by a server of the old root as long as none other is known.
    for (roots, sequence, server) in [
        (vec![&*first, &*second], 2, &first),
        (vec![&*first, &*second], 3, &second),
        (vec![&*second], 4, &second),
    ] {
        let next = step(&roots, sequence, server);
        bench.until("the next bundle", |bench| bench.held() == next).await;
    }
    // Who held out with the first root is nobody now.
    step(&[&first], 5, &first);
    bench.until("it has failed", |bench| bench.failures() > 0).await;
    assert!(bench.error().contains("its server is not trusted"), "{}", bench.error());
    assert_eq!(bench.held().sequence(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_without_roots_is_taken_and_trusts_nobody() {
    let bench = Bench::answered(Some(seconds(10))).await;
    bench.endpoint.reply(gives(&bundle(&[], 2, None)));
    bench.until("nobody is trusted", |bench| bench.held().roots().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn before_there_is_any_bundle_an_endpoint_is_asked_with_growing_pauses() {
    let mut bench = Bench::new(None);
    fs::remove_file(bench.folder.path().join("bundle")).unwrap();
    // Its server is of another domain, whose bundle is not there yet either.
    let other = TrustDomain::parse("other.mesh").unwrap();
    let server = "spiffe://other.mesh/bundles";
    bench.endpoint.script(|script| script.identity.0 = server.to_owned());
    let mut settings = bench.settings("/bundle");
    settings.endpoint.as_mut().unwrap().profile = Profile::Spiffe(id(server));
    settings.bundle_file = None;
    bench.start_as(settings);
    let (begun, mut times) = (bench.clock.now(), Vec::new());
    for count in 1..=20 {
        bench.until("it has failed", |bench| bench.failures() == count).await;
        times.push(bench.clock.now() - begun);
    }
    assert!(bench.error().contains("there is no bundle of other.mesh yet"), "{}", bench.error());
    let pauses: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] <= seconds(3) && pauses.iter().all(|pause| *pause <= seconds(62)), "{pauses:?}");
    assert!(pauses[6..].iter().any(|pause| *pause > seconds(15)), "{pauses:?}");
    assert_eq!((bench.slot.bundle(), bench.endpoint.asked()), (None, 0));
    let vouching = TrustBundle::new(other, vec![bench.root.der()], 1, None).unwrap();
    bench.shared.bundles.send_replace(Arc::new(TrustBundles::single(vouching)));
    let known = bench.clock.now();
    bench.until("its bundle is held", |bench| bench.slot.bundle().is_some()).await;
    assert!(bench.clock.now() - known <= seconds(62));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_counts_until_the_endpoint_answers_again() {
    let bench = Bench::answered(Some(seconds(1000))).await;
    let (fetched, asked) = (bench.held(), bench.endpoint.asked());
    bench.endpoint.reply(Reply::Silent);
    bench.write("neither PEM nor JSON");
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(
        (bench.held(), bench.endpoint.asked()),
        (fetched, asked),
        "a file that is no bundle changes nothing"
    );
    let second = Arc::new(Root::new("second"));
    let by_hand = bundle(&[&bench.root, &second], 0, None);
    bench.write(&by_hand.to_pem());
    let written = bench.clock.now();
    bench.until("the file's bundle", |bench| bench.held().roots() == by_hand.roots()).await;
    assert!(bench.clock.now() - written <= seconds(5));
    bench.until("the endpoint is asked at once", |bench| bench.endpoint.asked() > asked).await;
    assert!(bench.clock.now() - written <= seconds(20));
    // Its sequences say nothing about the file's: it may have lost its count, which is why somebody has written the file.
    let anew = bundle(&[&second], 1, None);
    bench.endpoint.reply(gives(&anew));
    bench.until("the endpoint's bundle", |bench| bench.held() == anew).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_alone_is_looked_at_and_its_faults_are_told() {
    let mut bench = Bench::new(None);
    let mut settings = bench.settings("/bundle");
    settings.endpoint = None;
    bench.start_as(settings);
    assert_eq!(bench.held().roots().len(), 1, "it is there at once");
    bench.write("{");
    bench.until("the fault is told", |bench| bench.error().contains("no usable bundle")).await;
    fs::remove_file(bench.folder.path().join("bundle")).unwrap();
    bench
        .until("another one", |bench| bench.error().contains("bundle:") || bench.error().contains("No such"))
        .await;
    assert_eq!(bench.held().roots().len(), 1, "the last good stays");
    let next = bundle(&[&bench.root, &Root::new("second")], 7, None);
    bench.write(&next.to_jwks());
    bench.until("the next one", |bench| bench.held() == next && bench.error().is_empty()).await;
    assert_eq!(bench.endpoint.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_what_was_kept_and_asks_when_that_is_due() {
    let mut bench = Bench::answered(Some(seconds(1000))).await;
    let (held, asked) = (bench.held(), bench.endpoint.asked());
    assert_eq!(held.sequence(), 1);
    tokio::time::sleep(seconds(300)).await;
    bench.restart();
    assert_eq!(bench.held(), held, "it is there before anybody was asked");
    tokio::time::sleep(seconds(550)).await;
    assert_eq!(bench.endpoint.asked(), asked, "it is not due");
    bench.until("it is due", |bench| bench.endpoint.asked() == asked + 1).await;
    // Overdue: within five seconds, but not at once with all others.
    bench.stop();
    tokio::time::sleep(seconds(5000)).await;
    let begun = bench.clock.now();
    bench.restart();
    bench.until("it is asked", |bench| bench.endpoint.asked() == asked + 2).await;
    let after = bench.clock.now() - begun;
    assert!(after <= seconds(6), "{after:?}");
    // What was kept is compared with, too.
    bench.stop();
    let older = bundle(&[&bench.root], 0, None);
    assert_eq!(older.sequence(), 0);
    bench.endpoint.reply(gives(&bundle(&[&Root::new("another")], 1, None)));
    bench.restart();
    bench.until("it is refused", |bench| bench.error().contains("its bundle is refused")).await;
    assert_eq!(bench.held(), held);
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_counts_for_itself() {
    let mut bench = Bench::answered(Some(seconds(1000))).await;
    bench.endpoint.reply(gives(&bundle(&[&bench.root], 9, None)));
    bench.restart();
    bench.until("it counts", |bench| bench.held().sequence() == 9).await;
    let anew = bundle(&[&bench.root, &Root::new("second")], 2, None);
    bench.endpoint.reply(gives(&anew));
    let before = bench.clock.now();
    let elsewhere = bench.settings("/another");
    bench.start_as(elsewhere);
    bench.until("its bundle", |bench| bench.held() == anew).await;
    assert!(bench.clock.now() - before <= seconds(12), "it is asked at once");
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_not_confirmed_for_three_intervals_is_stale() {
    let bench = Bench::answered(Some(seconds(100))).await;
    bench.endpoint.net.close(ENDPOINT);
    let is_stale = || bench.status.freshness().is_stale(bench.clock.wall());
    tokio::time::sleep(seconds(290)).await;
    assert!(!is_stale());
    tokio::time::sleep(seconds(15)).await;
    assert!(is_stale());
    assert!(bench.error().contains("it cannot be reached"), "{}", bench.error());
    bench.endpoint.open();
    bench.until("it is confirmed", |_| !is_stale()).await;
}
