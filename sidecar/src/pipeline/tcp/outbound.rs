//! A stream of the own app on its way to a cluster.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    carry, carry_bare,
    early::Early,
    opening::{Opening, Way, open_somewhere},
};
use crate::{
    balance::InFlight,
    connect::dial::Speak,
    model::{Cluster, Identity, Snapshot, flag::ResponseFlag, transport::Transport},
    net::{Net, Stream},
    pipeline::{destination, door::Door, error::ProxyError, respond, worker::Worker},
    relay::{
        copy::{Before, End, Setup},
        frame::StreamKind,
    },
    resilience::{
        circuit_breaker::{self, RequestSlot},
        retry_budget,
    },
    telemetry::record::RequestRecord,
};

/// Where a stream goes, and as whom we call there: of one snapshot.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Our identity.
    pub identity: Option<Arc<Identity>>,
    /// [`Speak::Tcp`], or [`Speak::OwnTls`].
    pub speak: Speak,
}

impl Destination {
    /// A cluster of that snapshot.
    #[must_use]
    pub fn new(cluster: &Arc<Cluster>, snapshot: &Snapshot) -> Self {
        Self { cluster: Arc::clone(cluster), identity: snapshot.identity.clone(), speak: Speak::Tcp }
    }

    /// The same for a stream that is TLS of the app's own: it needs none of ours to a server outside the mesh that is
    /// reached by TLS.
    #[must_use]
    pub fn with_own_tls(self) -> Self {
        let is_public = matches!(self.cluster.settings.transport, Transport::Public(_));
        Self { speak: if is_public { Speak::OwnTls } else { self.speak }, ..self }
    }
}

/// Carries one stream of the own app to the cluster of its listener. `first` has been read of it already.
pub async fn outbound<N: Net>(worker: &Arc<Worker<N>>, door: &Door, stream: N::Stream, first: Bytes) {
    let snapshot = door.load(&worker.snapshots);
    let destination = destination::find(worker, door, &snapshot, None);
    let destination = destination.map(|cluster| Destination::new(&cluster, &snapshot));
    drop(snapshot);
    match destination {
        Ok(destination) => outbound_to(worker, door, destination, stream, first).await,
        Err(error) => refuse(worker, door, &stream, &error),
    }
}

/// A stream that leads nowhere: the app is told as TCP tells it, and it is counted.
pub fn refuse<N: Net>(worker: &Worker<N>, door: &Door, stream: &N::Stream, error: &ProxyError) {
    let record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
    tell(door, record, stream, error);
}

/// As [`outbound`], to that cluster.
pub async fn outbound_to<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    destination: Destination,
    mut stream: N::Stream,
    first: Bytes,
) {
    let mut record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
    record.routed(Arc::clone(&destination.cluster.runtime));
    // Boxed for its own time: a stream may last for days.
    let opened = Box::pin(async {
        retry_budget::record_request(&destination.cluster.runtime.retry_budget, worker.now());
        let early = Early::new(&mut stream, first);
        let mut opening = Opening { kind: StreamKind::Opaque, early };
        let opened = open(worker, &destination, &mut opening).await?;
        Ok((opened, opening.early.into_before()))
    })
    .await;
    drop(destination);
    match opened {
        Ok((opened, up)) => {
            record.head_received(worker.now());
            opened.carry(worker, stream, (up, Before::default()), record).await;
        }
        Err(error) => tell(door, record, &stream, &error),
    }
}

/// The app is told as TCP tells it: there is nobody.
pub(super) fn tell<S: Stream>(door: &Door, mut record: RequestRecord, stream: &S, error: &ProxyError) {
    stream.reset_on_close();
    record.set_flag(error.flag());
    record.finish();
    tracing::debug!(listener = door.accepted.name(), error = respond::chain(error), "stream refused");
}

/// A way that is open, and what is held for it.
#[derive(Debug)]
pub(in crate::pipeline) struct Opened<S> {
    pub(in crate::pipeline) way: Way<S>,
    pub(in crate::pipeline) in_flight: InFlight,
    pub(in crate::pipeline) slot: RequestSlot,
    /// The cluster's.
    pub(super) half_open: Option<Duration>,
}

/// Opens a way for a stream that has said nothing and is not read meanwhile.
///
/// # Errors
/// As of any stream; none of it was sent.
pub(in crate::pipeline) async fn open_silent<N: Net>(
    worker: &Arc<Worker<N>>,
    destination: &Destination,
) -> Result<Opened<N::Stream>, ProxyError> {
    let mut opening = Opening { kind: StreamKind::Opaque, early: Early::nothing() };
    open(worker, destination, &mut opening).await
}

/// Opens a way within the cluster's caps.
pub(super) async fn open<N: Net>(
    worker: &Arc<Worker<N>>,
    destination: &Destination,
    opening: &mut Opening<'_, N::Stream>,
) -> Result<Opened<N::Stream>, ProxyError> {
    let cluster = &destination.cluster;
    let slot = circuit_breaker::admit_request(cluster, worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })?;
    let (way, mut in_flight) = open_somewhere(worker, destination, opening).await?;
    in_flight.answered(worker.now());
    Ok(Opened { way, in_flight, slot, half_open: cluster.settings.timeouts.half_open })
}

impl<S: Stream> Opened<S> {
    /// Relays to the end. Of both directions, what was before: from the app, and from the far side.
    pub(super) async fn carry<N: Net<Stream = S>>(
        self,
        worker: &Arc<Worker<N>>,
        mut stream: S,
        (up, down): (Before, Before),
        mut record: RequestRecord,
    ) {
        let Self { way, half_open, in_flight: _in_flight, slot: _slot } = self;
        let setup = Setup { up, down, half_open };
        match way {
            Way::Framed(mut session, cut) => match carry(&mut stream, &mut session, cut, setup).await {
                End::Orderly => worker.tcp_pool.give_back(session.into_stream(), worker.now()),
                End::PlainReset => record.set_flag(ResponseFlag::DC),
                // No callee cancels: only a caller's word is taken for that.
                End::FarReset | End::Cancelled { .. } => record.set_flag(ResponseFlag::UC),
                End::Stalled => record.set_flag(ResponseFlag::SI),
            },
            Way::Bare(mut upstream) => {
                let cut = upstream.cut();
                if carry_bare(&mut stream, &mut upstream, cut, setup).await.is_err() {
                    // Whichever of them broke off, the other is to know that it was no end.
                    stream.reset_on_close();
                    upstream.reset_on_close();
                    record.set_flag(ResponseFlag::UC);
                }
            }
        }
        record.finish();
    }
}
