//! What callers in plaintext say of those before them: nothing, but for as many proxies as the port trusts.

use http::{Request, StatusCode, Version};

use super::{PERMISSIVE, Pod};
use crate::harness::{HttpApp, app::Seen, body, soon};

/// Two proxies' words, behind what a client has made up.
const SENT: [(&str, &str); 7] = [
    ("x-forwarded-for", "192.0.2.66"),
    ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
    ("forwarded", "for=192.0.2.66, for=192.0.2.1;proto=https, for=192.0.2.2"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.example"),
    ("x-forwarded-port", "8443"),
    ("x-real-ip", "192.0.2.1"),
];

/// What the app sees of a request in plaintext with these fields, in each version.
async fn seen(hops: &str, sent: &[(&'static str, &'static str)]) -> Vec<Seen> {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), &format!("{PERMISSIVE}{hops}")).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut request = Request::get("/").header("host", "Orders:8080");
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        let mut client = pod.client(app.address(), version).await;
        let answer = soon("an answer", client.send(request.body(body::empty()).unwrap())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(app.count(), 2);
    app.seen()
}

const TOLD: [&str; 6] = [
    "x-forwarded-for",
    "forwarded",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
];

#[tokio::test]
async fn nothing_that_a_stranger_says_of_others_reaches_the_app() {
    for hops in ["", ", trusted_hops: 0"] {
        for seen in seen(hops, &SENT).await {
            let told = TOLD.map(|name| seen.header(name));
            let ours = [Some("127.0.0.1"), None, Some("http"), Some("orders:8080"), Some("8080"), None];
            assert_eq!(told, ours, "{hops}");
        }
    }
}

#[tokio::test]
async fn so_many_proxies_are_believed_and_nobody_before_them() {
    for (hops, addresses, forwarded, real) in [
        (1, "192.0.2.2, 127.0.0.1", "for=192.0.2.2, for=127.0.0.1", None),
        (
            2,
            "192.0.2.1, 192.0.2.2, 127.0.0.1",
            "for=192.0.2.1;proto=https, for=192.0.2.2, for=127.0.0.1",
            Some("192.0.2.1"),
        ),
    ] {
        for seen in seen(&format!(", trusted_hops: {hops}"), &SENT).await {
            let told = TOLD.map(|name| seen.header(name));
            let [list, forwarded, proto, host, port] =
                [addresses, forwarded, "https", "shop.example", "8443"].map(Some);
            assert_eq!(told, [list, forwarded, proto, host, port, real], "{hops}");
        }
    }
}

#[tokio::test]
async fn what_trusted_proxies_say_badly_or_not_at_all_is_told_as_it_is_known() {
    let sent = [
        ("forwarded", "for=\"open"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a b"),
        ("x-real-ip", "192.0.2.1"),
        ("x-real-ip", "192.0.2.2"),
        ("x_forwarded_for", "192.0.2.66"),
    ];
    for seen in seen(", trusted_hops: 2", &sent).await {
        let told = TOLD.map(|name| seen.header(name));
        assert_eq!(told, [Some("127.0.0.1"), None, Some("http"), Some("orders:8080"), Some("8080"), None]);
        assert_eq!(seen.header("x_forwarded_for"), None);
    }
}

#[tokio::test]
async fn a_peer_of_such_a_port_is_a_peer() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), &format!("{PERMISSIVE}, trusted_hops: 1")).await;
    let mut request = Request::get("/");
    for (name, value) in SENT {
        request = request.header(name, value);
    }
    let mut web = pod.peer(app.address(), "web").await.unwrap();
    assert_eq!(web.send(request.body(body::empty()).unwrap()).await.unwrap().status(), StatusCode::OK);
    let told = app.only().header("x-forwarded-for").unwrap().to_owned();
    assert_eq!(told, "192.0.2.66, 192.0.2.1, 192.0.2.2, 127.0.0.1");
}
