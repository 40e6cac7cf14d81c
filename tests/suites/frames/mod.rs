//! Opaque streams between sidecars, frame by frame: one end is a sidecar, the other is played by the test.

mod callee;
mod caller;
mod closing;
mod hostile;
mod kept;
mod undecided;

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client;

use crate::harness::{
    TestMesh,
    peer::{self, ALPN_TCP},
    soon,
};

pub(super) const OPAQUE: &[u8] = b"kind=opaque";
pub(super) const UNDECIDED: &[u8] = b"kind=undecided";

/// A frame, as `relay/frame.rs` draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Open(Vec<u8>),
    Accepted,
    Data(Vec<u8>),
    Fin,
    Rst,
    NotProcessed(Vec<u8>),
    Cancel,
}

impl Frame {
    pub(super) fn open(parameters: &[u8]) -> Self {
        Self::Open(parameters.to_vec())
    }

    pub(super) fn data(bytes: &[u8]) -> Self {
        Self::Data(bytes.to_vec())
    }

    pub(super) fn refused(reason: &str) -> Self {
        Self::NotProcessed(reason.as_bytes().to_vec())
    }

    fn bytes(&self) -> Vec<u8> {
        let (code, payload): (u8, &[u8]) = match self {
            Self::Open(parameters) => (1, parameters),
            Self::Accepted => (2, b""),
            Self::Data(bytes) => (3, bytes),
            Self::Fin => (4, b""),
            Self::Rst => (5, b""),
            Self::NotProcessed(reason) => (6, reason),
            Self::Cancel => (7, b""),
        };
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[code], &length[..], payload].concat()
    }
}

/// Writes frames at once.
pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, frames: &[Frame]) {
    stream.write_all(&frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await.unwrap();
}

/// The next frame; `None` at the connection's end, however it ended.
pub(super) async fn next<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Frame> {
    soon("the next frame", async {
        let mut header = [0; 3];
        stream.read_exact(&mut header).await.ok()?;
        let [code, high, low] = header;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        stream.read_exact(&mut payload).await.ok()?;
        Some(match code {
            1 => Frame::Open(payload),
            2 => Frame::Accepted,
            3 => Frame::Data(payload),
            4 => Frame::Fin,
            5 => Frame::Rst,
            6 => Frame::NotProcessed(payload),
            7 => Frame::Cancel,
            unknown => panic!("frame of type {unknown}"),
        })
    })
    .await
}

/// Asserts which frames come next.
pub(super) async fn expect<S: AsyncRead + Unpin>(stream: &mut S, frames: &[Frame]) {
    for (turn, frame) in frames.iter().enumerate() {
        assert_eq!(next(stream).await.as_ref(), Some(frame), "frame {turn}");
    }
}

/// A connection of `web`, played by the test, to a sidecar.
async fn connect(mesh: &TestMesh, sidecar: SocketAddr) -> client::TlsStream<TcpStream> {
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[ALPN_TCP]);
    peer::connect(sidecar, config).await.unwrap()
}
