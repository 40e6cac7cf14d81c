//! The socket beside the admin socket, where a successor fetches our listening sockets.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    BoundSocket,
    server::{is_trusted, pause, until},
};
use crate::net::Offers;

/// Time for a successor to take everything.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Where that socket is: the admin socket's path and `.fd`, which its longest path leaves room for.
#[must_use]
pub fn handover_path(admin_socket: &Path) -> PathBuf {
    let mut path = admin_socket.as_os_str().to_owned();
    path.push(".fd");
    path.into()
}

/// Sends what is offered to whoever connects and is our own user or root, until `shutdown` completes. One at a time:
/// there is one successor.
pub async fn serve_handover(socket: BoundSocket, offers: Offers, shutdown: impl Future<Output = ()> + Send) {
    let serving = async {
        loop {
            match socket.listener().accept().await {
                Ok((stream, _)) if is_trusted(&stream) => {
                    match tokio::time::timeout(SEND_TIMEOUT, offers.send(&stream)).await {
                        Ok(Ok(())) => tracing::info!("a successor has taken our listening sockets over"),
                        Ok(Err(error)) => tracing::warn!(%error, "handing our listening sockets over"),
                        Err(_elapsed) => tracing::warn!("a successor did not take our listening sockets"),
                    }
                }
                Ok((_stranger, _)) => {
                    tracing::warn!("refused our listening sockets to another user");
                }
                Err(error) => pause(&error).await,
            }
        }
    };
    until(serving, shutdown).await;
}
