//! Of which requests there is a record, and what it says.

use std::{fs, path::Path};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{app, records, web};
use crate::harness::{Client, TestMesh, body, eventually};

/// Calls these paths one after the other over one connection.
async fn call(client: &mut Client, path: &str, times: usize) {
    for _ in 0..times {
        let response = client.get(path).await.unwrap();
        body::text(response.into_body()).await;
    }
}

#[tokio::test]
async fn every_request_has_one_record_at_each_sidecar_also_when_its_caller_leaves_midway() {
    let (mesh, app) = (TestMesh::new(), app().await);
    let (ours, theirs) = (mesh.dir().join("web.log"), mesh.dir().join("orders.log"));
    let callee = format!(
        "telemetry: {{access_log: {{of: all, path: orders.log}}}}\n\
         inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]",
        app.address()
    );
    let orders = mesh.start("orders", &callee).await;
    let keys = "of: all, path: web.log, request_headers: [user-agent], response_headers: [server]";
    let web = mesh.start("web", &web(orders.address(), keys)).await;

    let mut client = Client::http1(web.address()).await;
    call(&mut client, "/ok?token=secret", 1).await;
    call(&mut client, "/fail", 1).await;
    let mut leaving = TcpStream::connect(web.address()).await.unwrap();
    let request = b"GET /wait HTTP/1.1\r\nhost: orders\r\nuser-agent: a \"b\"\r\n\r\n";
    leaving.write_all(request).await.unwrap();
    eventually("the app has all three", || app.count() == 3).await;
    drop(leaving);
    eventually("there are three records each", || records(&ours).len() == 3 && records(&theirs).len() == 3)
        .await;

    let of = |path: &Path, asked: &str| {
        let all = records(path);
        let mut found = all.iter().filter(|record| record["path"] == asked);
        let record = found.next().unwrap_or_else(|| panic!("no record of {asked}: {all:?}")).clone();
        assert!(found.next().is_none(), "one record each: {all:?}");
        record
    };
    let ok = of(&ours, "/ok");
    for (key, value) in [
        ("kind", "http"),
        ("direction", "outbound"),
        ("listener", "out"),
        ("client", "127.0.0.1"),
        ("caller", "app"),
        ("method", "GET"),
        ("authority", "orders"),
        ("version", "HTTP/1.1"),
        ("cluster", "orders"),
    ] {
        assert_eq!(ok[key], value, "{key}: {ok}");
    }
    assert_eq!((&ok["status"], &ok["response_bytes"]), (&200.into(), &4.into()), "{ok}");
    assert_eq!((&ok["generation"], &ok["flag"]), (&1.into(), &serde_json::Value::Null), "{ok}");
    assert_eq!(ok["endpoint"], orders.address().to_string());
    assert!(ok["peer"].as_str().unwrap().ends_with("/orders"), "{ok}");
    assert_eq!(ok["response_headers"]["server"], "test");
    assert!(ok["duration_ms"].as_f64().unwrap() >= ok["head_ms"].as_f64().unwrap(), "{ok}");
    let there = of(&theirs, "/ok");
    assert_eq!((&there["direction"], &there["status"]), (&"inbound".into(), &200.into()), "{there}");
    assert!(there["caller"].as_str().unwrap().ends_with("/web"), "{there}");
    assert!(ok["request_id"].is_string(), "{ok}");
    assert_eq!(there["request_id"], ok["request_id"]);

    assert_eq!(of(&ours, "/fail")["status"], 500);
    let left = of(&ours, "/wait");
    assert_eq!((&left["flag"], &left["status"]), (&"DC".into(), &serde_json::Value::Null), "{left}");
    assert_eq!(left["request_headers"]["user-agent"], "a \"b\"");
    assert_eq!(of(&theirs, "/wait")["flag"], "DC");
    for file in [&ours, &theirs] {
        assert!(!fs::read_to_string(file).unwrap().contains("secret"), "no query in a record");
    }
}

#[tokio::test]
async fn of_errors_there_is_a_record_and_of_nothing_else() {
    let (mesh, app) = (TestMesh::new(), app().await);
    let path = mesh.dir().join("web.log");
    let orders = mesh.callee("orders", app.address(), "").await;
    let keys = "of: errors, path: web.log, format: template, template: '{path} {status} {flag}'";
    let web = mesh.start("web", &web(orders.address(), keys)).await;
    let mut client = Client::http1(web.address()).await;
    for _ in 0..3 {
        call(&mut client, "/ok", 5).await;
        call(&mut client, "/fail", 1).await;
    }
    let text = || fs::read_to_string(&path).unwrap_or_default();
    eventually("three records are there", || text().lines().count() == 3).await;
    assert_eq!(text(), "/fail 500 -\n".repeat(3));
}

#[tokio::test]
async fn of_a_share_of_all_there_is_a_record() {
    let (mesh, app) = (TestMesh::new(), app().await);
    let (some, all) = (mesh.dir().join("some.log"), mesh.dir().join("all.log"));
    let orders = mesh.callee("orders", app.address(), "").await;
    let keys = "of: all, sample_percent: 25, path: some.log";
    let mut sidecar = mesh.start("web", &web(orders.address(), keys)).await;
    call(&mut Client::http1(sidecar.address()).await, "/ok", 400).await;
    // What was taken in before is written by the time that the other log has something.
    let keys = "of: all, path: all.log";
    mesh.reload(&mut sidecar, "web", &web(orders.address(), keys)).await.unwrap();
    call(&mut Client::http1(sidecar.address()).await, "/ok", 1).await;
    eventually("the other log has its record", || records(&all).len() == 1).await;
    eventually("about a quarter has a record", || (50..=160).contains(&records(&some).len())).await;
}

#[tokio::test]
async fn a_reload_switches_it_on_and_off() {
    let (mesh, app) = (TestMesh::new(), app().await);
    let path = mesh.dir().join("web.log");
    let orders = mesh.callee("orders", app.address(), "").await;
    let (off, on) = (web(orders.address(), ""), web(orders.address(), "of: all, path: web.log"));
    let mut sidecar = mesh.start("web", &off).await;
    call(&mut Client::http1(sidecar.address()).await, "/before", 2).await;
    mesh.reload(&mut sidecar, "web", &on).await.unwrap();
    call(&mut Client::http1(sidecar.address()).await, "/during", 2).await;
    eventually("the two are there", || records(&path).len() == 2).await;
    mesh.reload(&mut sidecar, "web", &off).await.unwrap();
    call(&mut Client::http1(sidecar.address()).await, "/after", 2).await;
    mesh.reload(&mut sidecar, "web", &on).await.unwrap();
    call(&mut Client::http1(sidecar.address()).await, "/again", 1).await;
    eventually("it is on again", || records(&path).len() == 3).await;
    let paths: Vec<_> = records(&path).iter().map(|record| record["path"].clone()).collect();
    assert_eq!(paths, ["/during", "/during", "/again"]);
    assert_eq!(records(&path)[2]["generation"], 4);
}

#[tokio::test]
async fn a_stream_has_its_record() {
    use crate::harness::TcpApp;
    let (mesh, app) = (TestMesh::new(), TcpApp::greeter().await);
    let path = mesh.dir().join("web.log");
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let cluster = TestMesh::cluster("orders", &[orders.address()], "");
    let yaml = format!(
        "telemetry: {{access_log: {{of: all, path: web.log}}}}\n\
         outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\nclusters: [{cluster}]"
    );
    let web = mesh.start("web", &yaml).await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    let mut greeting = [0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting).await.unwrap();
    drop(stream);
    eventually("there is one record", || records(&path).len() == 1).await;
    let record = &records(&path)[0];
    assert_eq!((&record["kind"], &record["cluster"]), (&"stream".into(), &"orders".into()), "{record}");
    assert!(record["response_bytes"].as_u64().unwrap() > 0, "{record}");
}
