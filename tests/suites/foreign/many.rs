//! A thousand and ten thousand connections at once.

use std::{process::Stdio, time::Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{
    apps, claim,
    load_tools::requests,
    mesh::{Mesh, Plan},
    nginx::{answering, nginx},
    programs::{Call, text},
};

/// Caps above what comes, and time to connect for a machine that does thousands of handshakes at once.
const ROOMY: Plan = Plan {
    cluster: "max_requests: 30000, max_connections: 30000, max_pending: 30000, connect_timeout: 60s, ",
    inbound: "max_requests: 30000, max_connections: 30000, max_pending: 30000, connect_timeout: 60s, ",
    limits: "max_connections: 30000, max_connections_per_peer: 30000, max_handshakes: 10000",
    traces: "",
};
/// Descriptors that a process needs beside those of the connections.
const SPARE: u64 = 500;

/// Raises the number of open files to the most that is allowed, for us and every program started from here, and
/// returns how many connections of `each` descriptors fit, at most `wanted`. Says so if that is fewer.
fn fitting(wanted: u64, each: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("within the limit");
    let fit = limit.maximum.map_or(wanted, |most| wanted.min(most.saturating_sub(SPARE) / each));
    if fit < wanted {
        super::programs::say(&format!(
            "{fit} connections instead of {wanted}: at most {:?} open files",
            limit.maximum
        ));
    }
    fit
}

#[test]
fn ten_thousand_connections_of_http1_are_all_answered() {
    claim(&["nginx", "h2load"], async || {
        // Before anything starts: programs inherit it. A sidecar keeps half of its descriptors for the ways on.
        let most = fitting(10_000, 2);
        let mesh = Mesh::start(ROOMY).await;
        let _app = nginx(&mesh, "app", mesh.app(), &answering(mesh.app(), ";")).await;
        for connections in [1000, most] {
            let (clients, count) = (format!("-c{connections}"), format!("-n{connections}"));
            let said = text("h2load", &["--h1", &clients, &count, &mesh.url("/")]).await;
            assert_eq!(requests(&said), (connections, connections, 0), "{said}");
            assert!(said.contains(&format!("{connections} 2xx")), "{said}");
            mesh.quiet().await;
        }
        assert!(mesh.caller.connections("http").await <= 200, "streams share connections between sidecars");
    });
}

/// So many connections of bytes at once, each answered at once and once more when all are there.
async fn hold(mesh: &Mesh, connections: u64) {
    let address = mesh.tcp_outbound();
    let arguments =
        [address.ip().to_string(), address.port().to_string(), "hold".to_owned(), connections.to_string()];
    let call = Call::new("tcp_client.py", arguments);
    let start = Instant::now();
    let mut client = call.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(client.stdout.take().expect("its output"));
    let mut line = String::new();
    said.read_line(&mut line).await.expect("a line");
    assert_eq!(line, "all there\n");
    for sidecar in mesh.sidecars() {
        println!(
            "{connections} opaque connections after {:?}: {} KiB, {} sockets",
            start.elapsed(),
            sidecar.rss_kib(),
            sidecar.sockets()
        );
        assert!(sidecar.sockets() as u64 >= 2 * connections, "they are all there");
    }
    client.stdin.take().expect("its input").write_all(b"\n").await.expect("it reads");
    line.clear();
    said.read_to_string(&mut line).await.expect("the rest");
    assert_eq!(line, "as claimed\n");
    mesh.quiet().await;
}

#[test]
fn a_thousand_opaque_connections_are_all_answered() {
    claim(&["python3"], async || {
        let connections = fitting(1000, 2);
        let mesh = Mesh::start(ROOMY).await;
        let _app = apps::script(&mesh, mesh.tcp_app(), "tcp_app.py", &["echo"]).await;
        hold(&mesh, connections).await;
    });
}

#[test]
fn ten_thousand_opaque_connections_are_all_answered() {
    claim(&["python3"], async || {
        // Each has a connection on either side of a sidecar.
        let connections = fitting(10_000, 2);
        let mesh = Mesh::start(ROOMY).await;
        let _app = apps::script(&mesh, mesh.tcp_app(), "tcp_app.py", &["echo"]).await;
        hold(&mesh, connections).await;
    });
}
