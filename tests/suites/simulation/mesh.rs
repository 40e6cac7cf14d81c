//! A whole mesh on virtual time: `web`, which calls, and three replicas of `orders`, each with its sidecar.
//!
//! ```text
//!   web: load ─▶ sidecar ═mTLS═▶ sidecar ─▶ service: orders-1, orders-2, orders-3
//! ```

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use indexmap::IndexMap;
use outrider::{
    app::{App, Parts, Workers, World},
    clock::Clock,
    config,
    identity::fixed::FixedHandle,
    model::{Cluster, ClusterName, Endpoint, EndpointSettings, Settings},
};
use tokio::sync::{Notify, watch};
use turmoil::Sim;

use super::{
    faults::{Change, Fault},
    identities::{self, TRUST_DOMAIN, epoch, spiffe_id},
    load::{Call, Load, Progress, Watched},
    log::Log,
    names::{NameChange, Names, TTL},
    net::SimNet,
    reloads,
    service::{self, Mood, Seen, Service},
    watch::Watch,
};

/// The called replicas, by host name.
pub(super) const REPLICAS: [&str; 3] = ["orders-1", "orders-2", "orders-3"];
/// The caller's host name.
const WEB: &str = "web";
/// The replicas' inbound port.
pub(super) const INBOUND_PORT: u16 = 4343;
/// How often a fault may begin or end, and so the step of the network's time.
const TICK: Duration = Duration::from_millis(2);
/// Latency of a link that is well, one way: at most.
const LATENCY: Duration = Duration::from_millis(5);
/// Longer than any run.
const MAX_DURATION: Duration = Duration::from_secs(300);
/// After the last answer: the sweeper has passed twice.
const SETTLE: Duration = Duration::from_millis(2500);

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Decides everything that is not said here.
    pub(super) seed: u64,
    /// The caller's requests.
    pub(super) load: Load,
    /// What goes wrong, in order of time.
    pub(super) changes: Vec<Change>,
    /// If the caller finds the replicas by name: what the DNS says and when, in order of time.
    pub(super) names: Option<Vec<NameChange>>,
    /// What the caller's configuration says of requests to the replicas, in YAML.
    pub(super) policy: String,
    /// Requests are answered within this; `None`: whenever.
    pub(super) timeout: Option<Duration>,
    /// Whether the log is printed as it comes.
    pub(super) is_printed: bool,
    /// How long the mesh runs on after the last answer, at least.
    pub(super) idle: Duration,
    /// How often every sidecar gets another configuration; `None`: never.
    pub(super) reload_every: Option<Duration>,
}

impl Plan {
    fn policy(&self) -> String {
        let timeout =
            self.timeout.map_or_else(|| "none".to_owned(), |limit| format!("{}ms", limit.as_millis()));
        format!("request_timeout: {timeout}, {}", self.policy)
    }
}

/// What a run left behind.
pub(super) struct Outcome {
    /// What went wrong.
    pub(super) changes: Vec<Change>,
    /// Requests had to be answered within this.
    pub(super) timeout: Option<Duration>,
    /// Every request.
    pub(super) calls: Vec<Call>,
    /// How often the apps saw each.
    pub(super) seen: Seen,
    /// The caller's sidecar.
    pub(super) web: App,
    /// The replicas' sidecars: of each host the last that was started.
    pub(super) replicas: Vec<App>,
    /// Where the replicas are.
    pub(super) addresses: Vec<SocketAddr>,
    /// Every endpoint that the caller's sidecar ever knew.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// The log of decisions.
    pub(super) log: Vec<String>,
}

/// What the hosts share with the run.
#[derive(Clone, Default)]
struct Shared {
    log: Log,
    seen: Seen,
    names: Names,
    /// How the replicas' apps are.
    moods: Arc<[watch::Sender<Mood>; REPLICAS.len()]>,
    progress: Watched,
    /// The sidecar of each host, and what tells the host to stop in good order.
    apps: Arc<Mutex<IndexMap<&'static str, (App, Arc<Notify>)>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Shared {
    fn stop(&self, host: &str) {
        if let Some((_, stop)) = self.apps.lock().unwrap().get(host) {
            stop.notify_one();
        }
    }
}

/// A mesh that is running.
pub(super) struct Mesh {
    sim: Sim<'static>,
    shared: Shared,
    addresses: Vec<SocketAddr>,
    is_listed: [bool; REPLICAS.len()],
    endpoints: Vec<Arc<Endpoint>>,
}

/// Runs a mesh to its end.
pub(super) fn run(plan: &Plan) -> Outcome {
    let mut mesh = Mesh::build(plan);
    let _listening = mesh.shared.log.listen();
    let mut changes = plan.changes.iter().peekable();
    let mut names = plan.names.iter().flatten().peekable();
    let mut watch = Watch::default();
    loop {
        mesh.shared.log.set_time(mesh.sim.elapsed());
        while let Some(change) = changes.next_if(|change| change.at <= mesh.sim.elapsed()) {
            mesh.apply(*change);
        }
        while let Some(change) = names.next_if(|change| change.at <= mesh.sim.elapsed()) {
            mesh.shared.log.write(change);
            mesh.shared.names.set_says(change.says);
        }
        mesh.note_endpoints();
        watch.look(plan, &mesh);
        if mesh.sim.step().unwrap_or_else(|error| panic!("a host ended: {error}")) {
            break;
        }
    }
    mesh.finish(plan)
}

impl Mesh {
    fn build(plan: &Plan) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(epoch())
            .simulation_duration(MAX_DURATION)
            .tick_duration(TICK)
            .min_message_latency(TICK)
            .max_message_latency(LATENCY)
            .tcp_capacity(1024)
            .build();
        let (log, names) = (Log::new(plan.is_printed), Names::new(plan.seed));
        let shared = Shared { log, names, ..Shared::default() };
        let mut seeds = fastrand::Rng::with_seed(plan.seed);
        for (index, name) in REPLICAS.into_iter().enumerate() {
            let (shared, seed, every) = (shared.clone(), seeds.u64(..), plan.reload_every);
            sim.host(name, move || replica(index, seed, every, shared.clone()));
        }
        let addresses = REPLICAS.map(|name| SocketAddr::new(sim.lookup(name), INBOUND_PORT)).to_vec();
        let is_listed = [true; REPLICAS.len()];
        let mut mesh = Self { sim, shared, addresses, is_listed, endpoints: Vec::new() };
        mesh.list();
        let (shared, seed, plan) = (mesh.shared.clone(), seeds.u64(..), plan.clone());
        mesh.sim.client(WEB, web(seed, plan, shared));
        mesh
    }

    fn apply(&mut self, change: Change) {
        let replica = REPLICAS[change.replica];
        self.shared.log.write(change);
        match (change.fault, change.begins) {
            (Fault::Partition, true) => self.sim.partition(WEB, replica),
            (Fault::Partition, false) => self.sim.repair(WEB, replica),
            (Fault::Deaf, true) => self.sim.partition_oneway(replica, WEB),
            (Fault::Deaf, false) => self.sim.repair_oneway(replica, WEB),
            (Fault::Silence, true) => self.sim.hold(WEB, replica),
            (Fault::Silence, false) => self.sim.release(WEB, replica),
            (Fault::SlowLink(latency), true) => self.sim.set_link_latency(WEB, replica, latency),
            (Fault::SlowLink(_), false) => self.sim.set_link_latency(WEB, replica, LATENCY),
            (Fault::Crash, true) => self.sim.crash(replica),
            (Fault::Crash, false) => self.sim.bounce(replica),
            (Fault::PowerLoss, true) => {
                self.sim.partition(WEB, replica);
                self.sim.crash(replica);
            }
            (Fault::PowerLoss, false) => {
                self.sim.repair(WEB, replica);
                self.sim.bounce(replica);
            }
            (Fault::Drain, true) => self.shared.stop(replica),
            (Fault::Drain, false) => self.sim.bounce(replica),
            (Fault::Stall, true) => self.set_mood(change, Mood::Stalled),
            (Fault::SlowApp(more), true) => self.set_mood(change, Mood::Slow(more)),
            (Fault::Errors(percent, status), true) => {
                self.set_mood(change, Mood::Failing(percent, status));
            }
            (Fault::Stall | Fault::SlowApp(_) | Fault::Errors(..), false) => {
                self.set_mood(change, Mood::Well);
            }
            (Fault::Withdrawal, begins) => {
                self.is_listed[change.replica] = !begins;
                self.list();
            }
        }
    }

    fn set_mood(&self, change: Change, mood: Mood) {
        self.shared.moods[change.replica].send_replace(mood);
    }

    /// Tells discovery of the listed replicas.
    fn list(&self) {
        let ids = Arc::from([spiffe_id("orders").parse().unwrap()]);
        let listed = self.addresses.iter().zip(self.is_listed).filter(|(_, is_listed)| *is_listed);
        let endpoints: Vec<EndpointSettings> =
            listed.map(|(address, _)| EndpointSettings::new(*address, Arc::clone(&ids))).collect();
        self.shared.names.set(&ClusterName::new("orders"), &endpoints);
    }

    /// Since the start of the simulation.
    pub(super) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// How the caller's requests go on.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.shared.progress.lock().unwrap()
    }

    /// The replicas, as the caller's sidecar knows them just now; `None`: it is not up.
    pub(super) fn orders(&self) -> Option<Arc<Cluster>> {
        let apps = self.shared.apps.lock().unwrap();
        let snapshot = apps.get(WEB)?.0.snapshots.load();
        snapshot.cluster(&ClusterName::new("orders")).cloned()
    }

    /// Remembers the endpoints that the caller knows just now.
    fn note_endpoints(&mut self) {
        let Some(orders) = self.orders() else { return };
        for endpoint in &orders.endpoints {
            if !self.endpoints.iter().any(|known| Arc::ptr_eq(known, endpoint)) {
                self.endpoints.push(Arc::clone(endpoint));
            }
        }
    }

    fn finish(self, plan: &Plan) -> Outcome {
        let mut apps = std::mem::take(&mut *self.shared.apps.lock().unwrap());
        let (web, _) = apps.shift_remove(WEB).expect("the run is over only when web's requests are");
        let calls = std::mem::take(&mut *self.shared.calls.lock().unwrap());
        Outcome {
            changes: plan.changes.clone(),
            timeout: plan.timeout,
            calls,
            seen: Arc::clone(&self.shared.seen),
            web,
            replicas: apps.into_values().map(|(app, _)| app).collect(),
            addresses: self.addresses,
            endpoints: self.endpoints,
            log: self.shared.log.lines(),
        }
    }
}

async fn web(seed: u64, plan: Plan, shared: Shared) -> turmoil::Result {
    let source = match &plan.names {
        None => "endpoints_file: none".to_owned(),
        Some(_) => format!(
            "dns: {{name: orders.sim., port: {INBOUND_PORT}, min_ttl: 50ms, max_ttl: {}ms}}",
            TTL.as_millis()
        ),
    };
    let settings = |variant| settings(WEB, &reloads::outbound(&source, &plan.policy(), variant));
    let running = sidecar(WEB, WEB, settings(0), seed, &shared).await?;
    let calls = async {
        let calls = plan.load.run(seed, shared.log.clone(), Arc::clone(&shared.progress)).await?;
        *shared.calls.lock().unwrap() = calls;
        tokio::time::sleep(plan.idle.max(SETTLE)).await;
        Ok(())
    };
    tokio::select! {
        biased;
        ended = calls => ended,
        () = reloads::keep_reloading(WEB, &running.app, plan.reload_every, &shared.log, settings) => Ok(()),
    }
}

async fn replica(index: usize, seed: u64, reload_every: Option<Duration>, shared: Shared) -> turmoil::Result {
    let name = REPLICAS[index];
    let settings = |variant| settings("orders", &reloads::inbound(variant));
    let running = sidecar(name, "orders", settings(0), seed, &shared).await?;
    let (seen, mood) = (Arc::clone(&shared.seen), shared.moods[index].subscribe());
    let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let app = Service { name, seen, mood, rng };
    let stopped = async {
        running.stop.notified().await;
        running.app.drain().await;
    };
    tokio::select! {
        biased;
        ended = service::serve(app) => ended,
        () = stopped => Ok(()),
        () = reloads::keep_reloading(name, &running.app, reload_every, &shared.log, settings) => Ok(()),
    }
}

/// What a host's configuration says.
fn settings(service: &str, rest: &str) -> Settings {
    let top = format!(
        "service: {service}\ntrust_domain: {TRUST_DOMAIN}\nidentity: {{ca: {{address: 'unused:1'}}}}\n"
    );
    let text = format!("{top}{rest}");
    config::parse(&text, Path::new("/")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A sidecar that is up. Its identity would end with the handle.
struct Running {
    app: App,
    stop: Arc<Notify>,
    _identity: FixedHandle,
}

/// Starts the sidecar of a host, from configuration to listening sockets.
async fn sidecar(
    host: &'static str,
    service: &str,
    settings: Settings,
    seed: u64,
    shared: &Shared,
) -> turmoil::Result<Running> {
    let (identity, handle) = identities::identity(service);
    let now = epoch() + turmoil::sim_elapsed().unwrap_or_default();
    let world = World { net: SimNet, clock: Clock::simulated(now, seed), workers: Workers::Tasks };
    let parts = Parts { identity: Some(identity), sources: Arc::new(shared.names.clone()) };
    let app = App::start(settings, &world, parts)?;
    app.serve(&world).await?;
    shared.log.write(format_args!("{host} is up"));
    let stop = Arc::new(Notify::new());
    shared.apps.lock().unwrap().insert(host, (app.clone(), Arc::clone(&stop)));
    Ok(Running { app, stop, _identity: handle })
}
