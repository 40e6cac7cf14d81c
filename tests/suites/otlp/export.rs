//! How a collector is reached: TLS, fields, compression; other collectors, and the end of the process.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use outrider_certs::rustls_verify::provider;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier, version::TLS13};

use super::*;
use crate::harness::{TestCa, eventually, soon};

/// A collector that is known by that CA, and asks for certificates of it.
fn tls(ca: &TestCa) -> ServerConfig {
    let leaf = ca.web_leaf("127.0.0.1");
    let mut roots = RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn secure(collector: &Collector, protocol: &str) -> String {
    let keys = "roots: collector.pem, certificate: client.crt, key: client.key, compression: gzip, \
                headers: [{name: x-tenant, value: shop}, {name: authorization, value_file: token}]";
    telemetry(collector, protocol, keys).replace("http://", "https://")
}

fn write_files(mesh: &TestMesh, root: &TestCa, client: &TestCa) {
    let file = |name: &str, text: &str| {
        let path = mesh.dir().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let leaf = client.web_leaf("web.example");
    file("collector.pem", &outrider_certs::pem::certificate(&root.root()));
    file("client.crt", &leaf.pem());
    file("client.key", &leaf.key_pem());
    file("token", "Bearer hunter2\n");
}

#[tokio::test]
async fn a_collector_is_reached_by_tls_with_fields_and_compression() {
    for protocol in PROTOCOLS {
        let (mesh, ca) = (TestMesh::new(), TestCa::new());
        write_files(&mesh, &ca, &ca);
        let collector = Collector::with(Some(tls(&ca))).await;
        let bench = Bench::start_in(mesh, &secure(&collector, protocol)).await;
        bench.calls(2).await;
        assert_eq!(collector.has(4).await.len(), 4, "{protocol}");
        let headers = &collector.got()[0].headers;
        assert_eq!(
            (&headers["x-tenant"], &headers["authorization"]),
            (&"shop".parse().unwrap(), &"Bearer hunter2".parse().unwrap())
        );
        assert!(headers["user-agent"].to_str().unwrap().starts_with("OTel-OTLP-Exporter-Outrider/"));
    }
}

#[tokio::test]
async fn a_collector_that_proves_nothing_gets_nothing() {
    for protocol in PROTOCOLS {
        let (mesh, ca) = (TestMesh::new(), TestCa::new());
        write_files(&mesh, &TestCa::new(), &ca);
        let collector = Collector::with(Some(tls(&ca))).await;
        let telemetry = secure(&collector, protocol).replace("roots", "timeout: 300ms, roots");
        let bench = Bench::start_in(mesh, &telemetry).await;
        bench.calls(1).await;
        eventually("both are lost", || bench.counts() == [0, 0, 2, 0]).await;
        assert!(collector.got().is_empty());
        let (_, why) = bench.web.app().observer.exports.spans.last().failed.unwrap();
        assert!(why.contains("certificate"), "{why}");
    }
}

#[tokio::test]
async fn another_collector_gets_what_waits() {
    let (before, after) = (Collector::start().await, Collector::start().await);
    let waiting = |collector: &Collector, protocol| telemetry(collector, protocol, "").replace("50ms", "60s");
    let mut bench = Bench::start(&waiting(&before, "grpc")).await;
    bench.calls(2).await;
    let counts = || bench.web.app().observer.exports.spans.waiting.load(Ordering::Relaxed) == 4;
    eventually("they wait", counts).await;
    bench.reload(&telemetry(&after, "http", "")).await;
    assert_eq!(after.has(4).await.len(), 4);
    assert!(before.got().is_empty());
    bench.reload("").await;
    bench.calls(2).await;
    bench.reload(&telemetry(&before, "grpc", "")).await;
    bench.calls(1).await;
    assert_eq!(before.has(2).await.len(), 2, "what came while they were off has none");
}

#[tokio::test]
async fn a_process_that_ends_sends_what_it_has() {
    for protocol in PROTOCOLS {
        let collector = Collector::start().await;
        let bench = Bench::start(&telemetry(&collector, protocol, "").replace("50ms", "60s")).await;
        bench.calls(3).await;
        soon("the drain ends", bench.web.app().drain()).await;
        assert_eq!(collector.spans().len(), 6, "{protocol}");
    }
}

#[tokio::test]
async fn a_process_that_ends_does_not_wait_for_a_collector_that_does_not_answer() {
    let collector = Collector::start().await;
    collector.be(Mood::IsSilent);
    let bench = Bench::start(&telemetry(&collector, "grpc", "timeout: 60s")).await;
    bench.calls(1).await;
    soon("the drain ends", bench.web.app().drain()).await;
}
