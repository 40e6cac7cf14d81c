//! Slow readers and slow writers on both sides: others go on, and nothing piles up in a sidecar.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Child,
};

use super::{
    apps::{self, node},
    claim,
    load_tools::requests,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};
use crate::processes::until;

const NEEDS: [&str; 3] = ["curl", "h2load", "node"];
/// Slow ones at a time. Each is offered, or offers, [`OFFER_BYTES`].
const SLOW: u64 = 30;
const OFFER_BYTES: u64 = 64_000_000;
/// What a slow one may hold in a sidecar. It is the windows and buffers of its connection, a small part of the offer.
const HELD_KIB: u64 = 2 * 1024;

/// Who is slow.
#[derive(Clone, Copy, Debug)]
enum Slowness {
    /// The client, with reading.
    Reader,
    /// The client, with writing.
    Writer,
    /// The app does not read what is uploaded to it, nor does it answer.
    App,
}

impl Slowness {
    /// Whether a client's end is noticed at once. Not before the stream is idle for too long, or the app is gone, where
    /// nobody reads from the client because nobody takes what it sends.
    fn is_seen_to_end(self) -> bool {
        match self {
            Self::Reader | Self::Writer => true,
            Self::App => false,
        }
    }
}

fn slow_client(mesh: &Mesh, version: &str, slowness: Slowness) -> Child {
    let upload = mesh.folder.path().join("upload").display().to_string();
    let (path, more) = match slowness {
        Slowness::Reader => (format!("/bytes?n={OFFER_BYTES}"), vec!["--limit-rate", "20k"]),
        Slowness::Writer => ("/seen".to_owned(), vec!["--limit-rate", "20k", "--upload-file", &upload]),
        Slowness::App => ("/stuck".to_owned(), vec!["--upload-file", &upload]),
    };
    let url = mesh.url(&path);
    let common = ["--silent", version, "--header", "expect:", "--output", "/dev/null", &url];
    let mut command = Call::new("curl", common.into_iter().chain(more)).command();
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Others' requests, each version of them, all answered.
async fn others(mesh: &Mesh, version: &[&str], when: &str) {
    let url = mesh.url("/bytes?n=5000");
    let said = text("h2load", &[version, &["-n1000", "-c10", &url]].concat()).await;
    assert_eq!(requests(&said), (1000, 1000, 0), "{when}: {said}");
    assert!(said.contains("1000 2xx"), "{when}: {said}");
}

async fn in_flight(mesh: &Mesh) -> u64 {
    let clusters = mesh.callee.ask("/clusters").await;
    let clusters = clusters["clusters"].as_array().expect("clusters").clone();
    clusters.iter().filter_map(|cluster| cluster["in_flight"].as_u64()).sum()
}

/// Panics if a sidecar has grown by more than the slow ones may hold.
fn assert_small(mesh: &Mesh, before: [u64; 2], what: &str) {
    let now = mesh.sidecars().map(|sidecar| sidecar.rss_kib());
    println!("{what}: {before:?} KiB before, {now:?} KiB with {SLOW} slow ones");
    for (now, before) in now.into_iter().zip(before) {
        assert!(now < before + SLOW * HELD_KIB, "{what}: from {before} to {now} KiB");
    }
}

fn http(app: &'static str, version: &'static str, load: &'static [&'static str]) {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let running = node(&mesh, app).await;
        let upload = std::fs::File::create(mesh.folder.path().join("upload")).expect("a file");
        upload.set_len(OFFER_BYTES).expect("a length");
        others(&mesh, load, "before").await;
        for slowness in [Slowness::Reader, Slowness::Writer, Slowness::App] {
            let before = mesh.sidecars().map(|sidecar| sidecar.rss_kib());
            let clients: Vec<_> = (0..SLOW).map(|_| slow_client(&mesh, version, slowness)).collect();
            until("the slow ones are there", async || in_flight(&mesh).await == SLOW).await;
            others(&mesh, load, &format!("{slowness:?}")).await;
            assert_eq!(in_flight(&mesh).await, SLOW, "they are still there");
            assert_small(&mesh, before, &format!("{version} {slowness:?}"));
            drop(clients);
            if slowness.is_seen_to_end() {
                mesh.quiet().await;
            }
        }
        apps::stop(running).await;
        mesh.quiet().await;
        let _again = node(&mesh, app).await;
        others(&mesh, load, "after").await;
    });
}

#[test]
fn slow_ones_of_http1_hold_up_nobody_and_pile_nothing_up() {
    http("http", "--http1.1", &["--h1"]);
}

#[test]
fn slow_ones_of_http2_hold_up_nobody_and_pile_nothing_up() {
    http("h2c", "--http2-prior-knowledge", &["-m5"]);
}

#[test]
fn slow_ones_of_bytes_hold_up_nobody_and_pile_nothing_up() {
    claim(&["python3"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let app = apps::script(&mesh, mesh.tcp_app(), "tcp_app.py", &["flood"]).await;
        let address = mesh.tcp_outbound();
        let arguments =
            [address.ip().to_string(), address.port().to_string(), "stuck".to_owned(), SLOW.to_string()];
        let before = mesh.sidecars().map(|sidecar| sidecar.rss_kib());
        let call = Call::new("tcp_client.py", arguments);
        let mut client =
            call.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = BufReader::new(client.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).await.expect("a line");
        assert_eq!(line, "stuck\n");
        assert_small(&mesh, before, "opaque");
        client.stdin.take().expect("its input").write_all(b"\n").await.expect("it reads");
        line.clear();
        said.read_to_string(&mut line).await.expect("the rest");
        assert_eq!(line, "as claimed\n");
        // As above: the app takes what is on its way to it as slowly as before.
        apps::stop(app).await;
        mesh.quiet().await;
    });
}
