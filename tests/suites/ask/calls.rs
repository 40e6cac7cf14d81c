//! `route explain` and `policy explain` of a running sidecar: by what is in force in it, and as a file of the same words says.

use std::{net::SocketAddr, process::Stdio};

use tokio::process::Command;

use super::{Asked, Said, said};
use crate::{
    harness::{TestMesh, ca::id},
    processes::{mesh::Network, process::program},
};

const RULES: &str =
    "authorization: {rules: [{name: web-reads, from: ['spiffe://test.outrider/web'], methods: [GET]}]}";

/// A sidecar with an app and a route.
async fn orders(mesh: &TestMesh) -> Asked {
    let host = Network::new().host(1);
    let app: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let carts = TestMesh::cluster("carts", &[app], "");
    let yaml = format!(
        "inbound: [{{name: in, listen: '{}', app: '{app}'}}]\noutbound: [{{name: out, listen: '{}'}}]\n\
         clusters: [{carts}]\n{RULES}\n\
         routes: [{{name: shop, services: [carts], rules: [{{name: red, \
         matches: [{{headers: [{{name: x-team, value: red}}, {{name: x-size, value: xl}}]}}], clusters: [{{name: carts}}]}}]}}]",
        host.inbound(),
        host.outbound()
    );
    Asked::start(mesh, "orders", host.inbound(), &yaml).await
}

impl Asked {
    /// What the command says of the call, by the running sidecar, which must be what it says by the file.
    async fn explains_call(&self, command: &str, call: &[&str]) -> Said {
        let running = self.says(&[&[command, "explain", "--running"], call].concat()).await;
        let mut by_file = Command::new(program("outrider"));
        by_file.args([command, "explain", "--config"]).arg(&self.config).args(call);
        let by_file = said(by_file).await;
        assert_eq!((&running.out, running.is_good), (&by_file.out, by_file.is_good), "{}", running.err);
        running
    }
}

#[tokio::test]
async fn a_running_sidecar_says_of_a_request_what_its_file_says() {
    let mesh = TestMesh::new();
    let orders = orders(&mesh).await;
    let fields = ["GET", "http://carts/a?b=c&d=%20", "-H", "x-team: red", "-H", "x-size: xl"];
    let found = orders.explains_call("route", &fields).await;
    assert!(
        found.is_good && found.out.contains("rule      shop/red: field x-team: red, field x-size: xl"),
        "{}",
        found.out
    );
    let found = orders.explains_call("route", &fields[..4]).await;
    assert!(
        !found.is_good && found.out.contains("its field x-size is another, or is missing"),
        "{}",
        found.out
    );
    let found = orders.explains_call("route", &["GET", "http://nobody/"]).await;
    assert!(!found.is_good && found.out.contains("404, no_route"), "{}", found.out);
}

#[tokio::test]
async fn a_running_sidecar_says_of_a_call_what_its_file_says() {
    let mesh = TestMesh::new();
    let orders = orders(&mesh).await;
    let web = id("web").to_string();
    let found =
        orders.explains_call("policy", &["--from", &web, "--path", "/a", "-H", "a: b", "-H", "a: c"]).await;
    assert!(found.is_good && found.out == "allowed by rule web-reads\n", "{}", found.out);
    let found = orders.explains_call("policy", &["--from", &web, "--method", "POST"]).await;
    assert!(!found.is_good && found.out.contains("web-reads: is about another method"), "{}", found.out);
    for call in [&["--grpc", "a.B/C"][..], &["--stream"], &["--path", "/%zz"]] {
        let found = orders.explains_call("policy", &[&["--from", &*web], call].concat()).await;
        assert!(!found.is_good && !found.out.is_empty(), "{call:?}: {}", found.err);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_its_reason() {
    let mesh = TestMesh::new();
    let orders = orders(&mesh).await;
    let running = ["route", "explain", "--running"];
    for (call, problem) in [
        (&["G T", "http://carts/"][..], "the sidecar refused (400): that is not a method"),
        (&["GET", "http://carts/", "-H", "x"], "no colon in the field"),
        (&["GET", "http://carts/", "--listener", "x"], "no outbound listener \"x\""),
        (&["GET", &format!("http://carts/{}", "a".repeat(16_000))], "more than a sidecar can be asked"),
        (&["GET", "/", "--config", "x.yaml"], "leave out one of them"),
    ] {
        let found = orders.says(&[&running, call].concat()).await;
        assert!(!found.is_good && found.err.contains(problem), "{call:?}: {}", found.err);
    }
    for (target, problem) in [
        ("/explain/route", "url is missing"),
        ("/explain/route?url=/&url=/", "url is there twice"),
        ("/explain/route?url=/&odd=1", "there is no such part"),
        ("/explain/policy?from=spiffe://t/a&stream=true&path=/", "leave out one or the other"),
        ("/explain/policy?from=spiffe://t/a&grpc=a/b&path=/", "leave out one or the other"),
        ("/explain/policy?from=spiffe://t/a&port=1", "no listener leads to port 1"),
    ] {
        let (status, body) = orders.get(target).await;
        assert!(status == 400 && body["error"].as_str().unwrap().contains(problem), "{target}: {body}");
    }
    let many = "header=a:b&".repeat(65);
    let (status, body) = orders.get(&format!("/explain/route?{many}url=/")).await;
    assert!(status == 400 && body["error"] == "more than 64 fields", "{body}");
}

#[tokio::test]
async fn the_variable_for_the_file_does_not_exclude_a_running_sidecar() {
    let mesh = TestMesh::new();
    let orders = orders(&mesh).await;
    let mut command = orders.command(&["route", "explain", "--running", "GET", "http://carts/"]);
    command.env("OUTRIDER_CONFIG", "/none.yaml");
    let found = said(command).await;
    assert!(found.out.contains("by        the rules of the service"), "{}{}", found.out, found.err);
    let mut command = Command::new(program("outrider"));
    command.args(["route", "explain", "GET", "http://carts/"]).stdin(Stdio::null());
    let found = said(command).await;
    assert!(!found.is_good && found.err.contains("--config <FILE>"), "{}", found.err);
}

#[tokio::test]
async fn where_no_sidecar_runs_the_remedy_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for call in
        [&["route", "explain", "GET", "http://carts/"][..], &["policy", "explain", "--from", "spiffe://t/a"]]
    {
        let mut command = Command::new(program("outrider"));
        command.args(call).arg("--running").arg("--admin-socket").arg(folder.path().join("admin.sock"));
        let found = said(command).await;
        assert!(!found.is_good && found.err.contains("is the sidecar running here?"), "{}", found.err);
    }
}
