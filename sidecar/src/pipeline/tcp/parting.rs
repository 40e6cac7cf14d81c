//! A stream that was not needed ends, and its connection is kept for the next one.

use std::{sync::Arc, time::Duration};

use crate::{connect::dial::Connection, net::Net, pipeline::worker::Worker, relay::session::Session};

/// Time for that: the callee hears of it, and what its app has said meanwhile passes by. Over it the connection is not
/// worth the wait.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection whose stream may turn out not to be needed. If it is here still when this is dropped, and said to be of
/// use, the stream is cancelled and the connection goes back to the pool; nobody waits for it.
#[derive(Debug)]
pub(super) struct Parting<N: Net> {
    worker: Arc<Worker<N>>,
    /// The connection, until it is taken.
    pub(super) session: Option<Session<Connection<N::Stream>>>,
    /// It is of use.
    pub(super) is_of_use: bool,
    /// The callee has ended the stream already.
    pub(super) has_ended: bool,
}

impl<N: Net> Parting<N> {
    /// A connection on which a stream is being opened, or is open.
    pub(super) fn new(
        worker: &Arc<Worker<N>>,
        session: Session<Connection<N::Stream>>,
        is_of_use: bool,
    ) -> Self {
        Self { worker: Arc::clone(worker), session: Some(session), is_of_use, has_ended: false }
    }

    /// Takes it: the stream is needed.
    pub(super) fn take(mut self) -> Option<Session<Connection<N::Stream>>> {
        self.session.take()
    }
}

impl<N: Net> Drop for Parting<N> {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        if !self.is_of_use || session.is_mid_frame() {
            return;
        }
        let (worker, has_ended) = (Arc::clone(&self.worker), self.has_ended);
        self.worker.drains.outbound.spawn(async move {
            let parted = tokio::time::timeout(LIMIT, session.cancel(has_ended)).await;
            if let Ok(Ok(())) = parted {
                worker.tcp_pool.give_back(session.into_stream(), worker.now());
            }
        });
    }
}
