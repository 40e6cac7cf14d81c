//! A process that runs out of descriptors goes on with what it has, and takes more when it can.

use std::{fs, net::SocketAddr};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    DEADLINE,
    mesh::{Mesh, MeshPlan, Sidecar},
    run, until,
};

/// More than any process here may have.
const FLOOD: usize = 120;

async fn flood(address: SocketAddr) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..FLOOD {
        streams.extend(TcpStream::connect(address).await);
    }
    streams
}

/// A request on a connection of one's own or on a kept one: its status line, or nothing if the connection ended.
async fn ask(stream: &mut TcpStream) -> Option<String> {
    let exchange = async {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"orders-1") {
            answer.push(stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8_lossy(&answer).lines().next()?.to_owned())
    };
    tokio::time::timeout(DEADLINE, exchange).await.expect("an answer or an end")
}

async fn listener(sidecar: &Sidecar) -> serde_json::Value {
    sidecar.ask("/listeners").await["listeners"][0].clone()
}

#[test]
fn a_process_with_few_descriptors_keeps_some_for_operators_and_the_way_on() {
    run(async {
        let plan = MeshPlan::new(1);
        let caller = plan.caller.clone();
        let mesh: Mesh = plan.start().await;
        let Mesh { caller: mut first, .. } = mesh;
        assert!(first.stop().await.success());
        // (200 - 128) / 2
        let sidecar = caller.start_with_descriptors(200).ready().await;
        let mut streams = flood(caller.host.outbound()).await;
        until("the rest is shed", async || {
            let listener = listener(&sidecar).await;
            listener["active"] == 36 && listener["shed"]["descriptors"] == FLOOD - 36
        })
        .await;
        for stream in streams.iter_mut().take(36) {
            assert_eq!(ask(stream).await.as_deref(), Some("HTTP/1.1 200 OK"));
        }
        assert_eq!(listener(&sidecar).await["accept_errors"], 0);
        assert!(sidecar.process.log().contains("limits.max_connections is above what the process may open"));
    });
}

#[test]
fn a_process_without_descriptors_goes_on_and_accepts_again_when_it_has_some() {
    run(async {
        let mesh = Mesh::start(1).await;
        let mut kept = TcpStream::connect(mesh.outbound()).await.unwrap();
        assert_eq!(ask(&mut kept).await.as_deref(), Some("HTTP/1.1 200 OK"));
        let pid = mesh.caller.process.pid();
        let used = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        // Behind its back: it counts on more.
        let limit = Rlimit { current: Some(used + 6), maximum: Some(used + 500) };
        prlimit(Pid::from_raw(pid), Resource::Nofile, limit).unwrap();
        let streams = flood(mesh.outbound()).await;
        until("it says so", async || mesh.caller.process.log().contains("cannot accept; trying again")).await;
        for _ in 0..10 {
            assert_eq!(ask(&mut kept).await.as_deref(), Some("HTTP/1.1 200 OK"), "on a kept connection");
        }
        drop(streams);
        let mut new = TcpStream::connect(mesh.outbound()).await.unwrap();
        assert_eq!(ask(&mut new).await.as_deref(), Some("HTTP/1.1 200 OK"), "on a new connection");
        let listener = listener(&mesh.caller).await;
        assert!(listener["accept_errors"].as_u64().unwrap() > 0, "{listener}");
    });
}
