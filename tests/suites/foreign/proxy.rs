//! Clients that are told of a proxy, as people tell them: `http_proxy`, `https_proxy`, `--proxy`. One app takes requests;
//! the other has TLS of its own, behind a listener for bytes.

use std::fs;

use serde_json::Value;

use super::{
    apps, claim,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};
use crate::processes::process::Process;

/// Both apps, and the file with the certificate of the one with TLS.
struct Apps {
    _http: Process,
    tls: Process,
    certificate: String,
}

impl Apps {
    async fn start(mesh: &Mesh) -> Self {
        let certified = rcgen::generate_simple_self_signed(["tcp".to_owned()]).expect("a certificate");
        let path = |name: &str| mesh.folder.path().join(name).display().to_string();
        let (certificate, key) = (path("own.crt"), path("own.key"));
        fs::write(&certificate, certified.cert.pem()).expect("written");
        fs::write(&key, certified.signing_key.serialize_pem()).expect("written");
        let own_tls = ["https", certificate.as_str(), key.as_str()];
        Self {
            _http: apps::node(mesh, "http").await,
            tls: apps::script(mesh, mesh.tcp_app(), "http_app.js", &own_tls).await,
            certificate,
        }
    }
}

/// curl, told of the proxy by its environment.
fn curl(mesh: &Mesh, arguments: &[&str]) -> Call {
    let proxy = mesh.outbound();
    let variables = [
        format!("http_proxy=http://{proxy}"),
        format!("https_proxy=http://{proxy}"),
        "no_proxy=".to_owned(),
        "ALL_PROXY=".to_owned(),
    ];
    let common = ["curl", "--silent", "--show-error", "--max-time", "60"].map(str::to_owned);
    let more = arguments.iter().map(|&argument| argument.to_owned());
    Call::new("env", variables.into_iter().chain(common).chain(more))
}

#[test]
fn curl_takes_the_sidecar_for_its_proxy_with_http_and_https() {
    claim(&["curl", "env", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let apps = Apps::start(&mesh).await;
        for (url, host) in [("http://http/seen?a=b", "http"), ("https://tcp/seen?a=b", "tcp")] {
            let said = curl(&mesh, &["--cacert", &apps.certificate, "--data", "four", url]).text().await;
            let seen: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
            assert_eq!((&seen["url"], &seen["bytes"]), (&"/seen?a=b".into(), &4.into()));
            assert_eq!(seen["headers"]["host"], host);
            for name in ["proxy-connection", "proxy-authorization", "x-outrider-reason"] {
                assert_eq!(seen["headers"].get(name), None, "{url} {name}");
            }
        }
        let url = "https://tcp/bytes?n=5000000";
        let arguments =
            ["--cacert", &apps.certificate, "--output", "/dev/null", "--write-out", "%{size_download}"];
        assert_eq!(curl(&mesh, &[&arguments[..], &[url]].concat()).text().await, "5000000");
        mesh.quiet().await;
    });
}

#[test]
fn curl_gets_a_tunnel_for_plain_http_and_is_told_where_there_is_none() {
    claim(&["curl", "env", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let plain = apps::script(&mesh, mesh.tcp_app(), "http_app.js", &["http"]).await;
        let tunnel = ["--proxytunnel", "--include", "http://tcp:8080/"];
        let said = curl(&mesh, &tunnel).text().await;
        assert!(said.contains("200 OK") && said.ends_with("hello\n"), "{said}");
        for version in ["--proxy1.0", "--proxy"] {
            let proxy = mesh.outbound().to_string();
            let said = curl(&mesh, &[version, &proxy, "--proxytunnel", "http://tcp/"]).text().await;
            assert_eq!(said, "hello\n", "{version}");
        }
        apps::stop(plain).await;
        let output = curl(&mesh, &tunnel).run().await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(56), "{said}");
        assert!(said.contains(" 503 ") && said.contains("x-outrider-reason: not_processed"), "{said}");
    });
}

#[test]
fn the_standard_library_of_python_takes_the_sidecar_for_its_proxy() {
    claim(&["python3", "node"], async || python("urllib").await);
}

#[test]
fn httpx_takes_the_sidecar_for_its_proxy() {
    claim(&["python3", "python:httpx", "node"], async || python("httpx").await);
}

async fn python(kind: &str) {
    let mesh = Mesh::start(Plan::default()).await;
    let apps = Apps::start(&mesh).await;
    let proxy = mesh.outbound().to_string();
    assert_eq!(text("proxy_client.py", &[&proxy, &apps.certificate, kind]).await.trim(), "as claimed");
    mesh.quiet().await;
}

#[test]
fn a_tunnel_of_node_carries_its_tls() {
    claim(&["node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let apps = Apps::start(&mesh).await;
        let proxy = mesh.outbound().to_string();
        let said = text("http_client.js", &[&proxy, "tunnel", &apps.certificate]).await;
        assert_eq!(said.trim(), "as claimed");
        mesh.quiet().await;
    });
}

#[test]
fn openssl_and_netcat_get_through_with_connect_of_http_10() {
    claim(&["openssl", "nc", "sh", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let apps = Apps::start(&mesh).await;
        let proxy = mesh.outbound();
        let request = "GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n";
        let line = format!(
            "(printf '{request}'; sleep 1) | OPENSSL_CONF=/dev/null openssl s_client -proxy {proxy} -connect tcp:443 \
             -CAfile {} -verify_return_error -quiet 2>&1",
            apps.certificate
        );
        let output = Call::new("sh", ["-c", &line]).run().await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("200 OK") && said.contains("hello"), "{said}");
        apps::stop(apps.tls).await;

        let plain = apps::script(&mesh, mesh.tcp_app(), "http_app.js", &["http"]).await;
        let line = format!("printf '{request}' | nc -X connect -x {proxy} tcp 80");
        let said = text("sh", &["-c", &line]).await;
        assert!(said.contains("200 OK") && said.contains("hello"), "{said}");
        apps::stop(plain).await;
    });
}
