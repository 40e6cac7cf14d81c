//! Metrics go to a collector: every interval, once more at the end, wherever the newest configuration says.

use std::{
    os::unix::fs::DirBuilderExt as _,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::any_value::Value,
    metrics::v1::{metric::Data, number_data_point},
};
use outrider::{
    net::TcpNet,
    telemetry::{Finisher, export::Dialing, metrics::send},
};
use prost::Message as _;

use super::metrics;
use crate::{
    harness::{HttpApp, Sidecar, TestMesh, app::nobody, body, client::call, eventually},
    processes::{
        DEADLINE,
        authority::{Authority, DOMAIN, write},
        process::{Process, program},
        until,
    },
};

/// A collector that answers every message with the same status.
struct Collector {
    app: HttpApp,
    messages: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

impl Collector {
    async fn answering(status: StatusCode) -> Self {
        let messages: Arc<Mutex<Vec<ExportMetricsServiceRequest>>> = Arc::default();
        let into = Arc::clone(&messages);
        let app = HttpApp::start(move |request: Request<Incoming>| {
            let into = Arc::clone(&into);
            async move {
                assert_eq!(request.uri().path(), "/v1/metrics");
                let bytes = request.into_body().collect().await?.to_bytes();
                into.lock().unwrap().push(ExportMetricsServiceRequest::decode(bytes)?);
                Ok(Response::builder().status(status).body(body::empty())?)
            }
        });
        Self { app: app.await, messages }
    }

    fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// Requests of all edges, as the newest message has it.
    fn requests(&self) -> i64 {
        let messages = self.messages.lock().unwrap();
        let Some(newest) = messages.last() else { return 0 };
        let scopes = newest.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        let metrics = scopes.flat_map(|scope| &scope.metrics);
        let points = metrics.filter(|metric| metric.name == "outrider_edge_requests").flat_map(|metric| {
            let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
            sum.data_points.iter().map(|point| match point.value {
                Some(number_data_point::Value::AsInt(value)) => value,
                other => panic!("{other:?}"),
            })
        });
        points.sum()
    }

    /// An attribute of the resource of each message.
    fn resources(&self, name: &str) -> Vec<String> {
        let messages = self.messages.lock().unwrap();
        let resources = messages.iter().flat_map(|message| &message.resource_metrics);
        let texts = resources.filter_map(|metrics| {
            let attributes = &metrics.resource.as_ref()?.attributes;
            let found = attributes.iter().find(|attribute| attribute.key == name)?;
            let Value::StringValue(text) = found.value.clone()?.value? else { panic!("{found:?}") };
            Some(text)
        });
        texts.collect()
    }
}

fn yaml(telemetry: &str, listen: &str, cluster: &str) -> String {
    format!("{telemetry}\noutbound: [{{name: out, listen: '{listen}'}}]\nclusters: [{cluster}]")
}

fn to(collector: std::net::SocketAddr, interval: &str) -> String {
    format!(
        "telemetry: {{metrics: {{endpoint: 'http://{collector}', protocol: http, interval: {interval}, \
         timeout: 100ms}}}}"
    )
}

struct Sent {
    mesh: TestMesh,
    _orders: (Sidecar, HttpApp),
    web: Sidecar,
    cluster: String,
    sending: Finisher,
}

impl Sent {
    async fn start(telemetry: &str) -> Self {
        let mesh = TestMesh::new();
        let app = HttpApp::named("orders").await;
        let orders = mesh.callee("orders", app.address(), "").await;
        let cluster = TestMesh::cluster("orders", &[orders.address()], "");
        let web = mesh.start("web", &yaml(telemetry, "127.0.0.1:0", &cluster)).await;
        let (snapshots, exports) = (web.app().snapshots.clone(), &web.app().observer.exports);
        let sending = send(metrics(&web), snapshots, &Dialing::by(&TcpNet), exports);
        Self { mesh, _orders: (orders, app), web, cluster, sending }
    }

    async fn call(&self) {
        assert_eq!(call(self.web.address(), Method::GET).await.0, StatusCode::OK);
    }

    /// Points sent, refused, and not taken.
    fn counts(&self) -> [u64; 3] {
        let counts = &self.web.app().observer.exports.metrics;
        [&counts.sent, &counts.dropped_rejected, &counts.dropped_failed]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_collector_is_told_again_and_again_who_it_hears_and_what_is_counted() {
    let collector = Collector::answering(StatusCode::OK).await;
    let sent = Sent::start(&to(collector.app.address(), "100ms")).await;
    for count in 1..=3 {
        sent.call().await;
        eventually("the request is told", || collector.requests() == count).await;
    }
    let instances = collector.resources("service.instance.id");
    assert!(instances.len() >= 3 && instances[0].len() == 36, "{instances:?}");
    assert!(instances.iter().all(|instance| *instance == instances[0]), "{instances:?}");
    assert!(collector.resources("service.name").iter().all(|name| name == "web"));
    eventually("what was taken is counted", || sent.counts()[0] > 300).await;
    assert_eq!(sent.counts()[1..], [0, 0]);
}

#[tokio::test]
async fn at_the_end_the_last_counts_are_sent_and_nothing_after() {
    let collector = Collector::answering(StatusCode::OK).await;
    let sent = Sent::start(&to(collector.app.address(), "1h")).await;
    sent.call().await;
    eventually("it is over", || super::scrape(&sent.web).sum("outrider_edge_requests_total", &[]) == 1.0)
        .await;
    assert_eq!(collector.count(), 0);
    sent.sending.finish(Duration::from_secs(20)).await;
    assert_eq!((collector.count(), collector.requests()), (1, 1));
    sent.sending.finish(Duration::from_secs(20)).await;
    assert_eq!(collector.count(), 1);
}

#[tokio::test]
async fn another_configuration_sends_elsewhere_or_nowhere() {
    let [first, second] = [(); 2].map(|()| Collector::answering(StatusCode::OK));
    let (first, second) = (first.await, second.await);
    let mut sent = Sent::start(&to(first.app.address(), "100ms")).await;
    eventually("the first hears", || first.count() > 0).await;
    let listen = sent.web.address().to_string();
    let elsewhere = yaml(&to(second.app.address(), "100ms"), &listen, &sent.cluster);
    sent.mesh.reload(&mut sent.web, "web", &elsewhere).await.unwrap();
    sent.call().await;
    eventually("the second hears", || second.requests() == 1).await;
    assert_eq!(first.requests(), 0, "the first heard nothing of it");
    sent.mesh.reload(&mut sent.web, "web", &yaml("", &listen, &sent.cluster)).await.unwrap();
    sent.sending.finish(Duration::from_secs(20)).await;
    let heard = second.count();
    sent.call().await;
    assert_eq!(second.count(), heard);
}

#[tokio::test]
async fn what_no_collector_takes_is_counted_and_requests_go_on() {
    let refusing = Collector::answering(StatusCode::BAD_REQUEST).await;
    let sent = Sent::start(&to(refusing.app.address(), "100ms")).await;
    eventually("it is refused", || sent.counts()[1] > 100).await;
    sent.call().await;
    let away = Sent::start(&to(nobody(), "100ms")).await;
    eventually("nobody took it", || away.counts()[2] > 100).await;
    away.call().await;
    assert_eq!((sent.counts()[0], away.counts()[0]), (0, 0));
    let told = super::scrape(&away.web);
    let failed = [("signal", "metrics"), ("reason", "failed")];
    assert!(told.sum("outrider_export_dropped_total", &failed) > 100.0);
}

#[tokio::test]
async fn a_process_that_is_told_to_stop_sends_its_metrics_before_it_ends() {
    let collector = Collector::answering(StatusCode::OK).await;
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    std::fs::DirBuilder::new().mode(0o700).create(&own).unwrap();
    let authority = Authority::new(&folder.path().join("ca"));
    authority.certify("web", &own);
    write(&own, "bundle.pem", &authority.bundle());
    let config = format!(
        "service: web\ntrust_domain: {DOMAIN}\nstate_dir: state\n\
         identity: {{file: {{certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}}}}\n\
         admin: {{socket: admin.sock, listen: none}}\n\
         outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n{}\n",
        to(collector.app.address(), "1h"),
    );
    write(&own, "outrider.yaml", &config);
    let arguments = ["run".into(), "--config".into(), own.join("outrider.yaml").into_os_string()];
    let mut process = Process::start("web", &program("outrider"), arguments, &own);
    until("it is ready", async || {
        let answer = outrider::admin::call(&own.join("admin.sock"), Method::GET, "/status").await;
        answer.is_ok_and(|answer| answer.body["waiting_for"] == serde_json::json!([]))
    })
    .await;
    assert_eq!(collector.count(), 0);
    process.terminate();
    assert!(process.exited(DEADLINE).await.success());
    assert_eq!((collector.count(), collector.resources("service.name")), (1, vec!["web".to_owned()]));
}
