//! A stream of the own app on its way to a cluster.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    carry, carry_bare,
    early::Early,
    opening::{Opening, Way, open_somewhere},
    route::{self, Known, Routing},
};
use crate::{
    balance::InFlight,
    connect::dial::Speak,
    model::{Cluster, ClusterName, Generation, Identity, Snapshot, flag::ResponseFlag, transport::Transport},
    net::{Net, Stream},
    pipeline::{
        affinity, door::Door, error::ProxyError, notes, rate_limit, respond, trace, verdict, waiting,
        worker::Worker,
    },
    relay::{
        copy::{Before, Counted, End, Setup},
        frame::StreamKind,
    },
    resilience::{
        circuit_breaker::{self, RequestSlot},
        retry_budget,
    },
    telemetry::{record::RequestRecord, trail::Traffic},
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
    /// What keeps it with one endpoint.
    pub affinity: Option<u64>,
    /// By which route of opaque streams.
    pub route: Option<Arc<str>>,
    /// The configuration that all of it is of.
    pub config: Arc<Generation>,
}

impl Destination {
    /// A cluster of that snapshot, for who came in by that door.
    #[must_use]
    pub fn new(cluster: &Arc<Cluster>, snapshot: &Snapshot, door: &Door) -> Self {
        let affinity = affinity::of_connection(cluster, door, snapshot);
        Self {
            cluster: Arc::clone(cluster),
            identity: snapshot.identity.clone(),
            speak: Speak::Tcp,
            affinity,
            route: None,
            config: Arc::clone(&snapshot.config),
        }
    }

    /// The same, found by that route.
    #[must_use]
    pub(super) fn by(self, route: &Arc<str>) -> Self {
        Self { route: Some(Arc::clone(route)), ..self }
    }

    /// Notes it: from here on the stream counts for it.
    pub(in crate::pipeline) fn note<N: Net>(
        &self,
        worker: &Worker<N>,
        door: &Door,
        record: &mut RequestRecord,
    ) {
        notes::stream_routed((worker, door), &self.config, (&self.cluster, self.route.as_ref()), record);
    }

    /// The same for a stream that is TLS of the app's own: it needs none of ours to a server outside the mesh that is
    /// reached by TLS.
    #[must_use]
    pub fn with_own_tls(self) -> Self {
        let is_public = matches!(self.cluster.settings.transport, Transport::Public(_));
        Self { speak: if is_public { Speak::OwnTls } else { self.speak }, ..self }
    }
}

impl Destination {
    /// The same, as soon as there is somebody to ask.
    ///
    /// # Errors
    /// As [`waiting::wait`].
    async fn newer<N: Net>(&self, worker: &Worker<N>, record: &RequestRecord) -> Result<Self, ProxyError> {
        let may_probe = may_probe(&self.cluster);
        let load = || worker.snapshots.load();
        let waiting = waiting::wait(worker, &self.cluster, may_probe, load);
        let (snapshot, cluster) = notes::waited(worker, record, waiting).await?;
        let config = Arc::clone(&snapshot.config);
        notes::under(record, &config);
        Ok(Self { cluster, identity: snapshot.identity.clone(), config, route: self.route.clone(), ..*self })
    }
}

/// Carries one stream of the own app to the cluster of its listener, or where a route leads. `first` has been read of it
/// already.
pub async fn outbound<N: Net>(worker: &Arc<Worker<N>>, door: &Door, mut stream: N::Stream, mut first: Bytes) {
    let (mut snapshot, mut name) = (door.load(&worker.snapshots), None);
    if Known::of((worker, door), &snapshot, None).needs_name(door, &snapshot) {
        drop(snapshot);
        let Some(hello) = route::hello(worker, door, &mut stream, first).await else { return };
        (first, name) = (hello.read, hello.name);
        // That may have taken long: what holds now counts.
        snapshot = door.load(&worker.snapshots);
    }
    let known = Known::of((worker, door), &snapshot, name.as_deref());
    let destination = Routing::default().find((worker, door), &snapshot, known);
    drop(snapshot);
    match destination {
        Ok(destination) => outbound_to(worker, door, destination, stream, first).await,
        Err(error) => refuse(worker, door, &stream, &error),
    }
}

/// A stream that leads nowhere: the app is told as TCP tells it, and it is counted.
pub fn refuse<N: Net>(worker: &Worker<N>, door: &Door, stream: &N::Stream, error: &ProxyError) {
    let mut record = door.record(worker, Traffic::Stream, worker.now());
    drop(trace::begin((worker, door), &door.load(&worker.snapshots).config, None, &mut record));
    tell((worker, door), record, stream, error);
}

/// As [`outbound`], to that cluster.
pub async fn outbound_to<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    destination: Destination,
    mut stream: N::Stream,
    first: Bytes,
) {
    let mut record = door.record(worker, Traffic::Stream, worker.now());
    drop(trace::begin((worker, door), &destination.config, None, &mut record));
    destination.note(worker, door, &mut record);
    // Boxed for its own time: a stream may last for days.
    let opened = Box::pin(async {
        rate_limit::admit_stream(door, &destination.cluster, worker.now())?;
        let early = Early::new(&mut stream, first);
        let mut opening = Opening { kind: StreamKind::Opaque, early };
        let opened = open(worker, &destination, &mut opening, &record).await?;
        record.moved().from_caller(opening.early.sent_bytes());
        Ok((opened, opening.early.into_before()))
    })
    .await;
    drop(destination);
    match opened {
        Ok((opened, up)) => {
            record.head_received(worker.now());
            opened.carry(worker, stream, (up, Before::default()), record).await;
        }
        Err(error) => tell((worker, door), record, &stream, &error),
    }
}

/// The app is told as TCP tells it: there is nobody.
pub(super) fn tell<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    record: RequestRecord,
    stream: &N::Stream,
    error: &ProxyError,
) {
    stream.reset_on_close();
    notes::refused(worker, &record, error);
    record.finish();
    tracing::debug!(listener = door.accepted.name(), error = respond::chain(error), "stream refused");
}

/// A way that is open, and what is held for it.
#[derive(Debug)]
pub(in crate::pipeline) struct Opened<S> {
    pub(in crate::pipeline) way: Way<S>,
    pub(in crate::pipeline) in_flight: InFlight,
    pub(in crate::pipeline) slot: RequestSlot,
    /// Where it leads. Not the cluster itself: a stream may last for days, and settings change.
    pub(super) cluster: ClusterName,
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
    record: &RequestRecord,
) -> Result<Opened<N::Stream>, ProxyError> {
    let mut opening = Opening { kind: StreamKind::Opaque, early: Early::nothing() };
    open(worker, destination, &mut opening, record).await
}

/// Nothing of a stream has been seen by an app until a sidecar says so: it can go elsewhere, if it may go anywhere again.
fn may_probe(cluster: &Cluster) -> bool {
    cluster.settings.policy.retry.max_retries > 0
}

/// Opens a way within the cluster's caps.
pub(super) async fn open<N: Net>(
    worker: &Arc<Worker<N>>,
    destination: &Destination,
    opening: &mut Opening<'_, N::Stream>,
    record: &RequestRecord,
) -> Result<Opened<N::Stream>, ProxyError> {
    let cluster = &destination.cluster;
    let slot = circuit_breaker::admit_request(cluster, None, worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })?;
    // What is refused earns no retries; what is undecided does when it is a stream.
    if opening.kind == StreamKind::Opaque {
        retry_budget::record_request(&cluster.runtime.retry_budget, worker.now());
    }
    let newer;
    let destination = if waiting::is_needed(cluster, may_probe(cluster), worker.now()) {
        newer = Box::pin(destination.newer(worker, record)).await?;
        &newer
    } else {
        destination
    };
    let (way, in_flight) = open_somewhere(worker, destination, opening, record).await?;
    let half_open = cluster.settings.timeouts.half_open;
    Ok(Opened { way, in_flight, slot, cluster: cluster.name().clone(), half_open })
}

impl<S: Stream> Opened<S> {
    /// Relays to the end. Of both directions, what was before: from the app, and from the far side.
    pub(super) async fn carry<N: Net<Stream = S>>(
        self,
        worker: &Arc<Worker<N>>,
        mut stream: S,
        (up, down): (Before, Before),
        record: RequestRecord,
    ) {
        let Self { way, half_open, mut in_flight, cluster, slot: _slot } = self;
        let count = Some(Counted::FirstCalls(Arc::clone(record.moved())));
        let setup = Setup { up, down, half_open, count };
        match way {
            Way::Framed(mut session, cut) => match carry(&mut stream, &mut session, cut, setup).await {
                End::Orderly => worker.tcp_pool.give_back(session.into_stream(), worker.now()),
                End::PlainReset => record.set_flag(ResponseFlag::DC),
                // No callee cancels: only a caller's word is taken for that.
                End::FarReset | End::Cancelled { .. } => {
                    verdict::reset(worker, &cluster, &mut in_flight);
                    record.set_flag(ResponseFlag::UC);
                }
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
