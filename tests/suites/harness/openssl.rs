//! OpenSSL as a peer, for what our TLS library cannot or does not do. Where it is not installed the tests say so.

use std::{fs, net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use super::{TestCa, TestLeaf, TestMesh, soon};

/// Which side OpenSSL plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// OpenSSL with a certificate, and with the roots of that CA; `None`, and said so, without OpenSSL.
pub(crate) async fn command(mesh: &TestMesh, side: Side, leaf: &TestLeaf, ca: &TestCa) -> Option<Command> {
    let is_there = Command::new("openssl").arg("version").stdout(Stdio::null()).status().await.is_ok();
    if !is_there {
        eprintln!("SKIPPED: openssl is not installed");
        return None;
    }
    let mut command = Command::new("openssl");
    command.kill_on_drop(true).stdin(Stdio::null()).stderr(Stdio::null());
    command.env("OPENSSL_CONF", "/dev/null");
    command.arg(if side == Side::Server { "s_server" } else { "s_client" });
    let files = [("-cert", leaf.pem()), ("-key", leaf.key_pem()), ("-CAfile", ca.bundle().to_pem())];
    for (flag, text) in files {
        let path = mesh.dir().join(format!("openssl-{side:?}{flag}.pem"));
        fs::write(&path, text).unwrap();
        command.arg(flag).arg(path);
    }
    Some(command)
}

/// Starts a server that asks its clients for a certificate if it shows one of the mesh; the port is in its first lines.
pub(crate) async fn serve(mut command: Command, arguments: &[&str]) -> (Child, SocketAddr) {
    command.args(arguments).args(["-accept", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = soon("openssl says its port", lines.next_line()).await.unwrap().unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            // Read on, or OpenSSL would wait for us.
            tokio::spawn(async move { while let Ok(Some(_line)) = lines.next_line().await {} });
            return (child, address.parse().unwrap());
        }
    }
}

/// Runs a client that sends `bytes` and reads until the server closes; what it printed.
pub(crate) async fn call(
    mut command: Command,
    address: SocketAddr,
    arguments: &[&str],
    bytes: &[u8],
) -> String {
    command.args(["-connect", &address.to_string()]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may have ended already.
    drop(input.write_all(bytes).await);
    // Its end of input would end it before the answer.
    let output = soon("openssl ends", child.wait_with_output()).await.unwrap();
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
