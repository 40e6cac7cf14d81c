//! curl as the client, Node as the app.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    apps::{self, node},
    claim,
    mesh::{Mesh, Plan},
    programs::text,
};

const NEEDS: [&str; 2] = ["curl", "node"];

/// curl, silent about progress, loud about errors, and ending with them.
async fn curl(arguments: &[&str]) -> String {
    let common = ["--silent", "--show-error", "--max-time", "60"];
    text("curl", &[&common[..], arguments].concat()).await
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file with so many bytes.
fn file(mesh: &Mesh, bytes: usize) -> String {
    let path = mesh.folder.path().join("upload");
    fs::write(&path, vec![b'u'; bytes]).expect("written");
    path.display().to_string()
}

fn data(path: &str) -> String {
    format!("@{path}")
}

#[test]
fn each_version_of_curl_reaches_the_app_as_it_was_sent() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        for (version, arrives) in [("--http1.0", "1.1"), ("--http1.1", "1.1")] {
            let seen = json(&curl(&[version, "--data", "four", &mesh.url("/seen?a=b")]).await);
            assert_eq!((&seen["method"], &seen["url"]), (&"POST".into(), &"/seen?a=b".into()));
            assert_eq!((&seen["version"], &seen["bytes"]), (&arrives.into(), &4.into()), "{version}");
        }
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "h2c").await;
        let seen = json(&curl(&["--http2-prior-knowledge", "--data", "four", &mesh.url("/seen?a=b")]).await);
        assert_eq!((&seen["version"], &seen["bytes"]), (&"2.0".into(), &4.into()));
    });
}

#[test]
fn a_big_upload_waits_for_100_continue_and_arrives_whole() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        let upload = data(&file(&mesh, 20 * 1024 * 1024));
        let url = mesh.url("/seen");
        // curl goes on by itself after a second without `100`; an hour makes that a failure.
        let waits =
            ["--expect100-timeout", "3600", "--header", "expect: 100-continue", "--verbose", "--stderr", "-"];
        let said = curl(&[&waits[..], &["--data-binary", &upload, &url]].concat()).await;
        assert!(said.contains("< HTTP/1.1 100 Continue"), "{said}");
        assert!(said.contains("\"bytes\":20971520"), "{said}");
        let said = curl(&["--header", "transfer-encoding: chunked", "--data-binary", &upload, &url]).await;
        let seen = json(&said);
        assert_eq!(seen["bytes"], 20_971_520);
        assert_eq!(seen["headers"]["transfer-encoding"], "chunked");
        let seen = curl(&["--http1.0", "--data-binary", &upload, &url]).await;
        assert_eq!(json(&seen)["bytes"], 20_971_520);
    });
}

#[test]
fn a_refusal_before_the_upload_is_over_is_heard() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        let (upload, url) = (data(&file(&mesh, 20 * 1024 * 1024)), mesh.url("/early"));
        // HTTP/2 is nghttp's: a curl before 8 may take the reset after the answer for an error, without us, too.
        let said =
            curl(&["--http1.1", "--include", "--header", "expect:", "--data-binary", &upload, &url]).await;
        assert!(said.contains(" 403") && said.ends_with("no"), "{said}");
    });
}

#[test]
fn head_has_the_length_and_no_body() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        let url = mesh.url("/bytes?n=1000");
        // Twice on one connection: a body that was not announced would break the second.
        let heads = curl(&["--head", &url, &url, "--write-out", "connects=%{num_connects}\n"]).await;
        assert_eq!(heads.matches("HTTP/1.1 200 OK").count(), 2, "{heads}");
        assert_eq!(heads.matches("content-length: 1000").count(), 2, "{heads}");
        assert!(heads.contains("connects=1") && heads.contains("connects=0"), "{heads}");
    });
}

#[test]
fn trailers_get_through_to_who_can_take_them() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        let raw = curl(&["--raw", "--header", "te: trailers", &mesh.url("/trailers")]).await;
        assert!(raw.ends_with("0\r\nx-checksum: abc\r\n\r\n"), "{raw:?}");
        let plain = curl(&["--http1.0", &mesh.url("/trailers")]).await;
        assert_eq!(plain, "body", "a client of HTTP/1.0 knows no chunks");

        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "h2c").await;
        let both = curl(&["--http2-prior-knowledge", "--include", &mesh.url("/trailers")]).await;
        assert!(both.contains("body") && both.contains("x-checksum: abc"), "{both}");
    });
}

#[test]
fn connection_close_closes_and_two_hundred_requests_share_a_connection() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        let said = curl(&["--include", "--header", "connection: close", &mesh.url("/")]).await;
        assert!(said.to_lowercase().contains("connection: close"), "{said}");

        let many = mesh.url("/seen?number=[1-200]");
        let said = curl(&["--write-out", "connects=%{num_connects}\n", &many]).await;
        assert_eq!(said.matches("\"method\":\"GET\"").count(), 200);
        assert_eq!(said.matches("connects=0").count(), 199, "all but the first use the first's connection");
    });
}

#[test]
fn what_curl_has_cut_short_disturbs_nobody() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        for _ in 0..5 {
            // 28: over its time. The app would take ten seconds and more.
            let arguments =
                ["--silent", "--max-time", "0.3", "--output", "/dev/null", &mesh.url("/slow?n=20000000")];
            let output = super::programs::Call::new("curl", arguments).run().await;
            assert_eq!(output.status.code(), Some(28));
        }
        mesh.quiet().await;
        assert_eq!(curl(&[&mesh.url("/")]).await, "hello\n");
    });
}

#[test]
fn an_http10_app_of_pythons_standard_library_serves_downloads() {
    claim(&["curl", "python3"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _upload = file(&mesh, 3_000_000);
        let folder = mesh.folder.path().display().to_string();
        let (host, port) = (mesh.app().ip().to_string(), mesh.app().port().to_string());
        for protocol in ["HTTP/1.0", "HTTP/1.1"] {
            let arguments =
                ["-m", "http.server", "--bind", &host, "--directory", &folder, "--protocol", protocol, &port];
            let app = apps::start(&mesh, mesh.app(), "python3", arguments.map(str::to_owned).to_vec()).await;
            let copy = Path::new(&folder).join("copy").display().to_string();
            for _ in 0..20 {
                curl(&["--fail", "--output", &copy, &mesh.url("/upload")]).await;
                assert_eq!(fs::metadata(&copy).expect("there").len(), 3_000_000, "{protocol}");
            }
            apps::stop(app).await;
        }
    });
}
