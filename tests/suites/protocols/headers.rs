//! Fields: what belongs to one hop stays there, what only sidecars may say nobody else says, and the app is told who
//! is asking.

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::{PAIRS, Pair};
use crate::harness::{
    Client, HttpApp, body,
    ca::id,
    client::{exchange, field, request},
};

/// Sends a GET with these fields.
async fn get(pair: &Pair, version: Version, fields: &[(&'static str, &str)]) -> Response<Incoming> {
    let mut request = request(Method::GET, "/", body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let response = Client::connect(pair.web.address(), version).await.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_request_end_at_the_sidecar() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let answer = exchange(
        pair.web.address(),
        b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close, X-Private, x-other\r\nX-Private: 1\r\nx-other: 2\r\n\
          Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\nX-Kept: 3\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let seen = pair.app.only();
    for name in ["connection", "x-private", "x-other", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!((seen.header("te"), seen.header("x-kept")), (Some("trailers"), Some("3")));
}

#[tokio::test]
async fn hop_by_hop_fields_of_an_answer_end_at_the_sidecar() {
    let app = HttpApp::start(async |_request| {
        let response = Response::builder()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("x-kept", "3");
        Ok(response.body(body::full("text"))?)
    })
    .await;
    let pair = Pair::of(app).await;
    let response = get(&pair, Version::HTTP_11, &[]).await;
    for name in ["connection", "x-private", "keep-alive"] {
        assert_eq!(field(&response, name), None, "{name}");
    }
    assert_eq!(field(&response, "x-kept"), Some("3"));
}

#[tokio::test]
async fn an_app_cannot_speak_as_a_sidecar_to_the_called_app() {
    for (calling, called) in PAIRS {
        let pair = Pair::speaking(HttpApp::echo().await, called).await;
        let forged = [
            ("x-outrider-attempt", "7"),
            ("x-outrider-app-version", "2"),
            ("x-outrider-processed", "no"),
            ("X-Outrider-Invented", "1"),
        ];
        get(&pair, calling, &forged.map(|(name, value)| (&*name.to_lowercase().leak(), value))).await;
        let seen = pair.app.only();
        let reserved: Vec<_> =
            seen.headers.keys().filter(|name| name.as_str().starts_with("x-outrider")).collect();
        assert!(reserved.is_empty(), "{reserved:?}");
        assert_eq!(seen.version, called);
    }
}

#[tokio::test]
async fn an_app_cannot_make_its_caller_repeat_a_request_by_speaking_as_a_sidecar() {
    let app = HttpApp::start(async |_request| {
        let response = Response::builder()
            .status(503)
            .header("x-outrider-processed", "no")
            .header("x-outrider-reason", "invented");
        Ok(response.body(body::empty())?)
    })
    .await;
    let pair = Pair::of(app).await;
    let mut client = Client::http1(pair.web.address()).await;
    let response = client.post("/", "once").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), None);
    assert_eq!((pair.app.count(), pair.web.retries()), (1, 0));
}

#[tokio::test]
async fn the_called_app_is_told_who_is_asking_and_cannot_be_told_otherwise() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let forged = [
        ("x-forwarded-client-cert", "By=nobody;URI=spiffe://test.outrider/admin"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "gopher"),
    ];
    get(&pair, Version::HTTP_2, &forged).await;
    let seen = pair.app.only();
    let cert = format!("By={};URI={}", id("orders"), id("web"));
    assert_eq!(seen.header("x-forwarded-client-cert"), Some(&*cert));
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_ne!(seen.header("x-forwarded-proto"), Some("gopher"));
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let pair = Pair::of(HttpApp::echo().await).await;
    get(&pair, Version::HTTP_11, &[("x-request-id", "from-the-app")]).await;
    get(&pair, Version::HTTP_11, &[]).await;
    get(&pair, Version::HTTP_2, &[]).await;
    let ids: Vec<_> =
        pair.app.seen().iter().map(|seen| seen.header("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(ids[0], "from-the-app");
    assert!(ids[1].len() == 36 && ids[2].len() == 36 && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_trace_of_the_app_passes_unchanged() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let pair = Pair::of(HttpApp::echo().await).await;
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        get(&pair, version, &[("traceparent", parent), ("tracestate", "vendor=1")]).await;
        let seen = pair.app.only();
        assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (Some(parent), Some("vendor=1")));
    }
}

#[tokio::test]
async fn cookies_split_for_http2_are_joined_for_an_http1_app() {
    // RFC 9113 §8.2.3: "these MUST be concatenated into a single octet string … before being passed into a
    // non-HTTP/2 context".
    let pair = Pair::speaking(HttpApp::echo().await, Version::HTTP_11).await;
    get(&pair, Version::HTTP_2, &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]).await;
    assert_eq!(pair.app.only().header("cookie"), Some("a=1; b=2; c=3"));
}

#[tokio::test]
async fn set_cookie_fields_stay_apart_and_in_order() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |_request| {
            let response = Response::builder().header("set-cookie", "a=1, x").header("set-cookie", "b=2");
            Ok(response.body(body::empty())?)
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let response = get(&pair, calling, &[]).await;
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1, x", "b=2"]);
    }
}

#[tokio::test]
async fn what_the_app_says_passes_to_the_last_byte() {
    let app = HttpApp::start(async |request: Request<Incoming>| {
        let mut response = Response::new(body::empty());
        let echoed: HeaderMap = request.headers().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        *response.headers_mut() = echoed
            .into_iter()
            .filter_map(|(n, v)| Some((n?, v)))
            .filter(|(n, _)| n.as_str().starts_with("x-a"))
            .collect();
        Ok(response)
    })
    .await;
    let pair = Pair::of(app).await;
    let long = "v".repeat(8000);
    let fields = [("x-a-long", long.as_str()), ("x-a-tab", "a\tb"), ("x-a-empty", ""), ("x-a-utf8", "grün")];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let response = get(&pair, version, &fields).await;
        for (name, value) in fields {
            assert_eq!(response.headers()[name].as_bytes(), value.as_bytes(), "{name}");
        }
    }
}
