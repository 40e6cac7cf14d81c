//! Calls of gRPC.

use http::{HeaderValue, Method, StatusCode, header};

use super::{Bench, WEB, web_may};
use crate::harness::{
    body,
    client::{field, request},
};

#[tokio::test]
async fn calls_are_allowed_by_service_and_method_and_denied_as_grpc_denies() {
    let mut bench = Bench::new(&web_may("grpc: [shop.Orders/Get, shop.Carts]")).await;
    let mut web = bench.peer(WEB).await;
    for (path, kind, may) in [
        ("/shop.Orders/Get", "application/grpc", true),
        ("/shop.Orders/Get", "application/grpc+proto", true),
        ("/shop.Carts/Anything", "application/grpc", true),
        ("/shop.Orders/Put", "application/grpc", false),
        ("/shop.Orders/get", "application/grpc", false),
        ("/shop.Orders2/Get", "application/grpc", false),
        ("/x/../shop.Admin/Get", "application/grpc", false),
        ("/shop.Orders/Get", "application/json", false),
        ("/shop.Orders/Get", "application/grpc-web", false),
    ] {
        let before = bench.app.count();
        let mut asks = request(Method::POST, path, body::full("\0\0\0\0\0"));
        asks.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let answer = web.send(asks).await.unwrap();
        assert_eq!(bench.app.count() - before, usize::from(may), "{path} {kind}");
        let is_grpc = kind != "application/json" && kind != "application/grpc-web";
        match (may, is_grpc) {
            (true, _) => assert_eq!(answer.status(), StatusCode::OK, "{path}"),
            (false, true) => {
                let told = (answer.status(), field(&answer, "grpc-status"));
                assert_eq!(told, (StatusCode::OK, Some("7")), "{path}");
            }
            (false, false) => assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{kind}"),
        }
        assert_eq!(field(&answer, "x-outrider-reason"), (!may).then_some("not_authorized"));
        drop(body::text(answer.into_body()).await);
        let rule = if may { "web" } else { "denied" };
        assert_eq!(bench.trail().await.authorization.as_deref(), Some(rule));
    }
}

#[tokio::test]
async fn a_get_is_no_call() {
    let bench = Bench::new(&web_may("grpc: [shop.Orders]")).await;
    let mut asks = request(Method::GET, "/shop.Orders/Get", body::empty());
    asks.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    bench.peer(WEB).await.send(asks).await.unwrap();
    assert_eq!((bench.app.count(), bench.verdicts()), (0, [0, 1, 0]));
}
