//! The controller's stream on virtual time: silence, pauses, and what is asked meanwhile.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::Request as HttpRequest;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_certs::trust_bundle::TrustBundles;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

use super::{
    api::outrider_discovery_v1::{
        Heartbeat, WatchRequest,
        discovery_server::{Discovery, DiscoveryServer},
        watch_response::Message as Said,
    },
    *,
};
use crate::{
    identity::{
        testing::{MemoryNet, ORDERS, Root, bundle, epoch, eventually, id, tls_settings},
        tls_configs::TlsBase,
    },
    model::{Identity, fixture, wanted::Key},
    net::Listener as _,
    readiness::Readiness,
};

const ADDRESS: &str = "10.0.0.9:4360";
const CONTROLLER: &str = "spiffe://test.mesh/controller";
/// Longer than anything here takes, in virtual time.
const LONG: Duration = Duration::from_secs(3600);

/// What a stream of the sidecar has said, and where to say something to it.
type Talk = (Streaming<WatchRequest>, mpsc::Sender<Result<WatchResponse, Status>>);

/// The protocol's other end: it hands streams to the test.
#[derive(Clone)]
struct Door(mpsc::Sender<Talk>);

#[tonic::async_trait]
impl Discovery for Door {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (to, saying) = mpsc::channel(16);
        self.0.send((request.into_inner(), to)).await.map_err(|_over| Status::unavailable("over"))?;
        let said = stream::unfold(saying, |mut saying| async move { Some((saying.recv().await?, saying)) });
        Ok(Response::new(said.boxed()))
    }
}

struct Bench {
    net: MemoryNet,
    clock: Clock,
    root: Root,
    status: Arc<ControllerStatus>,
    wanted: Arc<Wanted>,
    readiness: Readiness,
    _snapshots: Snapshots,
}

impl Bench {
    /// A sidecar that has its certificate, and asks.
    fn start() -> Self {
        let (net, clock, root) = (MemoryNet::default(), Clock::simulated(epoch(), 7), Root::new("root"));
        let identity = Self::identity(&root, &clock, ORDERS);
        let snapshot = Snapshot { identity: Some(Arc::new(identity)), ..fixture::snapshot() };
        let snapshots = Snapshots::new(snapshot);
        let (status, readiness) = (Arc::new(ControllerStatus::new(clock.now())), Readiness::default());
        let wanted = Arc::<Wanted>::default();
        start(Inputs {
            settings: Arc::new(ControllerSettings {
                address: ADDRESS.to_owned(),
                spiffe_id: id(CONTROLLER),
                pod: Some("orders-0".to_owned()),
                pod_uid: None,
                wait: Duration::from_secs(5),
                idle: LONG,
                max_wanted: 8,
                max_waiting: 8,
            }),
            net: net.clone(),
            clock: clock.clone(),
            snapshots: snapshots.clone(),
            wanted: Arc::clone(&wanted),
            told: Told::default(),
            fragments: watch::Sender::default(),
            outside: watch::Sender::default(),
            status: Arc::clone(&status),
            guard: readiness.block("controller"),
        });
        Self { net, clock, root, status, wanted, readiness, _snapshots: snapshots }
    }

    fn identity(root: &Root, clock: &Clock, name: &str) -> Identity {
        let (svid, bundles) = (root.day_svid(name), Arc::new(TrustBundles::single(bundle(&[root], 1))));
        let tls = TlsBase::new(&tls_settings(), clock).unwrap().configs(&svid, &bundles).unwrap();
        Identity { svid, bundles, tls }
    }

    /// Opens the controller for business; its streams arrive.
    fn open(&self) -> mpsc::Receiver<Talk> {
        let (to, streams) = mpsc::channel(16);
        let listener = self.net.bind(ADDRESS.parse().unwrap()).unwrap();
        let tls = Self::identity(&self.root, &self.clock, CONTROLLER).tls.server_standard_http;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, TlsAcceptor::from(Arc::clone(&tls)), Door(to.clone())));
            }
        });
        streams
    }

    fn failures(&self) -> u64 {
        self.status.failures.load(Ordering::Relaxed)
    }

    fn seconds_since(&self, then: Instant) -> f64 {
        self.clock.now().saturating_duration_since(then).as_secs_f64()
    }
}

async fn serve(stream: DuplexStream, tls: TlsAcceptor, door: Door) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let mut server = DiscoveryServer::new(door.clone());
        async move { server.call(request).await }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

async fn heartbeat(talk: &Talk) {
    let message = Some(Said::Heartbeat(Heartbeat {}));
    talk.1.send(Ok(WatchResponse { message })).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_is_heard_for_thirty_seconds_is_dead() {
    let bench = Bench::start();
    let mut streams = bench.open();
    let mut talk = streams.recv().await.unwrap();
    assert_eq!(bench.readiness.waiting_for(), ["controller"]);
    for _ in 0..30 {
        heartbeat(&talk).await;
        tokio::time::sleep(Duration::from_secs(29)).await;
    }
    assert!(bench.readiness.waiting_for().is_empty());
    assert_eq!(bench.failures(), 0, "it is alive");
    heartbeat(&talk).await;
    eventually(LONG, "it is heard", || bench.status.age(bench.clock.now()) < Some(Duration::from_secs(1)))
        .await;
    let silent_since = bench.clock.now();
    while let Ok(Some(_more)) = talk.0.message().await {}
    assert!(
        (29.0..31.0).contains(&bench.seconds_since(silent_since)),
        "{}",
        bench.seconds_since(silent_since)
    );
    let _next = streams.recv().await.unwrap();
    assert!(bench.seconds_since(silent_since) < 32.0, "another is had at once");
    assert_eq!(bench.failures(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_says_nothing_at_all_is_given_up_after_ten_seconds() {
    let bench = Bench::start();
    // It accepts, and that is all.
    let _listener = bench.net.bind(ADDRESS.parse().unwrap()).unwrap();
    let begun = bench.clock.now();
    eventually(LONG, "it is given up", || bench.failures() > 0).await;
    assert!((9.0..11.0).contains(&bench.seconds_since(begun)));
    assert!(bench.status.error().unwrap().contains("no answer within 10s"));
    assert_eq!(bench.readiness.waiting_for(), ["controller"]);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_a_bound_and_are_short_while_somebody_waits() {
    let bench = Bench::start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = bench.failures();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let in_ten_minutes = bench.failures() - before;
    assert!((40..=80).contains(&in_ten_minutes), "one in 7.5 to 15 s: {in_ten_minutes}");
    for number in 1..=5 {
        let (before, begun) = (bench.failures(), bench.clock.now());
        let key = Key::address(([10, 96, 0, number], 80).into());
        assert!(bench.wanted.ask(&key, 8, begun).is_some());
        eventually(LONG, "it is tried", || bench.failures() > before).await;
        assert!(bench.seconds_since(begun) <= 1.1, "{}", bench.seconds_since(begun));
    }
    let mut streams = bench.open();
    let mut talk = streams.recv().await.unwrap();
    let mut asked = 0;
    while asked < 6 {
        assert!(talk.0.message().await.unwrap().is_some(), "a hello, and what was wanted meanwhile");
        asked += 1;
    }
}

#[test]
fn the_pause_doubles_up_to_its_bound_and_half_of_it_is_chance() {
    let mut rng = fastrand::Rng::with_seed(7);
    for (failures, full) in [(1, 200), (2, 400), (3, 800), (7, 12_800), (8, 15_000), (1000, 15_000)] {
        let pauses: Vec<_> = (0..200).map(|_| backoff(failures, &mut rng).as_millis()).collect();
        assert!(pauses.iter().all(|pause| (full / 2..=full).contains(pause)), "{failures}");
        assert!(pauses.iter().max().unwrap() - pauses.iter().min().unwrap() > full / 3, "{failures}");
    }
}
