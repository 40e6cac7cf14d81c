//! Who is at the other end of a connection: how many connections each may have, and how long one may be without a stream.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use outrider_certs::SpiffeId;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a connection may be without a stream: nobody opens one for anything else.
const WITHOUT_STREAM: Duration = Duration::from_secs(30);

/// Connections under way, by SPIFFE ID.
#[derive(Debug, Default)]
pub struct Connections(Mutex<HashMap<SpiffeId, usize>>);

/// One connection among those of its identity; given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    id: SpiffeId,
}

impl Connections {
    /// One more of this identity, if it has fewer than `max`.
    #[must_use]
    pub fn admit(self: &Arc<Self>, id: &SpiffeId, max: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(id.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { connections: Arc::clone(self), id: id.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

/// The other end of a connection, and how that is cut.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Who it is.
    pub id: SpiffeId,
    /// Cuts the connection.
    pub cut: CancellationToken,
    streams: watch::Sender<usize>,
}

/// A stream of a connection, for as long as this is there.
#[derive(Debug)]
pub struct StreamOf(watch::Sender<usize>);

impl Remote {
    /// One without streams.
    #[must_use]
    pub fn new(id: SpiffeId) -> Self {
        Self { id, cut: CancellationToken::new(), streams: watch::Sender::default() }
    }

    /// A stream begins.
    #[must_use]
    pub fn stream(&self) -> StreamOf {
        self.streams.send_modify(|count| *count += 1);
        StreamOf(self.streams.clone())
    }

    /// Waits until the connection was without a stream for too long.
    pub async fn is_idle(&self) {
        let mut streams = self.streams.subscribe();
        loop {
            let is_without = *streams.borrow_and_update() == 0;
            let changed = streams.changed();
            let ended = if is_without {
                let Ok(changed) = timeout(WITHOUT_STREAM, changed).await else { return };
                changed
            } else {
                changed.await
            };
            if ended.is_err() {
                return pending().await;
            }
        }
    }
}

impl Drop for StreamOf {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(account: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://mesh.test/ns/shop/sa/{account}")).unwrap()
    }

    #[test]
    fn connections_of_one_identity_have_a_bound() {
        let connections = Arc::<Connections>::default();
        let first = connections.admit(&id("one"), 2).unwrap();
        let _second = connections.admit(&id("one"), 2).unwrap();
        assert!(connections.admit(&id("one"), 2).is_none());
        let other = connections.admit(&id("other"), 2);
        drop((first, other));
        assert!(connections.admit(&id("one"), 2).is_some());
        assert_eq!(connections.0.lock().unwrap().len(), 1, "nothing is kept of who is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_stream_is_idle_after_a_while() {
        let remote = Remote::new(id("one"));
        let stream = remote.stream();
        assert!(timeout(10 * WITHOUT_STREAM, remote.is_idle()).await.is_err(), "it has one");
        drop(stream);
        assert!(timeout(WITHOUT_STREAM / 2, remote.is_idle()).await.is_err(), "it may open another");
        timeout(2 * WITHOUT_STREAM, remote.is_idle()).await.unwrap();
    }
}
