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
    balance::{self, Tried},
    config, detect,
    headers::{forwarded, framing, hop_by_hop},
    model::{
        Cluster, ClusterName, Endpoint, EndpointSettings, Generation, Settings, Snapshot,
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
            settings: EndpointSettings { address, spiffe_ids: Arc::from([]) },
            runtime: Arc::new(EndpointRuntime::new(now)),
            client: None,
        })
    };
    Arc::new(Cluster {
        settings: Arc::clone(settings.clusters.first().unwrap()),
        limits: Arc::clone(&settings.limits),
        endpoints: (0..endpoints).map(endpoint).collect(),
        runtime: Arc::new(ClusterRuntime::new(now)),
        public: None,
    })
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

fn balancing(c: &mut Criterion) {
    let (now, settings) = (Instant::now(), settings());
    for endpoints in [2, 100] {
        let cluster = cluster(&settings, endpoints, now);
        let mut rng = fastrand::Rng::with_seed(1);
        c.bench_function(&format!("balance/peak_ewma/{endpoints}"), |b| {
            b.iter(|| balance::pick(black_box(&cluster), &Tried::default(), now, &mut rng));
        });
    }
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
                forwarded::outbound(headers, &mut rng);
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
