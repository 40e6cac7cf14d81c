//! A sidecar's facts made by hand: settings, one snapshot with an identity, counters that moved.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use outrider::{
    admin::{DrainRequests, ReloadRequests, State},
    clock::Clock,
    config,
    drain::Drains,
    identity::tls_configs::TlsBase,
    model::{
        Cluster, Endpoint, Generation, Identity, Settings, Snapshot,
        cluster::EndpointSource,
        controller::ControllerStatus,
        detection::{How, Spoken},
        edge::{Direction, EdgeKey},
        exceptions::{Exception, Matched, Way},
        federation::Freshness,
        flag::ResponseFlag,
        health::Checked,
        health_check::{CheckOutcome, CheckState, LastCheck},
        load::Load,
        rate_limit::RateLimiters,
        reload::ConfigStatus,
        runtime::{ClusterRuntime, EndpointRuntime, Refusal, TlsFacts},
        snapshot::Snapshots,
        status::{IdentityStatus, LookupOutcome},
    },
    readiness::Readiness,
    telemetry::{Insight, Metrics, Observer, ProcessFacts, log},
};
use outrider_certs::{
    SpiffeId, TrustDomain,
    ca::{CaState, NewCa},
    request::KeyPairAndCsr,
    svid::X509Svid,
    trust_bundle::TrustBundles,
};

const CONFIG: &str = "
service: shop
zone: here
trust_domain: demo.outrider
identity: {file: {certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}}
inbound:
  - name: api
    listen: '127.0.0.1:0'
    app: '127.0.0.1:8080'
    rate_limits: [{by: caller, requests: 5}]
    proxy_protocol: {from: [10.1.0.0/24], required: false}
    app_proxy_protocol: v2
outbound: [{name: calls, listen: '127.0.0.1:0', proxy_protocol: {from: ['::1']}}]
intercept: {own: mark, outbound: {except_ports: [3306]}}
controller: {address: 'controller.test:4360', spiffe_id: spiffe://demo.outrider/controller}
clusters:
  - name: orders
    spiffe_ids: [spiffe://demo.outrider/orders]
    endpoints: [{address: '10.0.0.7:4343', zone: here}, {address: '10.0.0.8:4343', weight: 3, ready: false}]
    health_check: {protocol: grpc}
  - {name: stock, spiffe_ids: [spiffe://demo.outrider/stock], endpoints_file: stock.yaml}
  - {name: search, spiffe_ids: [spiffe://demo.outrider/search], dns: {name: search.test., port: 4343}}
  - {name: legacy, tls: none, endpoints: [{address: '192.0.2.7:80'}]}
routes:
  - name: shop
    hosts: [shop.example]
    services: [stock]
    rules:
      - name: canary
        matches: [{path_prefix: /cart, query: [{name: v, value: '2'}]}]
        clusters: [{name: orders, weight: 9}, {name: stock}]
        sticky: {cookie: user}
        request_headers: {set: [{name: x-api-key, value: sesame}]}
        rewrite: {path_prefix: /v2}
tcp_routes:
  - {name: old, services: [legacy], ports: [80], snis: ['*.old.example'], clusters: [{name: legacy}]}
";

/// The exception `probe`.
const PROBE: usize = outrider::model::listener::Exception::Probe as usize;

/// A process of which only the facts exist.
pub(crate) fn state(log: Option<log::Control>) -> Arc<State> {
    observed(log).0
}

/// The same, and what its requests tell.
pub(crate) fn observed(log: Option<log::Control>) -> (Arc<State>, Arc<Observer>) {
    let clock = Clock::system();
    let settings = Arc::new(config::parse(CONFIG, Path::new("/etc/outrider")).unwrap());
    let config = Arc::new(Generation::first(Arc::clone(&settings)));
    let snapshots = Snapshots::new(snapshot(&config, &clock));
    let api = &config.listeners["api"].runtime;
    api.accepted.store(3, Ordering::Relaxed);
    api.active.store(2, Ordering::Relaxed);
    api.refuse(Refusal::Plaintext);
    api.count_unrouted(ResponseFlag::NR);
    let intercepted = &config.listeners["intercept-inbound"].runtime;
    intercepted.exceptions[PROBE].connections.store(2, Ordering::Relaxed);
    intercepted.exceptions[PROBE].sent_bytes.store(300, Ordering::Relaxed);
    api.detections.record(Some(Spoken::Opaque), How::Server, Duration::from_micros(700));
    let web = api.peers.of(&id("web"));
    web.requests.fetch_add(5, Ordering::Relaxed);
    web.set_tls(facts("web"));

    let (drain, readiness, observer) = (Drains::default(), Readiness::default(), observer());
    let identity = Arc::new(IdentityStatus::default());
    identity.renewals.succeed(clock.wall());
    let partner = identity.federation.of(&TrustDomain::parse("partner.example").unwrap());
    partner.confirm(Freshness { confirmed_at: Some(clock.wall()), stale_after: Duration::from_secs(60) });
    let status = Arc::new(ConfigStatus::new("5eed", clock.wall()));
    let (controller, wanted) = (Arc::new(ControllerStatus::new(clock.now())), Arc::default());
    controller.hear(clock.now());
    let process = ProcessFacts {
        service: settings.bootstrap.service.clone(),
        trust_domain: settings.bootstrap.trust_domain.to_string(),
        started: clock.wall(),
        identity: Arc::clone(&identity),
        config: Arc::clone(&status),
        clock: clock.clone(),
        drain: drain.clone(),
        readiness: readiness.clone(),
        load: Arc::new(Load::new(1000, Some(1 << 30))),
        passed: Arc::default(),
        observer: Arc::clone(&observer),
        controller: Arc::clone(&controller),
        wanted: Arc::clone(&wanted),
    };
    process.passed.set(vec![(Exception { way: Way::Outbound, matched: Matched::Port(3306), mark: 1 }, 4096)]);
    let state = State {
        prober: outrider::admin::Prober::by(&outrider::net::TcpNet),
        metrics: Metrics::new(snapshots.clone(), process),
        snapshots,
        identity,
        readiness,
        drain,
        drain_requests: DrainRequests::default(),
        reload_requests: ReloadRequests::new().0,
        config: status,
        observer: Observer::new().0,
        insight: Insight::new(&clock),
        controller,
        wanted,
        log,
        clock,
    };
    (Arc::new(state), observer)
}

/// A route whose name wants escaping.
pub(crate) const ODD_ROUTE: &str = "a\\b \"c\",d\ne=\"f";

/// One edge with four requests, one of which failed.
fn observer() -> Arc<Observer> {
    let (observer, _arriving) = Observer::new();
    let names = [id("web").as_str(), "inbound/api", ODD_ROUTE].map(Arc::from);
    let [source, destination, route] = names;
    let edge = observer.edges.of(&EdgeKey { direction: Direction::Inbound, source, destination, route });
    edge.by_class[2].store(3, Ordering::Relaxed);
    edge.by_class[5].store(1, Ordering::Relaxed);
    edge.by_flag[ResponseFlag::UT as usize].store(1, Ordering::Relaxed);
    edge.failed.store(1, Ordering::Relaxed);
    edge.retries.store(2, Ordering::Relaxed);
    edge.request_bytes.store(100, Ordering::Relaxed);
    edge.response_bytes.store(4000, Ordering::Relaxed);
    for millis in [1, 2, 30] {
        edge.latency.record(Duration::from_millis(millis));
    }
    observer
}

pub(crate) fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://demo.outrider/{name}")).unwrap()
}

fn facts(peer: &str) -> TlsFacts {
    TlsFacts {
        peer: id(peer).as_str().into(),
        version: "TLSv1_3".to_owned(),
        cipher_suite: "TLS13_AES_128_GCM_SHA256".to_owned(),
        key_exchange: "X25519MLKEM768".to_owned(),
        alpn: "outrider-h2/1".to_owned(),
    }
}

fn snapshot(config: &Arc<Generation>, clock: &Clock) -> Snapshot {
    let (now, settings) = (clock.now(), &config.settings);
    let clusters = settings.clusters.iter().map(|settings| {
        let endpoints = match &settings.source {
            EndpointSource::Static(list) => list.clone(),
            EndpointSource::File { .. } | EndpointSource::Dns(_) | EndpointSource::Controller(_) => {
                Vec::new()
            }
        };
        let endpoint =
            |settings| Endpoint { settings, runtime: Arc::new(EndpointRuntime::new(now)), client: None };
        let endpoints = endpoints.into_iter().map(|settings| Arc::new(endpoint(settings))).collect();
        let limits = Arc::clone(&config.settings.limits);
        let limiters = Arc::new(RateLimiters::new(settings, None, now));
        let cluster =
            Cluster::new(Arc::clone(settings), limits, endpoints, Arc::new(ClusterRuntime::new(now)));
        let cluster = Cluster { limiters, zone: config.settings.zone.clone(), ..cluster };
        (settings.name.clone(), Arc::new(cluster))
    });
    let clusters: indexmap::IndexMap<_, _> = clusters.collect();

    let orders = clusters.values().find(|cluster| cluster.name().as_str() == "orders").unwrap();
    let counts = &orders.runtime.counts;
    for millis in [1, 4, 9] {
        counts.record(Some(200), None);
        counts.latency.record(Duration::from_millis(millis));
    }
    counts.record(Some(503), Some(ResponseFlag::UF));
    orders.endpoints[0].runtime.picks.store(4, Ordering::Relaxed);
    orders.endpoints[0].runtime.latency_us.store(1500, Ordering::Relaxed);
    orders.endpoints[0].runtime.set_tls(facts("orders"));
    orders.runtime.checks.count(CheckOutcome::NotServing);
    let health = &orders.endpoints[1].runtime.health;
    health.set_checked(Checked::Unhealthy);
    let last = LastCheck { outcome: CheckOutcome::NotServing, text: "NOT_SERVING".into(), at: now };
    *health.checks.lock().unwrap() = CheckState { contrary: 1, last: Some(last) };
    let stock = clusters.values().find(|cluster| cluster.name().as_str() == "stock").unwrap();
    stock.runtime.discovery.confirm(now);
    let search = clusters.values().find(|cluster| cluster.name().as_str() == "search").unwrap();
    search.runtime.discovery.lookups.set_ttl(Duration::from_secs(30));
    for _ in 0..2 {
        search.runtime.discovery.lookups.count(LookupOutcome::Timeout);
    }
    search.runtime.discovery.fail("no answer in time".to_owned());

    Snapshot {
        version: 7,
        identity: Some(Arc::new(identity(settings, clock))),
        clusters,
        ..Snapshot::empty(Arc::clone(config))
    }
}

fn identity(settings: &Settings, clock: &Clock) -> Identity {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let new = NewCa {
        trust_domain: TrustDomain::parse("demo.outrider").unwrap(),
        root_lifetime: Duration::from_secs(365 * 24 * 3600),
    };
    let ca = Arc::new(CaState::init(&folder.path().join("ca"), &new, now).unwrap());
    let pair = KeyPairAndCsr::generate(&id("shop")).unwrap();
    let issued = ca.issue_by_hand(&id("shop"), pair.csr_pem(), Duration::from_secs(3600), now).unwrap();
    let svid = X509Svid::from_parts(issued.chain, pair.key().clone_key()).unwrap();
    let bundles = Arc::new(TrustBundles::single(ca.bundle().clone()));
    let tls = TlsBase::new(&settings.bootstrap.tls, clock).unwrap().configs(&svid, &bundles).unwrap();
    Identity { svid, bundles, tls }
}
