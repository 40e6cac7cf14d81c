//! Requests and answers without a body in question: versions, authorities, methods and statuses.

use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::{PAIRS, Pair};
use crate::harness::{
    Client, HttpApp, body,
    client::{field, request},
    soon,
};

#[tokio::test]
async fn version_and_authority_are_restored_on_the_far_side() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let pair = Pair::of(HttpApp::echo().await).await;
        let mut client = Client::connect(pair.web.address(), version).await;
        let mut get = request(Method::GET, "/a/path?with=query&x=%2F", body::empty());
        get.headers_mut().insert("host", "Orders:8080".parse().unwrap());
        let response = client.send(get).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        let seen = pair.app.only();
        assert_eq!((seen.version, &seen.method), (version, &Method::GET));
        assert_eq!(seen.authority(), "orders:8080", "in its one spelling");
        assert_eq!(seen.uri.path_and_query().unwrap(), "/a/path?with=query&x=%2F");
    }
}

#[tokio::test]
async fn an_app_that_declares_its_version_is_spoken_to_in_that_one() {
    for (calling, called) in PAIRS {
        let pair = Pair::speaking(HttpApp::echo().await, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let response = client.post("/", "hello").await.unwrap();
        assert_eq!(response.version(), calling);
        assert_eq!(body::text(response.into_body()).await, "hello");
        let seen = pair.app.only();
        assert_eq!((seen.version, seen.authority()), (called, "orders"));
    }
}

#[tokio::test]
async fn requests_of_many_connections_share_one_between_the_sidecars() {
    let pair = Pair::of(HttpApp::echo().await).await;
    for _ in 0..20 {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut client = Client::connect(pair.web.address(), version).await;
            assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        }
    }
    let accepted = &pair.orders.listener("in").accepted;
    assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |request: Request<Incoming>| {
            let response = Response::builder().header("content-length", "1000");
            Ok(response.body(if request.method() == Method::HEAD {
                body::empty()
            } else {
                body::sized(1000)
            })?)
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let claim = format!("{calling:?} to {called:?}");
        for _ in 0..2 {
            let response = client.send(request(Method::HEAD, "/", body::empty())).await.unwrap();
            assert_eq!(field(&response, "content-length"), Some("1000"), "{claim}");
            assert_eq!(soon(&claim, body::check(response.into_body())).await.unwrap().0, 0, "{claim}");
        }
        // The connection is still in step.
        let response = client.get("/").await.unwrap();
        assert_eq!(body::check(response.into_body()).await.unwrap().0, 1000, "{claim}");
    }
}

#[tokio::test]
async fn statuses_without_a_body_pass_and_leave_the_connection_in_step() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |request: Request<Incoming>| {
            let status = request.uri().path().trim_start_matches('/').parse::<u16>()?;
            Ok(Response::builder().status(status).header("etag", "\"1\"").body(body::empty())?)
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        for status in [204, 304, 205, 200, 404, 204, 500, 503, 304] {
            let claim = format!("{status}, {calling:?} to {called:?}");
            let response = soon(&claim, client.get(&format!("/{status}"))).await.unwrap();
            assert_eq!(response.status(), status, "{claim}");
            assert_eq!(field(&response, "etag"), Some("\"1\""), "{claim}");
            assert_eq!(soon(&claim, body::check(response.into_body())).await.unwrap().0, 0, "{claim}");
        }
        // RFC 9110 §8.6: no content length in a 204.
        let response = client.get("/204").await.unwrap();
        assert_eq!(field(&response, "content-length"), None);
    }
}

#[tokio::test]
async fn an_unknown_authority_is_answered_and_reaches_nobody() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let pair = Pair::of(HttpApp::echo().await).await;
        let mut client = Client::connect(pair.web.address(), version).await;
        let mut stray = request(Method::GET, "/", body::empty());
        stray.headers_mut().insert("host", "elsewhere".parse().unwrap());
        let response = client.send(stray).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(field(&response, "x-outrider-reason"), Some("no_route"));
        assert_eq!(pair.app.count(), 0);
    }
}

#[tokio::test]
async fn every_method_passes_as_it_is() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let mut client = Client::http1(pair.web.address()).await;
    for name in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "X-own"] {
        let method = Method::from_bytes(name.as_bytes()).unwrap();
        let response = soon(name, client.send(request(method.clone(), "/", body::empty()))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        body::check(response.into_body()).await.unwrap();
        assert_eq!(pair.app.seen().last().unwrap().method, method);
    }
}
