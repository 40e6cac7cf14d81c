//! Bytes that nobody looks into: Redis, a server that speaks first, half-closes with netcat, streams that live long.

use std::fs;

use super::{
    apps, claim,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};
use crate::processes::{process::Process, until};

async fn redis(mesh: &Mesh) -> Process {
    let (host, port) = (mesh.tcp_app().ip().to_string(), mesh.tcp_app().port().to_string());
    let options =
        ["--bind", &host, "--port", &port, "--save", "", "--maxclients", "9000", "--protected-mode", "no"];
    let mut arguments = options.map(str::to_owned).to_vec();
    arguments.extend(["--dir".to_owned(), mesh.folder.path().display().to_string()]);
    apps::start(mesh, mesh.tcp_app(), "redis-server", arguments).await
}

/// Arguments that lead a client of Redis through the mesh.
fn through(mesh: &Mesh) -> [String; 4] {
    let address = mesh.tcp_outbound();
    ["-h".to_owned(), address.ip().to_string(), "-p".to_owned(), address.port().to_string()]
}

/// Sockets of these two hosts that the other end has closed and we have not.
fn forgotten(mesh: &Mesh) -> usize {
    const CLOSE_WAIT: &str = "08";
    let hosts = mesh.sidecars().map(|sidecar| match sidecar.host.inbound().ip() {
        std::net::IpAddr::V4(ip) => format!("{:08X}", u32::from(ip).swap_bytes()),
        std::net::IpAddr::V6(_) => unreachable!("loopback hosts here are of IPv4"),
    });
    let table = fs::read_to_string("/proc/net/tcp").expect("a table");
    let is_ours = |line: &str| hosts.iter().any(|host| line.contains(host));
    table.lines().filter(|line| line.split_whitespace().nth(3) == Some(CLOSE_WAIT) && is_ours(line)).count()
}

#[test]
fn redis_is_served_one_by_one_and_pipelined() {
    claim(&["redis-server", "redis-cli", "redis-benchmark"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = redis(&mesh).await;
        let ask = async |more: &[&str]| {
            let more = more.iter().map(|&argument| argument.to_owned());
            Call::new("redis-cli", through(&mesh).into_iter().chain(more)).text().await
        };
        assert_eq!(ask(&["SET", "key", "value"]).await, "OK\n");
        assert_eq!(ask(&["GET", "key"]).await, "value\n");
        assert_eq!(ask(&["-r", "200", "INCR", "n"]).await.lines().last(), Some("200"));
        let benchmark = ["-n", "20000", "-c", "30", "-P", "16", "-d", "1000", "-t", "set,get,lpush", "--csv"];
        let arguments = through(&mesh).into_iter().chain(benchmark.map(str::to_owned));
        let said = Call::new("redis-benchmark", arguments).text().await;
        assert_eq!(said.lines().count(), 4, "{said}");
        assert_eq!(ask(&["STRLEN", "key:__rand_int__"]).await, "1000\n");
    });
}

#[test]
fn ten_thousand_short_connections_share_a_few_and_leave_none_behind() {
    claim(&["redis-server", "redis-benchmark"], async || {
        let mesh = Mesh::start(Plan { cluster: "pool_idle_timeout: 2s, ", ..Plan::default() }).await;
        let _app = redis(&mesh).await;
        let before = mesh.sidecars().map(|sidecar| sidecar.sockets());
        // A connection for each request.
        let benchmark = ["-k", "0", "-n", "10000", "-c", "40", "-t", "ping_mbulk", "--csv"];
        let arguments = through(&mesh).into_iter().chain(benchmark.map(str::to_owned));
        Call::new("redis-benchmark", arguments).text().await;

        let listeners = mesh.caller.ask("/listeners").await;
        let accepted = listeners["listeners"][1]["accepted"].as_u64().expect("a number");
        assert!(accepted >= 10_000, "{listeners}");
        let inbound = mesh.callee.ask("/listeners").await;
        let handshakes = inbound["listeners"][1]["accepted"].as_u64().expect("a number");
        assert!(handshakes <= 200, "{handshakes} connections between the sidecars for {accepted} streams");
        until("no socket is left of them", async || {
            let now = mesh.sidecars().map(|sidecar| sidecar.sockets());
            // One or two more: the admin's own.
            now[0] <= before[0] + 2 && now[1] <= before[1] + 2
        })
        .await;
        assert_eq!(forgotten(&mesh), 0);
    });
}

/// Starts app and client of these kinds, with the mesh between them.
fn python(app: &'static str, client: &'static str) {
    claim(&["python3"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = apps::script(&mesh, mesh.tcp_app(), "tcp_app.py", &[app]).await;
        let address = mesh.tcp_outbound();
        let arguments = [&address.ip().to_string(), &address.port().to_string(), client];
        assert_eq!(text("tcp_client.py", &arguments).await.trim(), "as claimed");
        mesh.quiet().await;
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    python("mail", "mail");
}

#[test]
fn a_half_closed_stream_still_brings_its_answer() {
    python("count", "half_close");
}

#[test]
fn a_stream_with_long_rests_goes_on() {
    python("echo", "long_lived");
}

#[test]
fn netcat_sends_a_file_and_hears_the_end() {
    claim(&["nc", "sh", "python3"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = apps::script(&mesh, mesh.tcp_app(), "tcp_app.py", &["echo"]).await;
        let file = mesh.folder.path().join("file");
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        fs::write(&file, &bytes).expect("written");
        let (address, back) = (mesh.tcp_outbound(), mesh.folder.path().join("back"));
        let line = format!(
            "exec nc -N {} {} < '{}' > '{}'",
            address.ip(),
            address.port(),
            file.display(),
            back.display()
        );
        text("sh", &["-c", &line]).await;
        assert!(fs::read(&back).expect("there") == bytes, "what came back is what was sent");
    });
}

#[test]
fn an_app_that_is_not_there_is_refused_as_tcp_refuses() {
    claim(&["redis-cli"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let arguments = through(&mesh).into_iter().chain(["PING".to_owned()]);
        let output = Call::new("redis-cli", arguments).run().await;
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("reset by peer") || said.contains("closed the connection"), "{said}");
    });
}
