//! Foreign apps: started, waited for, and gone when dropped.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{mesh::Mesh, programs::Call};
use crate::processes::{DEADLINE, process::Process, until};

/// Starts a script that takes host and port as its first arguments, then `more`.
pub(super) async fn script(mesh: &Mesh, address: SocketAddr, name: &str, more: &[&str]) -> Process {
    let mut arguments = vec![address.ip().to_string(), address.port().to_string()];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    start(mesh, address, name, arguments).await
}

/// Starts a program that will listen at `address`, and waits until it does.
pub(super) async fn start(mesh: &Mesh, address: SocketAddr, name: &str, arguments: Vec<String>) -> Process {
    let call = Call::new(name, arguments);
    let mut process = Process::start(name, &call.program, call.arguments, mesh.folder.path());
    until(&format!("{name} listens at {address}"), async || {
        assert!(!process.has_ended(), "{name} ended while starting");
        TcpStream::connect(address).await.is_ok()
    })
    .await;
    process
}

/// Kills it and waits for its end, so that its address is free.
pub(super) async fn stop(mut process: Process) {
    process.kill();
    process.exited(DEADLINE).await;
}

/// The Node app with HTTP/1 (`http`) or HTTP/2 with prior knowledge (`h2c`).
pub(super) async fn node(mesh: &Mesh, version: &str) -> Process {
    script(mesh, mesh.app(), "http_app.js", &[version]).await
}
