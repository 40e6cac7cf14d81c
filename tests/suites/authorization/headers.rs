//! Rules that look at fields.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::{Bench, WEB, web_may};
use crate::harness::{HttpApp, body, client::request};

const TEAM: &str = "headers: [{name: x-team, value: a}, {name: x-there}]";

#[tokio::test]
async fn a_field_fits_if_every_reader_takes_it_alike() {
    let bench = Bench::new(&web_may(TEAM)).await;
    let mut web = bench.peer(WEB).await;
    let there: (&str, &[u8]) = ("x-there", b"1");
    let team: (&str, &[u8]) = ("x-team", b"a");
    for (fields, may) in [
        (vec![there, team], true),
        (vec![team], false),
        (vec![there], false),
        (vec![there, ("x-team", b"b")], false),
        (vec![there, ("x-team", b"A")], false),
        (vec![there, team, team], false),
        (vec![there, team, ("x-team", b"b")], false),
        (vec![there, ("x-team", b"b"), team], false),
        (vec![there, team, ("x_team", b"b")], false),
        (vec![there, team, ("x.team", b"b")], false),
        (vec![there, ("x-team", b"a\xff")], false),
        (vec![there, there, team], false),
        (vec![("x-there", b"\xe4"), team], false),
    ] {
        let before = bench.app.count();
        let mut asks = request(Method::GET, "/", body::empty());
        for (name, value) in &fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            asks.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let status = web.send(asks).await.unwrap().status();
        assert_eq!(status, if may { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{fields:?}");
        assert_eq!(bench.app.count() - before, usize::from(may), "{fields:?}");
    }
    assert_eq!(bench.app.only().header("x-team"), Some("a"));
}

#[tokio::test]
async fn a_field_that_ends_with_the_connection_fits_nothing() {
    let bench = Bench::new(&web_may(TEAM)).await;
    let ask = |connection: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: orders\r\nX-Team: a\r\nX-There: 1\r\nConnection: {connection}\r\n\r\n"
        )
    };
    let denied = bench.raw(&ask("close, X-TEAM")).await;
    // Nothing else would have it closed: the answer is waited for until the sidecar does.
    assert!(denied.starts_with("HTTP/1.1 403 "), "{denied}");
    assert_eq!(bench.app.count(), 0, "it would have got a request without that field");
    let allowed = bench.raw(&ask("close")).await;
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
}

#[tokio::test]
async fn a_field_that_rules_look_at_does_not_come_in_trailers() {
    let app = HttpApp::start(async |request| {
        let (_count, trailers) = body::check(request.into_body()).await?;
        let mut names: Vec<_> =
            trailers.unwrap_or_default().keys().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        Ok(Response::builder().header("x-trailers", names.join(" ")).body(body::empty())?)
    })
    .await;
    let mut bench = Bench::with(app, &web_may("headers: [{name: x-team, value: a}]")).await;
    for (rules, came) in [
        (None, "x-sum x-there"),
        (Some(web_may(TEAM)), "x-sum"),
        (Some(web_may("")), "x-sum x-team x-there x.team"),
    ] {
        if let Some(rules) = rules {
            bench.reload(&rules).await;
        }
        let names = ["x-team", "x.team", "x-sum", "x-there"].map(HeaderName::from_static);
        let trailers: HeaderMap =
            names.into_iter().map(|name| (name, HeaderValue::from_static("b"))).collect();
        let mut asks = request(Method::POST, "/", body::streamed(5, Some(trailers)));
        for (name, value) in [
            ("x-team", "a"),
            ("x-there", "1"),
            ("te", "trailers"),
            ("trailer", "x-team, x.team, x-sum, x-there"),
        ] {
            asks.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let answer = bench.peer(WEB).await.send(asks).await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["x-trailers"]),
            (StatusCode::OK, &came.parse().unwrap())
        );
    }
}

#[tokio::test]
async fn another_protocol_is_for_those_who_may_have_a_stream() {
    let ask = "GET / HTTP/1.1\r\nHost: orders\r\nConnection: close, Upgrade\r\nUpgrade: foo\r\n\r\n";
    for (rules, upgrade) in [
        (web_may("methods: [GET]"), None),
        (web_may(""), Some("foo")),
        (web_may("methods: [GET]").replace("{rules", "{mode: audit, rules"), Some("foo")),
    ] {
        let bench = Bench::new(&rules).await;
        let answer = bench.raw(ask).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(bench.app.only().header("upgrade"), upgrade, "{rules}");
    }
}
