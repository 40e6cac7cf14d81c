//! Names that readers take for one another, and fields that they read differently when they are repeated.

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::{Callee, VERSIONS, all, send};
use crate::harness::{
    Client, HttpApp, TestMesh, body,
    client::{field, request},
    peer::{self, TlsPeer},
    soon,
};

/// Look-alikes of what sidecars set or strip, as readers after CGI's manner take them.
const LOOKALIKES: [&str; 9] = [
    "x_forwarded_for",
    "x-forwarded_client_cert",
    "x_forwarded-host",
    "x_real_ip",
    "x_request_id",
    "x_outrider_attempt",
    "content_length",
    "transfer_encoding",
    "x_b3_traceid",
];

fn forged() -> Vec<(&'static str, &'static str)> {
    LOOKALIKES.iter().flat_map(|name| [(*name, "1"), (*name, "2")]).chain([("x_team", "a")]).collect()
}

fn has_none(headers: &HeaderMap) {
    for name in LOOKALIKES {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(all(headers, "x_team"), ["a"]);
}

#[tokio::test]
async fn the_callees_sidecar_removes_look_alikes_of_what_it_says() {
    let callee = Callee::new("").await;
    has_none(&callee.seen_of(&forged()).await.headers);
}

#[tokio::test]
async fn the_callers_sidecar_removes_them_before_they_leave() {
    // A server of the mesh that is no sidecar of ours sees what leaves.
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let address = app.address();
    let tls = peer::server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[b"http/1.1"]);
    let server = TlsPeer::start(tls, move |mut stream| async move {
        let mut app = tokio::net::TcpStream::connect(address).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut stream, &mut app).await);
    })
    .await;
    let web = mesh.caller(&[server.address()], "peer: standard, peer_protocol: http1").await;
    for version in VERSIONS {
        let mut client = Client::connect(web.address(), version).await;
        assert_eq!(send(&mut client, &forged()).await.status(), StatusCode::OK);
    }
    assert_eq!(app.count(), 2);
    app.seen().iter().for_each(|seen| has_none(&seen.headers));
}

#[tokio::test]
async fn trailers_have_none_either() {
    let app = HttpApp::start(async |request: Request<Incoming>| {
        let (_, trailers) = body::check(request.into_body()).await?;
        let names: Vec<String> = trailers.unwrap_or_default().keys().map(ToString::to_string).collect();
        Ok(Response::new(body::full(names.join(" "))))
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let mut trailers = HeaderMap::new();
    for name in LOOKALIKES.into_iter().chain(["x-forwarded-for", "x-checksum"]) {
        trailers.insert(name, "1".parse().unwrap());
    }
    let sent = request(Method::POST, "/", body::streamed(1000, Some(trailers)));
    let answer = soon("an answer", Client::http2(web.address()).await.send(sent)).await.unwrap();
    assert_eq!(body::text(answer.into_body()).await, "x-checksum");
}

#[tokio::test]
async fn what_says_twice_who_asks_or_what_is_sent_is_refused_even_if_it_says_the_same() {
    let callee = Callee::new("").await;
    let web = callee.mesh.caller(&[callee.orders.address()], "").await;
    for name in ["authorization", "content-type", "origin"] {
        for second in ["a", "b"] {
            let twice = [(name, "a"), (name, second)];
            for version in VERSIONS {
                let answer = send(&mut Client::connect(web.address(), version).await, &twice).await;
                assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{name}");
                assert_eq!(field(&answer, "x-outrider-reason"), Some("bad_request"));
            }
            let answer = send(&mut callee.peer().await, &twice).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{name}, by a peer");
        }
    }
    assert_eq!(callee.app.count(), 0);
    for name in ["authorization", "content-type", "origin"] {
        assert_eq!(callee.seen_of(&[(name, "a")]).await.header(name), Some("a"));
    }
}

#[tokio::test]
async fn services_outside_the_mesh_get_what_the_app_wrote() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{{address: '{}'}}]}}]",
        app.address()
    );
    let web = mesh.start("web", &yaml).await;
    let sent = [
        ("x_forwarded_for", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.2"),
        ("forwarded", "for=\"open"),
        ("x-forwarded-proto", "gopher"),
        ("authorization", "a"),
        ("authorization", "b"),
    ];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(web.address(), version).await;
        assert_eq!(send(&mut client, &sent).await.status(), StatusCode::OK);
    }
    assert_eq!(app.count(), 2);
    for seen in app.seen() {
        for name in ["x_forwarded_for", "x-forwarded-for", "forwarded", "x-forwarded-proto", "authorization"]
        {
            let expected: Vec<&str> =
                sent.iter().filter(|(of, _)| *of == name).map(|(_, value)| *value).collect();
            assert_eq!(all(&seen.headers, name), expected, "{name}");
        }
    }
}
