//! What the mesh's programs that serve have in common: their log, their listeners, their end.

pub mod http_server;
pub mod quota;
pub mod status;
mod tasks;

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

pub use tasks::Tasks;

/// Connections that wait to be accepted; the kernel's `somaxconn` may be less.
const BACKLOG: u32 = 1024;

/// How to log.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Starts the program's own log, on standard error.
///
/// # Errors
/// The filter is none, or there is a log already.
pub fn start_log(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is not a filter"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("the log cannot start: {e}"))
}

/// A listener there; of IPv4 alone in place of `[::]` where there is no IPv6. `flag` is the one that the address is from.
///
/// # Errors
/// The address, and the flag to choose another.
pub fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    let listener = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    at(address, listener)
        .with_context(|| format!("{address}: cannot listen there; choose another address with {flag}"))
}

/// Does it at that address; at `0.0.0.0` in place of `[::]` where there is no IPv6: `[::]` stands for every address there
/// is.
///
/// # Errors
/// As `is_done`.
pub fn at<T>(address: SocketAddr, mut is_done: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match is_done(address) {
        Err(error) if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) && is_without_ipv6(&error) => {
            is_done((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        done => done,
    }
}

/// Whether that is why there is no socket.
#[must_use]
pub fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// Cancels `stop` on the first SIGTERM or SIGINT.
///
/// # Errors
/// Signals cannot be waited for.
pub fn stop_on_signal(stop: CancellationToken) -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_that_of_ipv4_alone_where_there_is_no_ipv6() {
        let without_ipv6 = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address.to_string()),
            SocketAddr::V6(_) => Err(Errno::AFNOSUPPORT.into()),
        };
        let done = |text: &str| at(text.parse().unwrap(), without_ipv6);
        assert_eq!(done("[::]:4343").unwrap(), "0.0.0.0:4343");
        assert_eq!(done("127.0.0.1:1").unwrap(), "127.0.0.1:1");
        done("[::1]:4343").expect_err("that one is of IPv6 alone");
        let taken = |_| Err::<(), _>(Errno::ADDRINUSE.into());
        at("[::]:4343".parse().unwrap(), taken).expect_err("another reason");
    }

    #[tokio::test]
    async fn who_cannot_listen_is_told_the_flag() {
        let first = listen("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let taken = listen(first.local_addr().unwrap(), "--listen").unwrap_err();
        assert!(taken.to_string().contains("choose another address with --listen"), "{taken}");
    }
}
