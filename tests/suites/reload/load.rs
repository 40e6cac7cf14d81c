//! Load that keeps its connections, and leaves one that is said to close.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::{StatusCode, Version};
use tokio::task::JoinSet;

use crate::harness::{Client, body, client::field, eventually, soon};

/// Callers of each kind.
const CALLERS: usize = 2;

/// Apps that call as fast as they are answered, until told to stop: with HTTP/1.1, with HTTP/2, and with a connection
/// for every request.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    callers: JoinSet<Vec<String>>,
}

impl Load {
    pub(super) fn start(address: SocketAddr) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut callers = JoinSet::new();
        let kinds = [(Version::HTTP_11, true), (Version::HTTP_11, false), (Version::HTTP_2, true)];
        for (version, keeps) in kinds.into_iter().flat_map(|kind| [kind; CALLERS]) {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            callers.spawn(async move {
                let mut failures = Vec::new();
                let mut client = None;
                while !stop.load(Ordering::Relaxed) {
                    let (mut used, is_fresh) = match client.take() {
                        Some(client) => (client, false),
                        None => (Client::connect(address, version).await, true),
                    };
                    match used.get("/").await {
                        Ok(response) if response.status() == StatusCode::OK => {
                            let closes = field(&response, "connection") == Some("close");
                            body::text(response.into_body()).await;
                            client = (keeps && !closes).then_some(used);
                        }
                        Ok(response) => failures.push(format!("{}: {:?}", response.status(), response)),
                        // HTTP/2 says GOAWAY: what crossed it was not processed, and the next connection takes it.
                        Err(error) if version == Version::HTTP_2 && !is_fresh && is_closed(&error) => {}
                        Err(error) => failures.push(format!("{version:?}, kept {keeps}: {error:?}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            });
        }
        Self { stop, done, callers }
    }

    /// Lets some more requests pass.
    pub(super) async fn go_on(&self, requests: usize) {
        let until = self.done.load(Ordering::Relaxed) + requests;
        eventually("the load goes on", || self.done.load(Ordering::Relaxed) >= until).await;
    }

    /// Stops; panics if a request failed.
    pub(super) async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(caller) = soon("the load ends", self.callers.join_next()).await {
            failures.extend(caller.unwrap());
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

/// Whether the connection was closed before the request was sent.
fn is_closed(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed()
}
