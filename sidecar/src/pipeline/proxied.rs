//! Whose connection it is, by the word of a proxy before us: a PROXY protocol header, before anything else.
//!
//! What it says is where somebody calls from, and no more: it is told to apps, counted and balanced by, and trusted in
//! nothing.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;

use super::{serve::Closed, worker::Worker};
use crate::{
    buffer,
    model::{
        Snapshot,
        closed::Shed,
        proxy_protocol::{Link, ProxyProtocol},
        runtime::Refusal,
    },
    net::Net,
    proxy_protocol::{self, Look},
};

/// Between whom a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Whose connection it is, and whom that one dialled: as a proxy said, or as the network says.
    pub link: Link,
    /// Who is at its other end, as the network says.
    pub neighbour: IpAddr,
    /// The port that it came to, as the network says.
    pub port: u16,
}

impl Ends {
    /// Those of a connection of which nobody has said anything.
    #[must_use]
    pub fn seen(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { link: Link { source, destination }, neighbour: source.ip(), port: destination.port() }
    }

    /// From where it comes, by either word: what holds for some addresses alone holds for none that only a proxy has said,
    /// and for none that the proxy speaks for.
    #[must_use]
    pub fn whence(&self) -> [IpAddr; 2] {
        [self.neighbour, self.link.source.ip()]
    }

    /// The address that a proxy has said, if it is another's than its own.
    #[must_use]
    pub fn said(&self) -> Option<IpAddr> {
        let source = self.link.source.ip();
        (source.to_canonical() != self.neighbour.to_canonical()).then_some(source)
    }
}

/// Reads the header of a connection that may have one, within the time and the number of handshakes that there may be: whose
/// connection it is, and what was read behind the header.
pub(super) async fn read<N: Net, S: AsyncRead + Unpin>(
    worker: &Worker<N>,
    snapshot: &Snapshot,
    rules: Option<&ProxyProtocol>,
    stream: &mut S,
    ends: Ends,
) -> Result<(Ends, Bytes), Closed> {
    let Some(rules) = rules.filter(|rules| rules.listens_to(ends.neighbour)) else {
        // From anybody else its bytes are what they are.
        return Ok((ends, Bytes::new()));
    };
    let place =
        worker.handshakes.begin(ends.neighbour, worker.now()).ok_or(Closed::Shed(Shed::Handshakes))?;
    let limit = snapshot.config.settings.limits.handshake_timeout;
    tokio::select! {
        biased;
        found = tokio::time::timeout(limit, header(rules, stream)) => {
            let refused = |refusal, cause: &str| Closed::Refused(refusal, cause.to_owned());
            let (said, rest) = found.map_err(|_elapsed| refused(Refusal::Timeout, "no PROXY protocol header in time"))??;
            Ok((Ends { link: said.unwrap_or(ends.link), ..ends }, rest))
        }
        () = place.given_up() => Err(Closed::Shed(Shed::Handshakes)),
    }
}

async fn header<S: AsyncRead + Unpin>(
    rules: &ProxyProtocol,
    stream: &mut S,
) -> Result<(Option<Link>, Bytes), Closed> {
    let mut bytes = BytesMut::new();
    loop {
        let has_ended = match proxy_protocol::look(&bytes) {
            Look::Header { length, link } => return Ok((link, bytes.split_off(length).freeze())),
            Look::Malformed(malformed) => {
                let cause = format!("a malformed PROXY protocol header: {malformed}");
                return Err(Closed::Refused(Refusal::BadProxyHeader, cause));
            }
            Look::More => {
                !matches!(buffer::append(stream, &mut bytes, proxy_protocol::MAX_HEADER_BYTES).await, Ok(1..))
            }
            Look::None => true,
        };
        if has_ended && rules.is_required {
            let cause = "no PROXY protocol header, and there must be one".to_owned();
            return Err(Closed::Refused(Refusal::NoProxyHeader, cause));
        }
        if has_ended {
            return Ok((None, bytes.freeze()));
        }
    }
}
