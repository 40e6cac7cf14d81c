//! Kept `outrider-tcp/1` connections of one worker: a short stream then costs no handshake.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Error,
    connector::{Connector, Kept},
    dial::{Connection, Speak},
    idle::Taken,
    place::{PoolKey, Target, Terms},
};
use crate::{model::pool_counts::Closed, net::Net};

/// The framed connections of one worker.
#[derive(Debug)]
pub struct TcpPool<N: Net> {
    connector: Arc<Connector<N>>,
}

impl<N: Net> TcpPool<N> {
    /// A pool of the connector's framed connections.
    #[must_use]
    pub fn new(connector: Arc<Connector<N>>) -> Self {
        Self { connector }
    }

    /// A kept connection on which no stream is under way, and of which the peer has neither closed its side nor said
    /// anything out of turn.
    #[must_use]
    pub fn take(&self, target: Target<'_>, now: Instant) -> Option<Connection<N::Stream>> {
        let terms = Terms::of(&target.cluster.settings);
        match self.connector.idles().take(&PoolKey::new(target, Speak::Tcp), terms, now) {
            Taken::Ready(Kept::Framed(connection)) => {
                target.cluster.runtime.pool.reused.fetch_add(1, Ordering::Relaxed);
                Some(connection)
            }
            // Under this key there is only what carries frames.
            Taken::Ready(Kept::Http1(_)) | Taken::Busy | Taken::None => None,
        }
    }

    /// A new connection, for [`Speak::Tcp`] or [`Speak::OwnTls`].
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn fresh(
        &self,
        target: Target<'_>,
        speak: Speak,
        now: Instant,
    ) -> Result<Connection<N::Stream>, Error> {
        self.connector.open_for_one(target, speak, now).await
    }

    /// Takes a connection back whose stream has ended in both directions.
    pub fn give_back(&self, connection: Connection<N::Stream>, now: Instant) {
        self.connector.keep(Kept::Framed(connection), now);
    }

    /// Closes the target's kept connections: one of them got no answer, and the others are as old.
    pub fn distrust(&self, target: Target<'_>) {
        self.connector.idles().forget(&PoolKey::new(target, Speak::Tcp), Closed::Distrusted);
    }
}
