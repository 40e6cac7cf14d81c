//! Another host or path for the next hop.

use http::{StatusCode, Version};

use super::{Edited, VERSIONS};

/// Whom and what the app was asked for, in the order of its requests.
fn asked(mesh: &Edited) -> Vec<(String, String)> {
    let target = |seen: &crate::harness::app::Seen| seen.uri.path_and_query().unwrap().as_str().to_owned();
    mesh.app.seen().iter().map(|seen| (seen.authority().to_owned(), target(seen))).collect()
}

#[tokio::test]
async fn a_prefix_a_path_and_a_host_are_replaced_and_the_query_stays() {
    let routes = "routes: [{path_prefix: /api, rewrite: {path_prefix: /v2}}, {path_prefix: /top/, rewrite: {path_prefix: /}}, \
                  {path: /one, rewrite: {path: /another}}]";
    for (inbound, cluster) in [("", routes), (routes, "")] {
        let mesh = Edited::new(inbound, cluster).await;
        let cases = [
            ("/api/x?q=/api", "/v2/x?q=/api"),
            ("/api", "/v2"),
            ("/api/?a=1", "/v2/?a=1"),
            ("/apis", "/apis"),
            ("/top/a/b", "/a/b"),
            ("/one?q", "/another?q"),
            ("/one/more", "/one/more"),
            // As it is read, not as it is spelled.
            ("/%61pi/./x", "/v2/x"),
            ("/other/../api/y", "/v2/y"),
        ];
        for version in VERSIONS {
            let before = mesh.app.count();
            for (sent, _) in cases {
                assert_eq!(mesh.get(version, sent, &[]).await.status, StatusCode::OK, "{sent}");
            }
            for ((_, target), (sent, expected)) in asked(&mesh)[before..].iter().zip(cases) {
                assert_eq!(target, expected, "{sent}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_below_the_prefix_when_it_is_read_is_not_taken_for_it() {
    let routes = "routes: [{path_prefix: /api, rewrite: {path_prefix: /v2}}]";
    for (inbound, cluster) in [("", routes), (routes, "")] {
        let mesh = Edited::new(inbound, cluster).await;
        for version in VERSIONS {
            assert_eq!(mesh.get(version, "/api/../admin", &[]).await.status, StatusCode::OK);
            let refused = mesh.get(version, "/api/..%2fadmin", &[]).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        }
        assert!(asked(&mesh).iter().all(|(_, target)| target == "/admin"), "{:?}", asked(&mesh));
        assert_eq!(mesh.app.count(), 2);
    }
}

#[tokio::test]
async fn another_host_is_asked_for_and_the_app_is_told_which_one_its_caller_meant() {
    let mesh = Edited::new("", "routes: [{path_prefix: /, rewrite: {host: 'Orders.Internal:8080'}}]").await;
    for version in VERSIONS {
        assert_eq!(mesh.get(version, "/", &[("host", "ORDERS:80")]).await.status, StatusCode::OK);
        let seen = mesh.app.seen().pop().unwrap();
        assert_eq!(seen.authority(), "orders.internal:8080");
        assert_eq!(
            (seen.header("x-forwarded-host"), seen.header("x-forwarded-port")),
            (Some("orders:80"), Some("80"))
        );
        assert_eq!(seen.version, version);
        // What the app has said itself stays.
        mesh.get(version, "/", &[("x-forwarded-host", "shop.example")]).await;
        let seen = mesh.app.seen().pop().unwrap();
        assert_eq!(
            (seen.authority(), seen.header("x-forwarded-host")),
            ("orders.internal:8080", Some("shop.example"))
        );
    }
}

#[tokio::test]
async fn the_callee_judges_what_it_was_asked_for_and_not_what_it_makes_of_it() {
    let (mesh, app) = (crate::harness::TestMesh::new(), super::talkative().await);
    let yaml = format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', routes: [{{path_prefix: /public, rewrite: {{path_prefix: /}}}}]}}]\n\
         authorization: {{rules: [{{name: r, from: ['{}'], path_prefixes: [/public]}}]}}",
        app.address(),
        crate::harness::ca::id("web"),
    );
    let orders = mesh.start("orders", &yaml).await;
    let web = mesh.caller(&[orders.address()], "").await;
    let mut client = crate::harness::Client::http2(web.address()).await;
    for (path, expected) in [
        ("/public/admin", StatusCode::OK),
        ("/admin", StatusCode::FORBIDDEN),
        ("/public/../admin", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(super::ask(&mut client, path, &[]).await.status, expected, "{path}");
    }
    assert_eq!((app.count(), app.only().uri.path().to_owned()), (1, "/admin".to_owned()));
}

#[tokio::test]
async fn options_of_the_whole_server_have_no_path_to_change() {
    let mesh = Edited::new("", "routes: [{methods: [OPTIONS], rewrite: {path: /x}}]").await;
    let asked = b"OPTIONS * HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::client::exchange(mesh.web.address(), asked).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let seen = mesh.app.only();
    assert_eq!((seen.version, seen.uri.path()), (Version::HTTP_11, "*"));
}
