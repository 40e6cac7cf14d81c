//! A TCP connection to whoever has a name: for the control side, which has a few.

use std::{io, net::SocketAddr, time::Duration};

use super::{Net, Purpose};

/// One address; leaves time for a second one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Why nobody was reached.
#[derive(Debug)]
pub enum Error {
    /// The name has no address.
    Resolve(io::Error),
    /// What the last attempt ended with.
    Connect(io::Error),
}

/// A connection to `host:port`, and to which of its addresses. The whole may take longer than a caller wants to wait.
///
/// # Errors
/// [`Error`].
pub async fn reach<N: Net>(net: &N, host_and_port: &str) -> Result<(N::Stream, SocketAddr), Error> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in resolve(host_and_port).await?.into_iter().take(MAX_ADDRESSES) {
        match net.connect(address, Purpose::Any, CONNECT_TIMEOUT).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = error,
        }
    }
    Err(Error::Connect(last))
}

async fn resolve(host_and_port: &str) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host_and_port.parse() {
        return Ok(vec![address]);
    }
    Ok(tokio::net::lookup_host(host_and_port).await.map_err(Error::Resolve)?.collect())
}
