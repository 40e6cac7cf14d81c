//! Connections that the kernel brings here: by the service that was dialled, by the port, by the name.

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};
use outrider::clock::Clock;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Three, name_of, names::Secured, nowhere};
use crate::harness::{Client, HttpApp, Sidecar, TestMesh, body, client::request, told::ToldNet};

const LISTENER: &str = "intercept-outbound";
/// The service's address, which is nowhere.
const SERVICE: &str = "10.96.0.7:5432";
const UNKNOWN: &str = "10.99.0.1:5432";

async fn start(mesh: &TestMesh, net: &ToldNet, yaml: &str) -> Sidecar {
    mesh.start_in(net.clone(), Clock::system(), "web", yaml).await
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A sidecar that takes what `web` dials; its service `orders` is at [`SERVICE`].
async fn web(three: &Three, net: &ToldNet, unknown: &str, routes: &str) -> Sidecar {
    let clusters = three.clusters("addresses: ['10.96.0.7:5432']");
    let yaml = format!("intercept: {{outbound: {{unknown: {unknown}}}}}\n{clusters}\ntcp_routes: [{routes}]");
    start(&three.mesh, net, &yaml).await
}

async fn dial(net: &ToldNet, web: &Sidecar, to: &str) -> TcpStream {
    net.dial(web.address_of(LISTENER), address(to)).await.unwrap()
}

async fn silent(net: &ToldNet, web: &Sidecar, to: &str) -> String {
    match net.dial(web.address_of(LISTENER), address(to)).await {
        Ok(mut stream) => name_of(&mut stream).await,
        Err(error) => format!("{:?}", error.kind()),
    }
}

#[tokio::test]
async fn a_service_that_was_dialled_goes_by_its_route_whoever_speaks_first() {
    let (three, net) = (Three::new().await, ToldNet::default());
    let web =
        web(&three, &net, "deny", "{name: r, services: [orders], ports: [5432], clusters: [{name: a}]}")
            .await;
    for _again in 0..3 {
        assert_eq!(silent(&net, &web, SERVICE).await, "a");
        let mut stream = dial(&net, &web, SERVICE).await;
        stream.write_all(b"\0\x01\x02\x03 speaks first\n").await.unwrap();
        assert_eq!(name_of(&mut stream).await, "a");
        assert_eq!(name_of(&mut stream).await, "\0\x01\x02\x03 speaks first");
    }
}

#[tokio::test]
async fn one_stream_goes_to_one_cluster_however_often_that_is_asked() {
    let (three, net) = (Three::new().await, ToldNet::default());
    let web =
        web(&three, &net, "deny", "{name: r, services: [orders], clusters: [{name: a}, {name: b}]}").await;
    let mut names = std::collections::BTreeSet::new();
    for _stream in 0..40 {
        names.insert(silent(&net, &web, SERVICE).await);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    // What was opened before it was known what comes is what was used: 40 streams, and no other.
    let streams = |index: usize| three.apps[index].connections();
    assert_eq!((streams(0), streams(1) + streams(2)), (0, 40));
}

#[tokio::test]
async fn who_dials_one_endpoint_means_that_one() {
    let (three, net) = (Three::new().await, ToldNet::default());
    let endpoint = three.sidecars[0].address();
    let routes = format!(
        "{{name: r, services: [orders], clusters: [{{name: a}}]}}, {{name: p, ports: [{}], clusters: [{{name: b}}]}}",
        endpoint.port()
    );
    let web = web(&three, &net, "deny", &routes).await;
    assert_eq!(silent(&net, &web, &endpoint.to_string()).await, "orders");
}

#[tokio::test]
async fn an_unknown_destination_goes_by_its_port_or_as_it_would() {
    let (three, net) = (Three::new().await, ToldNet::default());
    let route = "{name: r, ports: [5432], clusters: [{name: a}]}";
    for unknown in ["deny", "passthrough"] {
        let web = web(&three, &net, unknown, route).await;
        assert_eq!(silent(&net, &web, UNKNOWN).await, "a", "{unknown}");
    }
    let web = web(&three, &net, "deny", route).await;
    assert_eq!(silent(&net, &web, "10.99.0.1:5433").await, "ConnectionReset");
    assert_eq!(nowhere(&web, LISTENER), 1);
}

#[tokio::test]
async fn requests_are_no_streams() {
    let (three, net, app) = (Three::new().await, ToldNet::default(), HttpApp::named("outside").await);
    let route = format!("{{name: r, ports: [{}], clusters: [{{name: a}}]}}", app.address().port());
    let web = web(&three, &net, "passthrough", &route).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::over(dial(&net, &web, &app.address().to_string()).await, version).await;
        let mut asked = request(Method::GET, "/", body::empty());
        asked.headers_mut().insert("host", "outside.example".parse().unwrap());
        let response = client.send(asked).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{version:?} {:?}", response.headers());
        assert_eq!(body::text(response.into_body()).await, "outside");
    }
}

#[tokio::test]
async fn tls_goes_by_its_name_wherever_it_was_dialled() {
    let (secured, net) = (Secured::new().await, ToldNet::default());
    let routes = "{name: below, snis: ['*.db.example'], clusters: [{name: a}]}, \
                  {name: service, services: [orders], snis: [x.db.example], clusters: [{name: b}]}, \
                  {name: rest, services: [orders], clusters: [{name: orders}]}";
    let yaml = format!(
        "intercept: {{outbound: {{unknown: deny}}}}\n{}\ntcp_routes: [{routes}]",
        secured.clusters("addresses: ['10.96.0.7:5432']")
    );
    let web = start(&secured.mesh, &net, &yaml).await;
    for (to, name, expected) in [
        (UNKNOWN, "x.db.example", "a"),
        (SERVICE, "x.db.example", "b"),
        (SERVICE, "y.db.example", "a"),
        (SERVICE, "else.example", "orders"),
        (UNKNOWN, "else.example", "nobody"),
        // As without routes: a name that is a cluster's.
        (UNKNOWN, "orders", "orders"),
    ] {
        let stream = dial(&net, &web, to).await;
        assert_eq!(secured.ask(stream, name).await, expected, "{to} {name}");
    }
    assert_eq!(secured.connections(), [2, 2, 1]);
}
