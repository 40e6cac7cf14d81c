//! The ways by which a request's bytes come to the callee's sidecar, and one exchange by one of them.

use std::{net::SocketAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    corpus::Case,
    frames::{self, End},
    outcome::LAST,
};
use crate::harness::{Sidecar, TestMesh, ca::TestLeaf, peer};

/// How soon a connection ends after a case; shorter than the limits that end it anyway.
const CLOSED_WITHIN: Duration = Duration::from_secs(8);

/// Whose bytes the callee's sidecar gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// What the caller's sidecar makes of them: HTTP/2.
    Mesh,
    /// What the caller's sidecar makes of them: HTTP/1.
    Mesh1,
    /// The caller's own: it is a peer that speaks HTTP/1 as sidecars do among each other.
    Sidecar,
    /// The caller's own: it is a peer as others are.
    Standard,
}

impl Way {
    pub(super) const ALL: [Self; 4] = [Self::Mesh, Self::Mesh1, Self::Sidecar, Self::Standard];
    /// Those between which the others lie.
    pub(super) const OUTERMOST: [Self; 2] = [Self::Mesh, Self::Standard];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Mesh1 => "mesh1",
            Self::Sidecar => "sidecar",
            Self::Standard => "standard",
        }
    }
}

/// Two sidecars before a server, with every way to it.
pub(super) struct Ways {
    pub(super) mesh: TestMesh,
    callee: Sidecar,
    caller: Sidecar,
    leaf: TestLeaf,
}

impl Ways {
    /// Before a server there that speaks this.
    pub(super) async fn to(server: SocketAddr, protocol: &str) -> Self {
        let mesh = TestMesh::new();
        let inbound = |name: &str, keys: &str| {
            format!(
                "{{name: {name}, listen: '127.0.0.1:0', app: '{server}', app_protocol: {protocol}{keys}}}"
            )
        };
        let callee = format!(
            "telemetry: {{access_log: {{of: all, path: callee.log}}}}\ninbound: [{}, {}]",
            inbound("in", ""),
            inbound("standard", ", peer: standard"),
        );
        let callee = mesh.start("orders", &callee).await;
        let cluster = |name: &str, keys: &str| {
            let plain = TestMesh::cluster("orders", &[callee.address_of("in")], keys);
            plain.replacen("name: orders", &format!("name: {name}"), 1)
        };
        let caller = format!(
            "outbound: [{}, {}]\nclusters: [{}, {}]",
            "{name: out, listen: '127.0.0.1:0', cluster: orders}",
            "{name: out1, listen: '127.0.0.1:0', cluster: orders1}",
            cluster("orders", "retry: {max_retries: 0}"),
            cluster("orders1", "mesh_protocol: http1, retry: {max_retries: 0}"),
        );
        let caller = mesh.start("web", &caller).await;
        let leaf = mesh.ca.leaf("web");
        Self { mesh, callee, caller, leaf }
    }

    /// Where the callee's sidecar writes what it decided on.
    pub(super) fn records(&self) -> std::path::PathBuf {
        Path::new(self.mesh.dir()).join("callee.log")
    }

    /// Sends a case, and a last request unless the case says no more; everything that came back, and whether the
    /// connection was closed then.
    pub(super) async fn exchange(&self, way: Way, case: &Case) -> (Vec<u8>, bool) {
        let mut bytes = case.bytes.clone();
        if !case.is_ended {
            let last = format!("GET {LAST} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
            bytes.extend_from_slice(last.as_bytes());
        }
        match way {
            Way::Mesh | Way::Mesh1 => over(self.to_caller(way).await, case, &bytes).await,
            Way::Sidecar => over(self.to_callee(way, b"outrider-h1/1").await, case, &bytes).await,
            Way::Standard => over(self.to_callee(way, b"http/1.1").await, case, &bytes).await,
        }
    }

    /// The same over HTTP/2; how the case's stream and that of the last request ended.
    pub(super) async fn streams(&self, way: Way, case: &Case) -> Option<[End; 2]> {
        match way {
            Way::Mesh | Way::Mesh1 => frames::over(self.to_caller(way).await, case).await,
            Way::Sidecar => frames::over(self.to_callee(way, peer::ALPN_H2).await, case).await,
            Way::Standard => frames::over(self.to_callee(way, b"h2").await, case).await,
        }
    }

    async fn to_caller(&self, way: Way) -> TcpStream {
        let listener = if way == Way::Mesh1 { "out1" } else { "out" };
        TcpStream::connect(self.caller.address_of(listener)).await.unwrap()
    }

    async fn to_callee(&self, way: Way, alpn: &[u8]) -> TlsStream<TcpStream> {
        let listener = if way == Way::Standard { "standard" } else { "in" };
        let config = peer::client_config(&self.mesh.ca, Some(&self.leaf), &[alpn]);
        peer::connect(self.callee.address_of(listener), config).await.unwrap()
    }
}

async fn over<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    case: &Case,
    bytes: &[u8],
) -> (Vec<u8>, bool) {
    // It may be closed already, and a close without a word of TLS is one, too.
    drop(stream.write_all(bytes).await);
    drop(stream.flush().await);
    if case.is_ended {
        drop(stream.shutdown().await);
    }
    let mut answers = Vec::new();
    let is_closed = tokio::time::timeout(CLOSED_WITHIN, stream.read_to_end(&mut answers)).await.is_ok();
    (answers, is_closed)
}

/// The statuses of all answers, interim ones left out.
pub(super) fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let lines = text.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).filter(|status| *status >= 200).collect()
}
