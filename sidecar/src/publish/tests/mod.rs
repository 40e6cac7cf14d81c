mod addresses;
mod limits;

use outrider_certs::trust_bundle::TrustBundles;

use super::*;
use crate::{
    discovery::programmable::Programmable,
    identity::{
        fixed::{Fixed, FixedHandle},
        source::Material,
        start_with,
        testing::{ORDERS, Root, bundle, epoch, eventually, tls_settings},
        tls_configs::TlsBase,
    },
    model::{
        Settings,
        cluster::{AppProtocol, EndpointSource},
        fixture,
        intercept::{Mode, Own},
        settings::Limits,
        transport::{HttpVersion, PeerKind, Transport},
    },
};

const A: &str = "spiffe://test.mesh/a";
const B: &str = "spiffe://test.mesh/b";

fn endpoint(port: u16, id: &str) -> EndpointSettings {
    let address = SocketAddr::from(([10, 0, 0, 1], port));
    EndpointSettings::new(address, [SpiffeId::parse(id).unwrap()].into())
}

fn fixed(name: &str, endpoints: &[EndpointSettings]) -> Arc<ClusterSettings> {
    let source = EndpointSource::Static(endpoints.to_vec());
    Arc::new(ClusterSettings { source, ..fixture::settings(name) })
}

/// What follows from static clusters alone; marks what is gone, as the loop does.
fn next(previous: &Snapshot, clusters: &[Arc<ClusterSettings>]) -> Snapshot {
    next_of(previous, clusters, fixture::config(clusters))
}

/// The same where connections are intercepted.
fn intercepted(previous: &Snapshot, clusters: &[Arc<ClusterSettings>]) -> Snapshot {
    let mut settings = fixture::config(clusters);
    settings.bootstrap.intercept = Some(fixture::intercept(Mode::Redirect, Own::Uid(1)));
    next_of(previous, clusters, settings)
}

fn next_of(previous: &Snapshot, clusters: &[Arc<ClusterSettings>], settings: Settings) -> Snapshot {
    let clock = Clock::simulated(epoch(), 7);
    let mut discovery = Discovery::new(Arc::new(Programmable::new()), &clock);
    discovery.reconcile(clusters);
    let lists = discovery.lists();
    let config = Arc::new(previous.config.next(Arc::new(settings)));
    let public = public_files(&clock);
    let facts = Facts {
        config: &config,
        lists: &lists.borrow(),
        public: &public,
        outside: &Arc::default(),
        identity: None,
    };
    let next = build(previous, &facts, clock.now());
    retire(previous, &next);
    next
}

fn public_files(clock: &Clock) -> PublicFiles {
    PublicFiles::new(TlsBase::new(&tls_settings(), clock).unwrap(), clock)
}

fn at(snapshot: &Snapshot, index: usize) -> Arc<Endpoint> {
    let cluster = snapshot.cluster(&ClusterName::new("orders")).unwrap();
    Arc::clone(&cluster.endpoints[index])
}

#[tokio::test(start_paused = true)]
async fn authorities_become_routes_to_clusters_that_exist() {
    let named = |name: &str, authorities: &[&str]| {
        let authorities = authorities.iter().map(|&authority| authority.to_owned()).collect();
        Arc::new(ClusterSettings { authorities, ..fixture::settings(name) })
    };
    let clusters = [named("orders", &["orders", "orders:8080"]), named("inbound/http", &[])];
    let snapshot = next(&fixture::snapshot(), &clusters);
    assert_eq!(snapshot.version, 1);
    assert_eq!(snapshot.routes.len(), 2);
    assert_eq!(snapshot.routes["orders:8080"].as_str(), "orders");
    assert!(snapshot.routes.values().all(|name| snapshot.cluster(name).is_some()));
    assert!(snapshot.cluster(&ClusterName::new("inbound/http")).is_some());
}

#[tokio::test(start_paused = true)]
async fn counters_are_carried_over_while_an_endpoint_stays() {
    let first = next(&fixture::snapshot(), &[fixed("orders", &[endpoint(1, A), endpoint(2, A)])]);
    let second = next(&first, &[fixed("orders", &[endpoint(3, A), endpoint(2, A)])]);
    assert!(Arc::ptr_eq(&at(&first, 1), &at(&second, 1)));
    let runtime =
        |snapshot: &Snapshot| Arc::clone(&snapshot.cluster(&ClusterName::new("orders")).unwrap().runtime);
    assert!(Arc::ptr_eq(&runtime(&first), &runtime(&second)));
    assert!(at(&first, 0).runtime.is_removed.load(Ordering::Acquire));
    assert!(!at(&second, 0).runtime.is_removed.load(Ordering::Acquire));
    assert!(!at(&second, 1).runtime.is_removed.load(Ordering::Acquire));
}

#[tokio::test(start_paused = true)]
async fn an_address_with_another_identity_starts_afresh() {
    let first = next(&fixture::snapshot(), &[fixed("orders", &[endpoint(1, A)])]);
    let second = next(&first, &[fixed("orders", &[endpoint(1, B)])]);
    assert!(!Arc::ptr_eq(&at(&first, 0).runtime, &at(&second, 0).runtime));
    assert!(at(&first, 0).runtime.is_removed.load(Ordering::Acquire));
    assert!(!at(&second, 0).runtime.is_removed.load(Ordering::Acquire));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_back_starts_afresh() {
    let first = next(&fixture::snapshot(), &[fixed("orders", &[endpoint(1, A)])]);
    let second = next(&first, &[fixed("orders", &[])]);
    let third = next(&second, &[fixed("orders", &[endpoint(1, A)])]);
    assert!(!Arc::ptr_eq(&at(&first, 0).runtime, &at(&third, 0).runtime));
    assert!(!at(&third, 0).runtime.is_removed.load(Ordering::Acquire));
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_a_cluster_that_goes_are_removed() {
    let first = next(&fixture::snapshot(), &[fixed("orders", &[endpoint(1, A)])]);
    let second = next(&first, &[]);
    assert!(second.clusters.is_empty() && second.routes.is_empty());
    assert!(at(&first, 0).runtime.is_removed.load(Ordering::Acquire));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_listed_twice_is_one() {
    let snapshot = next(&fixture::snapshot(), &[fixed("orders", &[endpoint(1, A), endpoint(1, A)])]);
    assert_eq!(snapshot.clusters[0].endpoints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_changes_is_the_same_object() {
    let clusters = [fixed("orders", &[endpoint(1, A)]), fixed("users", &[endpoint(2, A)])];
    let first = next(&fixture::snapshot(), &clusters);
    let changed = [fixed("orders", &[endpoint(1, A)]), fixed("users", &[endpoint(3, A)])];
    let second = next(&first, &changed);
    assert_eq!(second.version, 2);
    assert!(Arc::ptr_eq(&first.clusters[0], &second.clusters[0]));
    assert!(!Arc::ptr_eq(&first.clusters[1], &second.clusters[1]));
}

#[tokio::test(start_paused = true)]
async fn another_transport_to_the_same_address_is_another_endpoint() {
    let reached = |transport| {
        let orders = ClusterSettings::clone(&fixed("orders", &[endpoint(1, A)]));
        Arc::new(ClusterSettings { transport, ..orders })
    };
    let plain = || reached(Transport::Plain(AppProtocol::Http1));
    let first = next(&fixture::snapshot(), &[plain()]);
    let same = next(&first, &[plain()]);
    assert!(Arc::ptr_eq(&at(&first, 0).runtime, &at(&same, 0).runtime));
    let second = next(&first, &[reached(Transport::Mesh(PeerKind::Standard, HttpVersion::Http1))]);
    assert!(!Arc::ptr_eq(&at(&first, 0).runtime, &at(&second, 0).runtime), "a pool would share connections");
    assert!(at(&first, 0).runtime.is_removed.load(Ordering::Acquire));
    assert!(Arc::ptr_eq(&first.clusters[0].runtime, &second.clusters[0].runtime), "the cluster counts on");
}

fn material(root: &Root) -> Material {
    let bundles = Arc::new(TrustBundles::single(bundle(&[root], 1)));
    Material { svid: root.day_svid(ORDERS), bundles }
}

/// A publisher over settings that can change, endpoints that can be set, and a fixed identity.
struct Bench {
    config: watch::Sender<Arc<Generation>>,
    sources: Programmable,
    identity: FixedHandle,
    snapshots: Snapshots,
    readiness: Readiness,
    root: Root,
}

impl Bench {
    fn start(clusters: Vec<Arc<ClusterSettings>>) -> Self {
        let clock = Clock::simulated(epoch(), 7);
        let (readiness, snapshots, sources) =
            (Readiness::default(), Snapshots::new(fixture::snapshot()), Programmable::new());
        let first = Generation::first(Arc::new(fixture::config(&clusters)));
        let config = watch::Sender::new(Arc::new(first));
        let (source, identity) = Fixed::new(None);
        let started = start_with(Arc::new(source), &tls_settings(), &clock, &readiness).unwrap();
        let inputs = Inputs {
            config: config.subscribe(),
            identity: started.identity,
            sources: Arc::new(sources.clone()),
            public: public_files(&clock),
            outside: watch::Sender::default().subscribe(),
        };
        start(inputs, snapshots.clone(), &clock, &readiness);
        Self { config, sources, identity, snapshots, readiness, root: Root::new("root") }
    }

    fn reload(&self, clusters: &[Arc<ClusterSettings>]) {
        let next = self.config.borrow().next(Arc::new(fixture::config(clusters)));
        self.config.send_replace(Arc::new(next));
    }

    async fn until(&self, what: &str, claim: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        eventually(Duration::from_secs(10), what, || claim(&self.snapshots.load())).await;
        self.snapshots.load()
    }
}

fn watched(name: &str) -> Arc<ClusterSettings> {
    let source = EndpointSource::File { path: "/none".into(), default_spiffe_ids: Arc::from([]) };
    Arc::new(ClusterSettings { source, ..fixture::settings(name) })
}

#[tokio::test(start_paused = true)]
async fn what_the_configuration_names_is_published_before_start_returns() {
    let bench = Bench::start(vec![fixed("orders", &[endpoint(1, A)])]);
    let snapshot = bench.snapshots.load();
    assert_eq!((snapshot.version, snapshot.clusters[0].endpoints.len()), (1, 1));
    assert_eq!(bench.readiness.waiting_for(), ["identity"]);
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_every_clusters_first_answer() {
    let bench = Bench::start(vec![fixed("users", &[]), watched("orders")]);
    bench.identity.replace(material(&bench.root));
    bench.until("the identity", |snapshot| snapshot.identity.is_some()).await;
    assert_eq!(bench.readiness.waiting_for(), ["endpoints"]);
    bench.sources.set(&ClusterName::new("orders"), &[]);
    eventually(Duration::from_secs(1), "ready", || bench.readiness.waiting_for().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_published_at_once_and_a_burst_in_few_snapshots() {
    let bench = Bench::start(vec![watched("orders")]);
    let orders = ClusterName::new("orders");
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.sources.set(&orders, &[endpoint(1, A)]);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(bench.snapshots.load().version, 2, "no wait after a quiet time");
    for port in 2..=1000 {
        bench.sources.set(&orders, &[endpoint(port, A)]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let last = endpoint(1000, A).address;
    let is_last = |snapshot: &Snapshot| at(snapshot, 0).address() == last;
    let snapshot = bench.until("the last endpoint", is_last).await;
    assert!((10..=25).contains(&snapshot.version), "20 a second, not {}", snapshot.version);
}

#[tokio::test(start_paused = true)]
async fn a_new_identity_is_a_new_object_in_the_next_snapshot() {
    let bench = Bench::start(Vec::new());
    bench.identity.replace(material(&bench.root));
    let first = bench.until("an identity", |snapshot| snapshot.identity.is_some()).await;
    let first = first.identity.clone().unwrap();
    bench.identity.replace(material(&bench.root));
    let is_new = |snapshot: &Snapshot| !Arc::ptr_eq(snapshot.identity.as_ref().unwrap(), &first);
    bench.until("another identity", is_new).await;
}

#[tokio::test(start_paused = true)]
async fn changed_settings_start_and_stop_sources_and_keep_what_is_known() {
    let bench = Bench::start(vec![watched("orders"), fixed("users", &[endpoint(9, B)])]);
    bench.sources.set(&ClusterName::new("orders"), &[endpoint(1, A)]);
    let has_one = |snapshot: &Snapshot| snapshot.clusters[0].endpoints.len() == 1;
    let before = bench.until("orders' endpoint", has_one).await;
    // Another policy, the same source; users are gone, stock is new.
    let changed = Arc::new(ClusterSettings {
        authorities: vec!["o".into()],
        ..ClusterSettings::clone(&watched("orders"))
    });
    let all = vec![changed, fixed("stock", &[endpoint(5, B)])];
    bench.reload(&all);
    let after = bench.until("the new settings", |snapshot| snapshot.routes.contains_key("o")).await;
    assert!(Arc::ptr_eq(&at(&before, 0), &at(&after, 0)));
    assert!(after.cluster(&ClusterName::new("users")).is_none());
    assert!(before.clusters[1].endpoints[0].runtime.is_removed.load(Ordering::Acquire));
    assert_eq!(after.cluster(&ClusterName::new("stock")).unwrap().endpoints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_timeouts_and_caps_keep_the_connections_and_counters() {
    let first = next(&fixture::snapshot(), &[fixed("orders", &[endpoint(1, A)])]);
    let mut changed = ClusterSettings::clone(&first.clusters[0].settings);
    changed.timeouts.connect = Duration::from_secs(7);
    changed.caps.max_requests = 3;
    let second = next(&first, &[Arc::new(changed)]);
    assert!(Arc::ptr_eq(&at(&first, 0), &at(&second, 0)));
    assert!(Arc::ptr_eq(&first.clusters[0].runtime, &second.clusters[0].runtime));
    assert_eq!(second.clusters[0].settings.caps.max_requests, 3);
}

#[tokio::test(start_paused = true)]
async fn other_limits_are_those_of_every_cluster() {
    let clusters = [fixed("orders", &[endpoint(1, A)])];
    let first = next(&fixture::snapshot(), &clusters);
    let limits = Arc::new(Limits { header_count: 7, ..fixture::limits() });
    let settings = Settings { limits, ..fixture::config(&clusters) };
    let config = Arc::new(first.config.next(Arc::new(settings)));
    let (lists, public) = (Lists::default(), public_files(&Clock::simulated(epoch(), 7)));
    let second = build(
        &first,
        &Facts { config: &config, lists: &lists, public: &public, outside: &Arc::default(), identity: None },
        Instant::now(),
    );
    assert_eq!(second.clusters[0].limits.header_count, 7);
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_waits_for_the_first_answer_of_a_new_clusters_source() {
    let bench = Bench::start(vec![fixed("users", &[endpoint(9, B)])]);
    bench.reload(&[watched("orders")]);
    tokio::time::sleep(WARM_UP / 2).await;
    let before = bench.snapshots.load();
    assert_eq!(before.config.number, 1, "nothing of it is in force");
    assert!(before.cluster(&ClusterName::new("users")).is_some());
    bench.sources.set(&ClusterName::new("orders"), &[endpoint(1, A)]);
    let after = bench.until("the new generation", |snapshot| snapshot.config.number == 2).await;
    assert_eq!(after.cluster(&ClusterName::new("orders")).unwrap().endpoints.len(), 1);
    assert!(after.cluster(&ClusterName::new("users")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_without_an_answer_does_not_hold_up_a_generation_for_ever() {
    let bench = Bench::start(Vec::new());
    let before = tokio::time::Instant::now();
    bench.reload(&[watched("orders")]);
    bench.until("the new generation", |snapshot| snapshot.config.number == 2).await;
    assert!((WARM_UP..WARM_UP + Duration::from_secs(1)).contains(&before.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_two_generations_counts_also_while_one_waits() {
    let bench = Bench::start(vec![fixed("users", &[endpoint(9, B)])]);
    bench.reload(&[watched("orders")]);
    tokio::time::sleep(WARM_UP / 2).await;
    bench.reload(&[fixed("stock", &[endpoint(5, B)])]);
    let after = bench.until("a new generation", |snapshot| snapshot.config.number > 1).await;
    assert_eq!(after.config.number, 3);
    assert_eq!(after.clusters.len(), 1);
}
