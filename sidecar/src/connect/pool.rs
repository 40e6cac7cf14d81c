//! Reusable HTTP connections of one worker, per endpoint.
//!
//! Workers do not share connections: what a worker lends it also takes back, and no lock is ever waited for. Many
//! requests that find no connection make one together (one dial at a time per endpoint for HTTP/2).
//!
//! # Invariants
//! - A connection is lent for the endpoint it was made for: the key is the endpoint's runtime, which a recycled
//!   address does not share.
//! - An HTTP/1 connection is lent again only after its message ended in both directions, and only if the peer has said
//!   nothing since.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use outrider_certs::SpiffeId;

use super::{
    Error,
    connector::{Connector, Kept},
    dial::{Connection, Speak},
    http_client::Http1,
    http2::{Http2, StreamSlot},
    idle::Taken,
    place::{PoolKey, Target, Terms},
    shared::{Dialing, Stream, Way},
};
use crate::{drain, model::settings::Limits, net::Net, resilience::circuit_breaker};

/// The HTTP connections of one worker.
#[derive(Debug)]
pub struct Pool<N: Net> {
    connector: Arc<Connector<N>>,
}

/// A connection on loan.
#[derive(Debug)]
pub enum Lease {
    /// For one request; give it back when the response has ended.
    Http1 {
        /// The connection.
        connection: Http1,
        /// Whether it was there already.
        is_reused: bool,
    },
    /// A place on a shared one.
    Http2 {
        /// The connection.
        connection: Http2,
        /// The place.
        slot: StreamSlot,
        /// Whether it was there already.
        is_reused: bool,
    },
}

impl Lease {
    /// Whether the connection was there already.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1 { is_reused, .. } | Self::Http2 { is_reused, .. } => *is_reused,
        }
    }

    /// Whom the other end proved to be, in the mesh.
    #[must_use]
    pub fn peer(&self) -> Option<&SpiffeId> {
        match self {
            Self::Http1 { connection, .. } => connection.place().peer(),
            Self::Http2 { connection, .. } => connection.place().peer(),
        }
    }
}

impl<N: Net> Pool<N> {
    /// A pool of the connector's HTTP connections.
    #[must_use]
    pub fn new(connector: Arc<Connector<N>>) -> Self {
        Self { connector }
    }

    /// A connection to the target: a kept one if there is, else a new one.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn lease(&self, target: Target<'_>, speak: Speak, now: Instant) -> Result<Lease, Error> {
        if speak == Speak::Http2 {
            return self.http2(target, now).await;
        }
        let taken = match self.take(target, now) {
            // Their drivers are waiting for their turn on this thread, and have had it after this, with all that the
            // operating system knows.
            Taken::Busy => {
                tokio::task::yield_now().await;
                self.take(target, now)
            }
            taken @ (Taken::Ready(_) | Taken::None) => taken,
        };
        match taken {
            Taken::Ready(connection) => Ok(Lease::Http1 { connection, is_reused: true }),
            Taken::Busy | Taken::None => self.new_http1(target, now).await,
        }
    }

    /// A new HTTP/1 connection, never a kept one, or a place on a shared one: for a request that a kept one just failed.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn fresh(&self, target: Target<'_>, speak: Speak, now: Instant) -> Result<Lease, Error> {
        match speak {
            Speak::Http2 => self.http2(target, now).await,
            Speak::Http1 | Speak::Either | Speak::Tcp | Speak::OwnTls => self.new_http1(target, now).await,
        }
    }

    async fn new_http1(&self, target: Target<'_>, now: Instant) -> Result<Lease, Error> {
        // In a box: it is larger than the rest of a request's future, and rarely needed.
        let connection = Box::pin(async {
            let connection = self.connector.open_for_one(target, Speak::Http1, now).await?;
            Http1::start(connection, &target.cluster.limits).await
        })
        .await?;
        Ok(Lease::Http1 { connection, is_reused: false })
    }

    fn take(&self, target: Target<'_>, now: Instant) -> Taken<Http1> {
        let terms = Terms::of(&target.cluster.settings);
        match self.connector.idles().take(&PoolKey::new(target, Speak::Http1), terms, now) {
            Taken::Ready(Kept::Http1(connection)) => {
                target.cluster.runtime.pool.reused.fetch_add(1, Ordering::Relaxed);
                Taken::Ready(connection)
            }
            // Under this key there is only HTTP/1.
            Taken::Ready(Kept::Framed(_)) | Taken::None => Taken::None,
            Taken::Busy => Taken::Busy,
        }
    }

    /// Takes an HTTP/1 connection back after its response has ended.
    pub fn give_back(&self, connection: Http1, now: Instant) {
        if connection.is_fit_to_keep() {
            self.connector.keep(Kept::Http1(connection), now);
        }
    }

    /// Takes a connection in on which neither side has said anything, for whoever needs one that speaks HTTP/1.
    pub async fn adopt(&self, mut connection: Connection<N::Stream>, limits: &Limits, now: Instant) {
        connection.becomes(Speak::Http1);
        // One on which that fails is closed.
        if let Ok(connection) = Http1::start(connection, limits).await {
            self.give_back(connection, now);
        }
    }

    /// Takes a new HTTP/2 connection in, for whoever needs one.
    pub(super) fn keep_http2(&self, target: Target<'_>, connection: Http2) {
        self.connector.shared().add(target, connection);
    }

    async fn http2(&self, target: Target<'_>, now: Instant) -> Result<Lease, Error> {
        let key = PoolKey::new(target, Speak::Http2);
        let stream = self.connector.shared().stream(&key);
        let is_reused = stream.is_some();
        let (connection, slot) = match stream {
            Some(stream) => {
                target.cluster.runtime.pool.reused.fetch_add(1, Ordering::Relaxed);
                stream
            }
            // In a box, as there.
            None => Box::pin(self.wait_for_http2(target, key, now)).await?,
        };
        Ok(Lease::Http2 { connection, slot, is_reused })
    }

    /// Waits for a connection with room; the request counts as pending meanwhile.
    async fn wait_for_http2(&self, target: Target<'_>, key: PoolKey, now: Instant) -> Result<Stream, Error> {
        let _pending = circuit_breaker::admit_pending(target.cluster)?;
        let waiting = async {
            loop {
                let way = self.connector.shared().stream_or_dial(target, key);
                let (dialing, is_new) = match way {
                    Way::Stream(stream) => return Ok(stream),
                    Way::Dial { dialing, is_new } => (dialing, is_new),
                };
                if is_new {
                    self.start_dial(target, dialing.clone(), now);
                }
                let outcome = dialing.ended().await;
                let open = self.connector.shared().any_open(&key);
                match (outcome, open) {
                    // The stream waits until the peer allows one.
                    (Ok(()), Some(stream)) if stream.0.allows_none() => return Ok(stream),
                    (Ok(()), Some(_)) => {}
                    // A peer that closes what it has just accepted must not be dialled for ever by one request.
                    (Ok(()), None) => return Err(Error::ClosedAtOnce),
                    // Better a stream that waits for its turn than none.
                    (Err(Error::Overflow(_)), Some(stream)) => return Ok(stream),
                    (Err(error), _) => return Err(error),
                }
            }
        };
        let limit = target.cluster.settings.timeouts.connect;
        tokio::time::timeout(limit, waiting).await.map_err(|_elapsed| Error::Timeout)?
    }

    /// Dials in a task of its own: a request that goes away must not take the others' connection with it.
    fn start_dial(&self, target: Target<'_>, dialing: Dialing, now: Instant) {
        let connector = Arc::clone(&self.connector);
        let (cluster, endpoint) = (Arc::clone(target.cluster), Arc::clone(target.endpoint));
        let identity = target.identity.cloned();
        let over = dialing.over.drop_guard();
        drain::spawn_background(async move {
            // Dropped last, and also if this task is.
            let _over = over;
            let target = Target { cluster: &cluster, endpoint: &endpoint, identity: identity.as_ref() };
            let limit = cluster.settings.timeouts.connect;
            let dialed = async {
                let connection = connector.open(target, Speak::Http2, now).await?;
                Http2::start(connection, &cluster.limits).await
            };
            let dialed = tokio::time::timeout(limit, dialed).await.unwrap_or(Err(Error::Timeout));
            let (connection, outcome) = match dialed {
                Ok(connection) => (Some(connection), Ok(())),
                Err(error) => (None, Err(error)),
            };
            connector.shared().dialed(&PoolKey::new(target, Speak::Http2), connection);
            // Only this task sets it.
            dialing.outcome.get_or_init(|| outcome);
        });
    }
}
