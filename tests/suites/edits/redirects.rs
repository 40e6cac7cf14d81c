//! Callers that are sent elsewhere.

use http::{Method, StatusCode};
use outrider::model::flag::ResponseFlag;

use super::{Edited, VERSIONS};
use crate::harness::{Client, TestMesh, app::nobody, body, client::request, eventually};

#[tokio::test]
async fn a_location_is_what_was_asked_for_but_for_what_the_route_says() {
    let routes = "routes: [\
        {path_prefix: /tls, redirect: {scheme: https, status: 301}}, \
        {path_prefix: /host, redirect: {host: New.Example, port: 8443, status: 307}}, \
        {path_prefix: /old, redirect: {path_prefix: /new, status: 308}}, \
        {path: /one, redirect: {path: /two, status: 303}}, \
        {path_prefix: /plain, redirect: {host: new.example}}]";
    let mesh = Edited::new("", routes).await;
    for version in VERSIONS {
        for (path, host, status, location) in [
            ("/tls/a?q=1", "Orders:8080", 301, "https://orders/tls/a?q=1"),
            ("/host", "orders", 307, "http://new.example:8443/host"),
            ("/old/./%78?q", "orders:8080", 308, "http://orders:8080/new/x?q"),
            ("/old", "orders", 308, "http://orders/new"),
            ("/one", "orders", 303, "http://orders/two"),
            ("/plain", "orders", 302, "http://new.example/plain"),
        ] {
            let came = mesh.get(version, path, &[("host", host)]).await;
            assert_eq!((came.status.as_u16(), came.all("location")), (status, vec![location]), "{path}");
            assert_eq!((&*came.text, came.all("x-outrider-reason")), ("", vec![]), "{path}");
        }
        let refused = mesh.get(version, "/old/..%2fx", &[]).await;
        assert_eq!((refused.status, refused.all("location")), (StatusCode::BAD_REQUEST, vec![]));
    }
    assert_eq!(mesh.app.count(), 0);
}

#[tokio::test]
async fn it_takes_no_endpoint_is_no_failure_and_gets_the_fields_that_its_route_says() {
    let mesh = TestMesh::new();
    let keys = "routes: [{path_prefix: /old, redirect: {path_prefix: /new}, response_headers: {\
                set: [{name: x-by, value: route}, {name: location, value: 'http://evil.example/'}]}, \
                rate_limits: [{requests: 3, per: 24h}]}]";
    let web = mesh.caller(&[nobody()], keys).await;
    let mut client = Client::http1(web.address()).await;
    for (method, text) in [(Method::GET, ""), (Method::POST, "a body that nobody reads"), (Method::HEAD, "")]
    {
        let answer = client.send(request(method, "/old/1", body::full(text))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND);
        assert_eq!(answer.headers()["location"], "http://orders/new/1");
        assert_eq!(answer.headers()["x-by"], "route");
        assert_eq!(body::text(answer.into_body()).await, "");
    }
    let limited = client.get("/old/1").await.unwrap();
    assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
    let counts = web.cluster("orders");
    let redirected = || counts.runtime.counts.by_class[3].load(std::sync::atomic::Ordering::Relaxed);
    eventually("three are counted", || redirected() == 3).await;
    let failed: Vec<_> = ResponseFlag::ALL.iter().filter(|flag| web.flagged(**flag) > 0).collect();
    assert_eq!(format!("{failed:?}"), "[RL]");
}
