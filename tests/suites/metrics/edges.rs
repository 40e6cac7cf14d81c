//! Who calls whom: counted alike by both sidecars of a call, and once.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::scrape;
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    ca::id,
    client::{call, request},
    eventually,
};

const ROUTES: &str = "retry: {max_retries: 0}, routes: [{name: reports, path_prefix: /reports}]";

/// An app that fails where it is asked to, and sends back what it gets elsewhere.
async fn app() -> HttpApp {
    HttpApp::start(async |request: Request<Incoming>| {
        if request.uri().path().ends_with("/broken") {
            let answer = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(answer.body(body::full("0123456789"))?);
        }
        Ok(Response::new(body::forward(request.into_body())))
    })
    .await
}

async fn pair(mesh: &TestMesh, app: &HttpApp) -> (Sidecar, Sidecar) {
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], ROUTES).await;
    (web, orders)
}

/// Requests that ended, over all edges.
fn ended(sidecar: &Sidecar) -> f64 {
    scrape(sidecar).sum("outrider_edge_requests_total", &[])
}

#[tokio::test]
async fn both_sidecars_of_a_call_name_caller_callee_and_route_and_count_alike() {
    let mesh = TestMesh::new();
    let app = app().await;
    let (web, orders) = pair(&mesh, &app).await;
    let mut client = Client::http1(web.address()).await;
    for (path, text) in [("/a", "four"), ("/reports/1", "seven!!"), ("/reports/broken", ""), ("/broken", "")]
    {
        let answer = client.send(request(Method::POST, path, body::full(text))).await.unwrap();
        body::drain(answer.into_body()).await.unwrap();
    }
    eventually("all are over", || ended(&web) == 4.0 && ended(&orders) == 4.0).await;
    let told = scrape(&web);
    let own = [("direction", "outbound"), ("source", "web"), ("destination", "orders")];
    let with = |key, value| [&own[..], &[(key, value)]].concat();
    for route in ["", "reports"] {
        let edge = with("route", route);
        let of_class = |class| [&edge[..], &[("status_class", class)]].concat();
        assert_eq!(told.sum("outrider_edge_requests_total", &of_class("2xx")), 1.0);
        assert_eq!(told.sum("outrider_edge_requests_total", &of_class("5xx")), 1.0);
        assert_eq!(told.sum("outrider_edge_errors_total", &edge), 1.0);
        assert_eq!(told.sum("outrider_edge_duration_seconds_count", &edge), 2.0);
    }
    let bytes = |name: &str, route| told.sum(name, &with("route", route));
    assert_eq!(bytes("outrider_edge_request_bytes_total", ""), 4.0);
    assert_eq!(bytes("outrider_edge_response_bytes_total", ""), 14.0);
    assert_eq!(bytes("outrider_edge_request_bytes_total", "reports"), 7.0);
    assert_eq!(bytes("outrider_edge_response_bytes_total", "reports"), 17.0);
    assert_eq!((told.sum("outrider_edges", &[]), told.series("outrider_edge_errors_total")), (2.0, 2));

    let told = scrape(&orders);
    let caller = id("web");
    let edge = [("direction", "inbound"), ("source", caller.as_str()), ("destination", "inbound/in")];
    assert_eq!(told.sum("outrider_edge_requests_total", &edge), 4.0);
    assert_eq!(told.sum("outrider_edge_errors_total", &edge), 2.0);
    assert_eq!(told.sum("outrider_edge_request_bytes_total", &edge), 11.0);
    assert_eq!(told.sum("outrider_edge_response_bytes_total", &edge), 31.0);
    assert_eq!((told.sum("outrider_edges", &[]), told.series("outrider_edge_errors_total")), (1.0, 1));
}

#[tokio::test]
async fn what_we_answer_ourselves_has_its_flag_and_what_never_occurred_has_no_series() {
    let mesh = TestMesh::new();
    let app = app().await;
    let (web, _orders) = pair(&mesh, &app).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    eventually("it is over", || ended(&web) == 1.0).await;
    assert_eq!(scrape(&web).series("outrider_edge_failures_total"), 0);
    let gone = mesh.caller(&[crate::harness::app::nobody()], ROUTES).await;
    assert_eq!(call(gone.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    eventually("it is over", || ended(&gone) == 1.0).await;
    let told = scrape(&gone);
    assert_eq!(told.series("outrider_edge_failures_total"), 1);
    assert_eq!(told.sum("outrider_edge_failures_total", &[("flag", "UF"), ("destination", "orders")]), 1.0);
    assert_eq!(told.sum("outrider_edge_errors_total", &[]), 1.0);
}

#[tokio::test]
async fn the_edges_of_a_configuration_stay_and_count_on_over_a_reload() {
    let mesh = TestMesh::new();
    let app = app().await;
    let (mut web, orders) = pair(&mesh, &app).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    let cluster = TestMesh::cluster("orders", &[orders.address()], "balance: round_robin");
    let yaml = format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]");
    mesh.reload(&mut web, "web", &yaml).await.unwrap();
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    eventually("both count", || ended(&web) == 2.0).await;
    assert_eq!(scrape(&web).sum("outrider_edges", &[]), 1.0);
}
