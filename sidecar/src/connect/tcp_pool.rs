//! Kept `outrider-tcp/1` connections of one worker: a short stream then costs no handshake.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Instant,
};

use indexmap::IndexMap;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Error,
    dial::{Connection, Dialer, Speak},
    pool::Target,
};
use crate::{
    model::{ClusterName, Endpoint, Snapshot},
    net::{Net, Stream},
};

/// Kept connections per endpoint and worker; more are closed when their stream ends.
const MAX_IDLE_PER_ENDPOINT: usize = 64;

/// The framed connections of one worker.
#[derive(Debug)]
pub struct TcpPool<N: Net> {
    dialer: Dialer<N>,
    entries: Mutex<IndexMap<usize, Entry<N::Stream>>>,
}

#[derive(Debug)]
struct Entry<S> {
    /// By name: its settings are those of the newest snapshot, whoever made the entry.
    cluster: ClusterName,
    endpoint: Arc<Endpoint>,
    idle: Vec<(Connection<S>, Instant)>,
}

impl<N: Net> TcpPool<N> {
    /// An empty pool that dials by `dialer`.
    #[must_use]
    pub fn new(dialer: Dialer<N>) -> Self {
        Self { dialer, entries: Mutex::default() }
    }

    /// A connection on which no stream is under way.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn lease(&self, target: &Target) -> Result<Connection<N::Stream>, Error> {
        while let Some(mut kept) = self.take(target) {
            if poll_fn(|cx| Poll::Ready(is_quiet(&mut kept, cx))).await {
                return Ok(kept);
            }
        }
        self.dialer.dial(&target.cluster, &target.endpoint, target.identity.as_ref(), Speak::Tcp).await
    }

    fn take(&self, target: &Target) -> Option<Connection<N::Stream>> {
        self.lock().get_mut(&key(target))?.idle.pop().map(|(connection, _since)| connection)
    }

    /// Takes a connection back whose stream has ended in both directions.
    pub fn give_back(&self, target: &Target, connection: Connection<N::Stream>, now: Instant) {
        if target.endpoint.runtime.is_removed.load(Ordering::Relaxed) {
            return;
        }
        let mut entries = self.lock();
        let entry = entries.entry(key(target)).or_insert_with(|| Entry {
            cluster: target.cluster.name().clone(),
            endpoint: Arc::clone(&target.endpoint),
            idle: Vec::new(),
        });
        if entry.idle.len() < MAX_IDLE_PER_ENDPOINT {
            entry.idle.push((connection, now));
        }
    }

    /// Closes what was idle for too long by the settings of that snapshot, what the peer closed, and what belongs to
    /// removed endpoints.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        let mut cx = Context::from_waker(Waker::noop());
        self.lock().retain(|_key, entry| {
            let is_removed = entry.endpoint.runtime.is_removed.load(Ordering::Relaxed);
            let Some(cluster) = snapshot.cluster(&entry.cluster).filter(|_| !is_removed) else {
                return false;
            };
            let limit = cluster.settings.timeouts.pool_idle;
            entry.idle.retain_mut(|(connection, since)| {
                now.saturating_duration_since(*since) < limit && is_quiet(connection, &mut cx)
            });
            !entry.idle.is_empty()
        });
    }

    /// Closes every kept connection.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, IndexMap<usize, Entry<N::Stream>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the peer has neither closed the connection nor said anything out of turn.
fn is_quiet<S: Stream>(connection: &mut Connection<S>, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    Pin::new(connection).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}

fn key(target: &Target) -> usize {
    Arc::as_ptr(&target.endpoint.runtime) as usize
}
