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
        detection::{How, Spoken},
        exceptions::{Exception, Matched, Way},
        flag::ResponseFlag,
        load::Load,
        reload::ConfigStatus,
        runtime::{ClusterRuntime, EndpointRuntime, Refusal, TlsFacts},
        snapshot::Snapshots,
        status::{IdentityStatus, LookupOutcome},
    },
    readiness::Readiness,
    telemetry::{Metrics, ProcessFacts, log},
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
trust_domain: demo.outrider
identity: {file: {certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}}
inbound: [{name: api, listen: '127.0.0.1:0', app: '127.0.0.1:8080'}]
outbound: [{name: calls, listen: '127.0.0.1:0'}]
intercept: {own: mark, outbound: {except_ports: [3306]}}
clusters:
  - name: orders
    spiffe_ids: [spiffe://demo.outrider/orders]
    endpoints: [{address: '10.0.0.7:4343'}]
  - {name: stock, spiffe_ids: [spiffe://demo.outrider/stock], endpoints_file: stock.yaml}
  - {name: search, spiffe_ids: [spiffe://demo.outrider/search], dns: {name: search.test., port: 4343}}
  - {name: legacy, tls: none, endpoints: [{address: '192.0.2.7:80'}]}
";

/// The exception `probe`.
const PROBE: usize = outrider::model::listener::Exception::Probe as usize;

/// A process of which only the facts exist.
pub(crate) fn state(log: Option<log::Control>) -> Arc<State> {
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

    let (drain, readiness) = (Drains::default(), Readiness::default());
    let identity = Arc::new(IdentityStatus::default());
    identity.renewals.succeed(clock.wall());
    let status = Arc::new(ConfigStatus::new("5eed", clock.wall()));
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
    };
    process.passed.set(vec![(Exception { way: Way::Outbound, matched: Matched::Port(3306), mark: 1 }, 4096)]);
    Arc::new(State {
        metrics: Metrics::new(snapshots.clone(), process),
        snapshots,
        identity,
        readiness,
        drain,
        drain_requests: DrainRequests::default(),
        reload_requests: ReloadRequests::new().0,
        config: status,
        log,
        clock,
    })
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
            EndpointSource::File { .. } | EndpointSource::Dns(_) => Vec::new(),
        };
        let endpoint =
            |settings| Endpoint { settings, runtime: Arc::new(EndpointRuntime::new(now)), client: None };
        let cluster = Cluster {
            settings: Arc::clone(settings),
            limits: Arc::clone(&config.settings.limits),
            endpoints: endpoints.into_iter().map(|settings| Arc::new(endpoint(settings))).collect(),
            runtime: Arc::new(ClusterRuntime::new(now)),
            public: None,
        };
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
