//! A stream of which nobody knows yet who speaks first.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    early::Early,
    opening::{Opening, Way},
    outbound::{self, Destination, Opened},
    parting::Parting,
};
use crate::{
    balance::InFlight,
    buffer::Buffer,
    connect::dial::Connection,
    net::Net,
    pipeline::{door::Door, error::ProxyError, rate_limit::Reserved, trace, worker::Worker},
    relay::{
        copy::Before,
        frame::{MAX_PAYLOAD_BYTES, StreamKind},
        session::Source,
    },
    resilience::{circuit_breaker::RequestSlot, retry_budget},
    telemetry::{record::RequestRecord, trail::Traffic},
    tls::trust::Cut,
};

/// A way to an upstream whose app is connected, and on which the own app has said nothing. Dropped, it ends unused: the
/// connection to a sidecar goes back to the pool, any other is closed.
#[derive(Debug)]
pub struct Undecided<N: Net> {
    far: Far<N>,
    worker: Arc<Worker<N>>,
    destination: Destination,
    held: (InFlight, RequestSlot),
    half_open: Option<Duration>,
    /// What it has used of the cluster's rate limits, should it be a stream.
    charge: Reserved<N>,
    /// How the far side broke off. A connection tells it once.
    broken: Option<io::ErrorKind>,
    /// When it was open.
    open: Instant,
    /// Counts only if it is a stream.
    record: RequestRecord,
}

/// Why an undecided stream could not be opened; its record counts if its app is told so.
#[derive(Debug)]
pub struct NotOpened {
    error: ProxyError,
    record: RequestRecord,
}

#[derive(Debug)]
enum Far<N: Net> {
    Framed(Parting<N>, Cut),
    Bare(Connection<N::Stream>, HasEnded),
}

type HasEnded = bool;

impl<N: Net> Undecided<N> {
    /// Opens one; elsewhere if an endpoint does not take it, as often as the cluster's policy and budget allow. Given up
    /// on the way, what is there of a connection to a sidecar is kept. `record` is its own, of [`Self::record`].
    ///
    /// # Errors
    /// [`NotOpened`]; the far app has not seen anything.
    pub async fn open(
        worker: &Arc<Worker<N>>,
        destination: Destination,
        record: RequestRecord,
    ) -> Result<Self, Box<NotOpened>> {
        let mut opening = Opening { kind: StreamKind::Undecided, early: Early::nothing() };
        let opened = async {
            let charge = Reserved::new(worker, &destination.cluster)?;
            let opened = outbound::open(worker, &destination, &mut opening, &record).await?;
            Ok((charge, opened))
        };
        let (charge, opened) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return Err(Box::new(NotOpened { error, record })),
        };
        let Opened { way, in_flight, slot, half_open, cluster: _named } = opened;
        let far = match way {
            Way::Framed(session, cut) => Far::Framed(Parting::new(worker, session, true), cut),
            Way::Bare(connection) => Far::Bare(connection, false),
        };
        let worker = Arc::clone(worker);
        let open = worker.now();
        let held = (in_flight, slot);
        Ok(Self { far, worker, destination, held, half_open, charge, broken: None, open, record })
    }

    /// The record of one that is about to be opened there, should it be a stream.
    pub fn record(worker: &Worker<N>, door: &Door, destination: &Destination) -> RequestRecord {
        let mut record = door.record(worker, Traffic::Stream, worker.now());
        record.is_tentative();
        drop(trace::begin((worker, door), &destination.config, None, &mut record));
        destination.note(worker, door, &mut record);
        record
    }

    /// Waits for the next bytes that the far app says; none are its end. Cancel-safe.
    ///
    /// # Errors
    /// As the connection reports them: the stream cannot be used, but for telling the own app of its failure.
    pub async fn server_spoke(&mut self) -> io::Result<Bytes> {
        let spoke = self.read().await;
        if let Err(error) = &spoke {
            self.broken = Some(error.kind());
        }
        spoke
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        poll_fn(|cx| {
            let mut buffer = Buffer::take();
            let mut read = ReadBuf::new(buffer.bytes_mut().get_mut(..MAX_PAYLOAD_BYTES).unwrap_or_default());
            let has_ended = match &mut self.far {
                Far::Framed(Parting { session: Some(session), has_ended, .. }, _) if !*has_ended => {
                    ready!(Pin::new(&mut Source(session)).poll_read(cx, &mut read))?;
                    has_ended
                }
                Far::Bare(connection, has_ended) if !*has_ended => {
                    ready!(Pin::new(connection).poll_read(cx, &mut read))?;
                    has_ended
                }
                // Told once already.
                Far::Framed(..) | Far::Bare(..) => return Poll::Ready(Ok(Bytes::new())),
            };
            *has_ended = read.filled().is_empty();
            Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
        })
        .await
    }

    /// It is not needed. Nobody waits for what that takes.
    pub fn cancel(self) {
        drop(self);
    }

    /// It is an opaque stream: relays between it and the own app to the end. `client` and `server` are what has been read
    /// of the two sides so far.
    pub async fn into_opaque(self, stream: N::Stream, client: Bytes, server: Bytes) {
        let Self { far, worker, destination, held, half_open, charge, broken, open, mut record } = self;
        charge.spend();
        let (in_flight, slot) = held;
        record.is_real();
        record.head_received(open);
        retry_budget::record_request(&destination.cluster.runtime.retry_budget, open);
        let cluster = destination.cluster.name().clone();
        drop(destination);
        let (way, has_ended) = match far {
            Far::Bare(connection, has_ended) => (Some(Way::Bare(connection)), has_ended),
            Far::Framed(parting, cut) => {
                let has_ended = parting.has_ended;
                (parting.take().map(|session| Way::Framed(session, cut)), has_ended)
            }
        };
        // It is there: only this takes it.
        let Some(way) = way else { return };
        let ended = match broken {
            Some(kind) => Some(Err(kind.into())),
            None => has_ended.then_some(Ok(())),
        };
        let up = Before { bytes: client, ..Before::default() };
        let down = Before { bytes: server, ended, is_closed: false };
        Opened { way, in_flight, slot, cluster, half_open }.carry(&worker, stream, (up, down), record).await;
    }
}

impl NotOpened {
    /// The own app is to be told that there is nobody: an undecided stream could not be opened, and its own app has said
    /// nothing. Counts it.
    pub fn tell<N: Net>(self, worker: &Worker<N>, door: &Door, stream: &N::Stream) {
        let Self { error, mut record } = self;
        record.is_real();
        outbound::tell((worker, door), record, stream, &error);
    }
}
