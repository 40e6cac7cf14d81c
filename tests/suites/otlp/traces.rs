//! What a collector gets of which calls.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::*;
use crate::harness::{app::nobody, client::request, eventually};

fn of<'a>(spans: &'a [Span], kind: SpanKind, name: &str, cluster: &str) -> &'a Span {
    let is_it = |span: &&Span| {
        span.kind == kind as i32 && span.name == name && text(&span.attributes, "outrider.cluster") == cluster
    };
    let found: Vec<_> = spans.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{kind:?} {name} {cluster}: {spans:#?}");
    found[0]
}

/// An app that calls `stock` by its own sidecar, and passes the trace on.
async fn passing_on(sidecar: Arc<tokio::sync::OnceCell<SocketAddr>>) -> HttpApp {
    HttpApp::start(move |asked: Request<Incoming>| {
        let sidecar = Arc::clone(&sidecar);
        async move {
            let mut onward = request(Method::GET, "/stock/7", body::full(""));
            onward.headers_mut().insert("host", "stock".parse()?);
            if let Some(context) = asked.headers().get("traceparent") {
                onward.headers_mut().insert("traceparent", context.clone());
            }
            let mut client = Client::http1(*sidecar.get().unwrap()).await;
            let answer = client.send(onward).await?;
            Ok(Response::new(body::full(body::text(answer.into_body()).await)))
        }
    })
    .await
}

#[tokio::test]
async fn one_call_through_three_services_is_one_trace() {
    for protocol in PROTOCOLS {
        let (mesh, collector) = (TestMesh::new(), Collector::start().await);
        let telemetry = telemetry(&collector, protocol, "");
        let stock_app = HttpApp::named("in stock").await;
        let stock_yaml = format!(
            "{telemetry}inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]",
            stock_app.address()
        );
        let stock = mesh.start("stock", &stock_yaml).await;
        let calling = Arc::default();
        let app = passing_on(Arc::clone(&calling)).await;
        let orders_yaml = format!(
            "{telemetry}inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]\n\
             outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
            app.address(),
            TestMesh::cluster("stock", &[stock.address()], ""),
        );
        let orders = mesh.start("orders", &orders_yaml).await;
        calling.set(orders.address_of("out")).unwrap();
        let web_yaml = format!(
            "{telemetry}outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
            TestMesh::cluster("orders", &[orders.address_of("in")], ""),
        );
        let web = mesh.start("web", &web_yaml).await;
        let mut client = Client::http1(web.address()).await;
        let answer = client.get("/items/7?card=secret-4711").await.unwrap();
        assert_eq!(body::text(answer.into_body()).await, "in stock");

        let spans = collector.has(5).await;
        assert_eq!(spans.len(), 5, "{spans:#?}");
        let root = of(&spans, SpanKind::Internal, "GET", "orders");
        let first = of(&spans, SpanKind::Client, "GET", "orders");
        let second = of(&spans, SpanKind::Client, "GET", "stock");
        let servers: Vec<&Span> = spans.iter().filter(|span| span.kind == SpanKind::Server as i32).collect();
        let server =
            |parent: &Span| *servers.iter().find(|span| span.parent_span_id == parent.span_id).unwrap();
        assert!(spans.iter().all(|span| span.trace_id == root.trace_id), "one trace");
        assert_eq!(root.parent_span_id, [0_u8; 0]);
        assert_eq!(first.parent_span_id, root.span_id);
        assert_eq!(second.parent_span_id, server(first).span_id, "as the app passed it on");
        let chain = [root, first, server(first), second, server(second)];
        for pair in chain.windows(2) {
            let (parent, child) = (pair[0], pair[1]);
            // The clocks of two processes are compared as closely as they can be.
            let slack = 100_000_000;
            assert!(child.start_time_unix_nano + slack >= parent.start_time_unix_nano);
            assert!(child.end_time_unix_nano <= parent.end_time_unix_nano + slack);
        }
        assert!(first.start_time_unix_nano >= root.start_time_unix_nano, "of one process: exactly");
        assert!(first.end_time_unix_nano <= root.end_time_unix_nano);
        let said = format!("{spans:?}");
        assert!(!said.contains("secret-4711"), "no query");
        assert_eq!(text(&server(first).attributes, "outrider.peer.spiffe_id"), "spiffe://test.outrider/web");
        let services: Vec<_> =
            collector.got().iter().map(|got| text(&got.resource, "service.name")).collect();
        for service in ["web", "orders", "stock"] {
            assert!(services.iter().any(|found| found == service), "{services:?}");
        }
    }
}

#[tokio::test]
async fn whatever_became_of_an_attempt_its_span_is_found_by_cluster_request_id_and_flag() {
    let (mesh, collector) = (TestMesh::new(), Collector::start().await);
    let yaml = format!(
        "{}outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
        telemetry(&collector, "grpc", ""),
        TestMesh::cluster("orders", &[nobody(), nobody()], "retry: {max_retries: 1}"),
    );
    let web = mesh.start("web", &yaml).await;
    let mut asked = request(Method::GET, "/items/7", body::full(""));
    asked.headers_mut().insert("host", "orders".parse().unwrap());
    asked.headers_mut().insert("x-request-id", "request-7".parse().unwrap());
    let answer = Client::http1(web.address()).await.send(asked).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let spans = collector.has(3).await;
    let kinds = spans.iter().filter(|span| span.kind == SpanKind::Client as i32).count();
    assert_eq!((spans.len(), kinds), (3, 2), "{spans:#?}");
    for span in &spans {
        let said = ["outrider.cluster", "outrider.request_id", "outrider.response_flag"];
        let said = said.map(|name| text(&span.attributes, name));
        assert_eq!(said, ["orders", "request-7", "UF"], "{span:#?}");
    }
    for got in collector.got() {
        assert_eq!(text(&got.resource, "service.instance.id").len(), 36, "{:?}", got.resource);
    }
}

#[tokio::test]
async fn of_what_is_not_sampled_only_failures_are_sent() {
    let collector = Collector::start().await;
    let telemetry = telemetry(&collector, "grpc", "").replace("sample_percent: 100", "sample_percent: 0");
    let bench = Bench::start(&telemetry).await;
    bench.calls(3).await;
    let failing = TestMesh::new();
    let yaml = format!(
        "{telemetry}outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
        TestMesh::cluster("orders", &[nobody()], "retry: {max_retries: 0}"),
    );
    let web = failing.start("lost", &yaml).await;
    let mut client = Client::http1(web.address()).await;
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let spans = collector.has(2).await;
    let services: Vec<_> = collector.got().iter().map(|got| text(&got.resource, "service.name")).collect();
    assert!(services.iter().all(|service| service == "lost"), "{services:?}");
    assert!(spans.iter().all(|span| span.status.as_ref().unwrap().code == 2), "{spans:#?}");
    assert_eq!(bench.counts(), [0; 4]);
}

#[tokio::test]
async fn without_the_section_nothing_is_sent() {
    let bench = Bench::start("").await;
    bench.calls(2).await;
    eventually("requests are over", || {
        bench.web.cluster("orders").runtime.counts.by_class[2].load(Ordering::Relaxed) == 2
    })
    .await;
    assert_eq!(bench.counts(), [0; 4]);
}
