//! One calling sidecar: everything of it that decides, and nothing that does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use outrider::{
    clock::Clock,
    config,
    discovery::{Discovery, EndpointList, Feed, Running, Source, Sources},
    identity::{public::PublicFiles, tls_configs::TlsBase},
    model::{
        Cluster, ClusterName, ClusterSettings, EndpointSettings, Generation, Snapshot,
        balance::{Balance, Balancing},
    },
    publish::{self, Facts},
};
use outrider_certs::SpiffeId;

use super::{
    ledger::{Known, Ledger},
    plan::Plan,
    replica::Replica,
};

/// The port of every replica.
const PORT: u16 = 4343;

/// One calling sidecar.
pub(super) struct Caller {
    /// What it did.
    pub(super) ledger: Ledger,
    /// Its workers' chances.
    pub(super) workers: Vec<fastrand::Rng>,
    /// When discovery last said something else.
    pub(super) discovered_at: Duration,
    /// When somebody last looked after its clusters.
    pub(super) looked_at: Duration,
    /// Whether its app's requests are of kinds that are kept together.
    pub(super) has_affinity: bool,
    snapshot: Arc<Snapshot>,
    config: Arc<Generation>,
    discovery: Discovery,
    feed: Feed,
    public: PublicFiles,
}

/// The called cluster.
fn orders() -> ClusterName {
    ClusterName::new("orders")
}

/// Who must answer.
fn ids() -> Arc<[SpiffeId]> {
    Arc::from(["spiffe://sim.outrider/orders".parse().unwrap()])
}

/// Where a replica is.
pub(super) fn address(replica: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, replica as u8), PORT).into()
}

/// Which replica is there.
fn replica_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]),
        SocketAddr::V6(_) => unreachable!("replicas have IPv4 addresses"),
    }
}

impl Caller {
    /// A sidecar whose life begins now, and who knows nobody yet.
    pub(super) fn new(plan: &Plan, index: usize, rng: &mut fastrand::Rng, now: Instant) -> Self {
        let caller = &plan.callers[index];
        let zone = caller.zone.map(|zone| format!("zone: {zone}\n")).unwrap_or_default();
        let text = format!(
            "service: web\ntrust_domain: sim.outrider\nidentity: {{ca: {{address: 'unused:1'}}}}\n{zone}\
             outbound: [{{name: out, listen: '127.0.0.1:1'}}]\n\
             clusters: [{{name: orders, endpoints_file: none, spiffe_ids: ['spiffe://sim.outrider/orders'], {}}}]\n",
            plan.cluster
        );
        let mut settings =
            config::parse(&text, Path::new("/")).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for cluster in settings.clusters.iter_mut().filter(|cluster| cluster.name == orders()) {
            let cluster = Arc::make_mut(cluster);
            cluster.balance = plan.balance;
            let (panic_percent, slow_start) = (plan.panic_percent, plan.slow_start);
            let affinity = cluster.balancing.affinity.take();
            cluster.balancing = Balancing { affinity, panic_percent, slow_start, prefers_zone: true };
        }
        // Dates only: no decision asks this clock.
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH, plan.seed);
        let tls = TlsBase::new(&settings.bootstrap.tls, &clock).unwrap();
        let config = Arc::new(Generation::first(Arc::new(settings)));
        let told = Told::default();
        let mut discovery = Discovery::new(Arc::new(told.clone()), &clock);
        discovery.reconcile(&config.settings.clusters);
        let feed = told.0.lock().unwrap().take().expect("the cluster's source was started");
        let mut this = Self {
            workers: (0..caller.workers).map(|_| rng.fork()).collect(),
            ledger: Ledger::default(),
            discovered_at: Duration::ZERO,
            looked_at: Duration::ZERO,
            has_affinity: plan.balance == Balance::Maglev,
            snapshot: Arc::new(Snapshot::empty(Arc::clone(&config))),
            config,
            discovery,
            feed,
            public: PublicFiles::new(tls, &clock),
        };
        this.publish(now);
        this
    }

    /// The called cluster, as it is known now.
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        self.snapshot.cluster(&orders()).expect("it is configured")
    }

    /// Discovery says what is so, and the next snapshot is made of it.
    pub(super) fn discover(&mut self, replicas: &[Replica], now: Instant) {
        let listed = replicas.iter().enumerate().filter_map(|(index, replica)| {
            let is_ready = replica.listed()?;
            let (weight, zone) = (replica.plan.weight, replica.plan.zone.map(Arc::from));
            Some(EndpointSettings { weight, zone, is_ready, ..EndpointSettings::new(address(index), ids()) })
        });
        self.feed.confirm(listed.collect::<Vec<_>>().into());
        self.publish(now);
    }

    /// As the publisher does it.
    fn publish(&mut self, now: Instant) {
        let lists = self.discovery.lists();
        let (config, public, outside) = (&self.config, &self.public, &Arc::default());
        let facts = Facts { config, lists: &lists.borrow(), public, outside, identity: None };
        let next = Arc::new(publish::build(&self.snapshot, &facts, now));
        let previous = std::mem::replace(&mut self.snapshot, next);
        let endpoints = |snapshot: &Snapshot| {
            snapshot.cluster(&orders()).map(|cluster| cluster.endpoints.clone()).unwrap_or_default()
        };
        let kept = endpoints(&self.snapshot);
        for gone in endpoints(&previous) {
            if !kept.iter().any(|kept| Arc::ptr_eq(&kept.runtime, &gone.runtime)) {
                gone.runtime.is_removed.store(true, Relaxed);
            }
        }
        for endpoint in kept {
            if self.ledger.find(&endpoint).is_none() {
                let replica = replica_at(endpoint.address());
                self.ledger.known.push(Known::new(endpoint, replica));
            }
        }
    }
}

/// A source that is told, without a runtime: it hands out its feed.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Feed>>>);

impl Sources for Told {
    fn source(&self, _cluster: &ClusterSettings) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}

impl Source for Told {
    fn start(self: Box<Self>, feed: Feed) -> Option<Running> {
        feed.confirm(EndpointList::from([]));
        *self.0.lock().unwrap() = Some(feed);
        None
    }
}
