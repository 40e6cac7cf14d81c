//! nghttp and h2load with HTTP/2, wrk with HTTP/1: many requests at once, and none may fail.

use super::{
    apps::node,
    claim,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};

/// What h2load says of its requests: done, succeeded, failed.
pub(super) fn requests(said: &str) -> (u64, u64, u64) {
    let line = said.lines().find(|line| line.starts_with("requests:")).unwrap_or_else(|| panic!("{said}"));
    let number = |what: &str| {
        let words = line.split(',').find(|words| words.ends_with(what)).expect("this number");
        let word = words.trim_start_matches("requests:").split_whitespace().next();
        word.and_then(|word| word.parse().ok()).expect("a number")
    };
    (number("done"), number("succeeded"), number("failed"))
}

#[test]
fn nghttp_gets_many_streams_of_one_connection_and_trailers() {
    claim(&["nghttp", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "h2c").await;
        let urls = (0..40).map(|number| mesh.url(&format!("/bytes?n={number}")));
        let said = Call::new("nghttp", ["--stat".to_owned()].into_iter().chain(urls)).text().await;
        assert_eq!(said.matches(" 200 ").count(), 40, "{said}");
        let said = text("nghttp", &["--verbose", &mesh.url("/trailers")]).await;
        assert!(said.contains("x-checksum: abc"), "{said}");
    });
}

#[test]
fn an_http2_refusal_before_the_upload_is_over_is_heard() {
    claim(&["nghttp", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "h2c").await;
        let upload = mesh.folder.path().join("upload");
        std::fs::write(&upload, vec![b'u'; 8 << 20]).expect("written");
        for _ in 0..10 {
            let data = format!("--data={}", upload.display());
            let said = text("nghttp", &["--verbose", &data, &mesh.url("/early")]).await;
            assert!(said.contains(":status: 403"), "{said}");
            assert!(!said.contains("_ERROR(0x0") || said.contains("NO_ERROR"), "{said}");
        }
    });
}

#[test]
fn h2load_with_many_connections_and_streams_has_every_request_answered() {
    claim(&["h2load", "node"], async || {
        for (app, versions) in [("http", &["--h1"][..]), ("h2c", &[][..])] {
            let mesh = Mesh::start(Plan::default()).await;
            let _app = node(&mesh, app).await;
            let url = mesh.url("/bytes?n=1000");
            let load = ["-n4000", "-c20", "-m10", "--window-bits=16", &url];
            let said = text("h2load", &[versions, &load].concat()).await;
            assert_eq!(requests(&said), (4000, 4000, 0), "{said}");
            assert!(said.contains("4000 2xx"), "{said}");
        }
    });
}

#[test]
fn h2load_uploads_and_large_answers_arrive() {
    claim(&["h2load", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "h2c").await;
        let upload = mesh.folder.path().join("upload");
        std::fs::write(&upload, vec![b'u'; 300_000]).expect("written");
        let data = format!("--data={}", upload.display());
        let said = text("h2load", &["-n300", "-c5", "-m10", &data, &mesh.url("/echo")]).await;
        assert_eq!(requests(&said), (300, 300, 0), "{said}");
        assert!(said.contains("(90000000) data"), "{said}");
    });
}

#[test]
fn wrk_sees_no_error_in_a_second_plain_or_pipelined() {
    claim(&["wrk", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        let pipeline = mesh.folder.path().join("pipeline.lua");
        let script = "init = function(args)\n  local one = wrk.format('GET', '/')\n  \
                      all = one .. one .. one .. one\nend\nrequest = function() return all end\n";
        std::fs::write(&pipeline, script).expect("written");
        let url = mesh.url("/");
        let common = ["-c20", "-t1", "-d1s", &url];
        for more in [vec![], vec!["-s".to_owned(), pipeline.display().to_string()]] {
            let arguments = common.iter().map(|&argument| argument.to_owned()).chain(more);
            let said = Call::new("wrk", arguments).text().await;
            assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
            let line = said.lines().find(|line| line.contains("requests in")).expect("a count");
            let count: u64 =
                line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
            assert!(count > 100, "{said}");
        }
    });
}
