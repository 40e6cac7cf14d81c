//! What each request decides, alone and without I/O: `cargo bench --workspace --bench decisions`.
//!
//! For comparing two versions on one machine; how a whole sidecar does is `bench/`'s to say.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::unwrap_used, reason = "what fails here is the benchmark")]

use std::{hint::black_box, path::Path, sync::Arc, time::Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Request, header};
use outrider::{
    balance::{self, Ask, Tried},
    config, detect,
    headers::{forwarded, framing, hop_by_hop},
    model::{
        Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings, Generation, Settings, Snapshot,
        balance::Balance,
        forwarded::ForwardedSettings,
        maglev::Maglev,
        runtime::{ClusterRuntime, EndpointRuntime},
    },
    resilience::retry_budget,
    route,
};

const CONFIG: &str = r#"
service: bench
trust_domain: bench.local
state_dir: /tmp
identity: { file: { certificate: c.pem, key: k.pem, bundle: b.pem } }
outbound: [{ name: calls, listen: "127.0.0.1:1" }]
clusters:
  - { name: stock, authorities: [stock, "stock.default.svc:8080"], endpoints: [{ address: "10.0.0.1:1" }], spiffe_ids: ["spiffe://bench.local/stock"] }
"#;

fn settings() -> Arc<Settings> {
    Arc::new(config::parse(CONFIG, Path::new("/")).unwrap())
}

fn cluster(settings: &Settings, endpoints: u8, now: Instant) -> Arc<Cluster> {
    let endpoint = |index: u8| {
        let address = ([10, 0, 0, index], 1).into();
        Arc::new(Endpoint {
            settings: EndpointSettings::new(address, Arc::from([])),
            runtime: Arc::new(EndpointRuntime::new(now)),
            client: None,
        })
    };
    let first = Arc::clone(settings.clusters.first().unwrap());
    let endpoints = (0..endpoints).map(endpoint).collect();
    let runtime = Arc::new(ClusterRuntime::new(now));
    Arc::new(Cluster::new(first, Arc::clone(&settings.limits), endpoints, runtime))
}

fn headers() -> HeaderMap {
    let fields = [
        ("host", "stock.default.svc:8080"),
        ("user-agent", "bench/1"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-request-id", "0af76519-16cd-43dd-8448-eb211c80319c"),
        ("authorization", "Bearer abcdefghijklmnopqrstuvwxyz"),
    ];
    fields.into_iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

/// The same cluster, balanced in another way, with weights from 1 to `weights`.
fn balanced(cluster: &Cluster, balance: Balance, weights: u32) -> Cluster {
    let settings = Arc::new(ClusterSettings { balance, ..ClusterSettings::clone(&cluster.settings) });
    let endpoints = (0..).zip(&cluster.endpoints).map(|(index, endpoint)| {
        let settings = EndpointSettings { weight: 1 + index % weights, ..endpoint.settings.clone() };
        Arc::new(Endpoint { settings, runtime: Arc::clone(&endpoint.runtime), client: None })
    });
    let (limits, runtime) = (Arc::clone(&cluster.limits), Arc::clone(&cluster.runtime));
    Cluster::new(settings, limits, endpoints.collect(), runtime)
}

fn balancing(c: &mut Criterion) {
    let (now, settings) = (Instant::now(), settings());
    for endpoints in [2, 100] {
        let cluster = cluster(&settings, endpoints, now);
        let ways = [
            ("peak_ewma", Balance::PeakEwma, 1),
            ("peak_ewma weighted", Balance::PeakEwma, 7),
            ("least_request", Balance::LeastRequest, 1),
            ("round_robin", Balance::RoundRobin, 1),
            ("round_robin weighted", Balance::RoundRobin, 7),
            ("random weighted", Balance::Random, 7),
            ("maglev", Balance::Maglev, 1),
        ];
        for (name, balance, weights) in ways {
            let cluster = balanced(&cluster, balance, weights);
            let (mut rng, tried) = (fastrand::Rng::with_seed(1), Tried::default());
            c.bench_function(&format!("balance/{name}/{endpoints}"), |b| {
                b.iter(|| {
                    let affinity = (balance == Balance::Maglev).then(|| rng.u64(..));
                    let ask = Ask { affinity, ..Ask::plain(&tried) };
                    balance::pick(black_box(&cluster), ask, now, &mut rng)
                });
            });
            c.bench_function(&format!("balance/lineup {name}/{endpoints}"), |b| {
                b.iter(|| balance::lineup::build(black_box(&cluster), now));
            });
        }
    }
    let cluster = balanced(&cluster(&settings, 100, now), Balance::Maglev, 1);
    c.bench_function("balance/maglev table/100", |b| b.iter(|| Maglev::new(black_box(&cluster.endpoints))));
}

fn routing(c: &mut Criterion) {
    let (now, settings) = (Instant::now(), settings());
    let mut snapshot = Snapshot::empty(Arc::new(Generation::first(Arc::clone(&settings))));
    for index in 0..1000 {
        let name = ClusterName::new(&format!("cluster-{index}"));
        snapshot.clusters.insert(name.clone(), cluster(&settings, 1, now));
        snapshot.routes.insert(format!("cluster-{index}.default.svc:8080").into(), name);
    }
    c.bench_function("route/1000 clusters", |b| {
        b.iter(|| route::find(black_box(&snapshot), "Cluster-500.default.svc:8080", None).is_some());
    });
}

fn fields(c: &mut Criterion) {
    let mut request = Request::new(());
    *request.headers_mut() = headers();
    let (head, ()) = request.into_parts();
    c.bench_function("headers/judge", |b| {
        b.iter(|| {
            framing::fits(&head.headers, 1, 100, 65_536) && framing::check_request(black_box(&head)).is_ok()
        });
    });
    let mut rng = fastrand::Rng::with_seed(1);
    c.bench_function("headers/rewrite", |b| {
        b.iter_batched_ref(
            headers,
            |headers| {
                hop_by_hop::strip_request(headers);
                headers.remove(header::EXPECT);
                forwarded::outbound(headers, ForwardedSettings::default(), None, &mut rng);
            },
            criterion::BatchSize::SmallInput,
        );
    });
}

fn retrying(c: &mut Criterion) {
    let now = Instant::now();
    let runtime = ClusterRuntime::new(now);
    c.bench_function("retry_budget/record", |b| {
        b.iter(|| retry_budget::record_request(black_box(&runtime.retry_budget), now));
    });
    c.bench_function("retry_budget/take", |b| {
        b.iter(|| retry_budget::try_take(black_box(&runtime.retry_budget), 0.2, 10, now));
    });
}

fn detecting(c: &mut Criterion) {
    let head = b"GET /api/v1/orders/4711?expand=items HTTP/1.1\r\nhost: stock.default.svc:8080\r\nuser-agent: bench/1\r\n\
        accept: */*\r\naccept-encoding: gzip, br\r\n\r\n";
    c.bench_function("detect/client/GET", |b| b.iter(|| detect::client(black_box(head), detect::MAX_BYTES)));
    // The dearest bytes: nothing but their number decides.
    let endless = [b"get /".to_vec(), vec![b'a'; detect::MAX_BYTES]].concat();
    c.bench_function("detect/client/endless line", |b| {
        b.iter(|| detect::client(black_box(&endless), detect::MAX_BYTES));
    });
}

criterion_group!(benches, balancing, routing, detecting, fields, retrying);
criterion_main!(benches);
