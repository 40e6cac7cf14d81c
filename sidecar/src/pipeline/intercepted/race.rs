//! Who speaks first, and what: the own app, or whoever it has dialled.
//!
//! ```text
//!   the app's bytes ─────────▶ decided: TLS, HTTP, opaque
//!   silence ─▶ an undecided stream ─▶ the far app's bytes ─▶ decided: opaque, or HTTP by what only HTTP's servers say
//! ```
//! Nobody waits for a time to pass: a client that speaks is served by what it says, and a server that speaks first is
//! heard as soon as it is connected to. What decides when that begins is how its cluster behaved the last time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;

use crate::{
    buffer,
    detect::{self, MORE_WITHIN, ServerVerdict, Spoken, Verdict},
    drain::Phase,
    model::{Cluster, ClusterName, detection::How, habit::Habit},
    net::Net,
    pipeline::{
        door::Door,
        tcp::{Destination, NotOpened, Undecided},
        worker::Worker,
    },
};

/// Silence of a client after which its server is connected to where nothing is known: shorter than anybody notices, and
/// longer than a client on the same host takes to say what it dialled for.
const START_UNKNOWN: Duration = Duration::from_millis(1);
/// The same where the client spoke first the last time. Most that are silent for so long keep a connection in reserve.
const START_CLIENT_FIRST: Duration = Duration::from_millis(20);
/// An undecided stream on which both sides are silent for so long, where the client spoke first the last time, is given up:
/// it is a connection that an app keeps in reserve, and would hold a request's place at both ends.
const HELD_CLIENT_FIRST: Duration = Duration::from_secs(10);
/// While a server has said nothing, there is nothing to wait for an end of.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// A client that has said nothing may still do so for this long after its server was found not to be there, or not to be
/// allowed: one that speaks HTTP is told why. Then its connection is reset, as the server's would have been.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a connection turned out to carry.
pub(super) struct Found<N: Net> {
    /// What the client said so far.
    pub(super) first: Bytes,
    pub(super) spoken: Spoken,
    pub(super) how: How,
    /// For streams, the app's own TLS among them: the way that is open already, and what came by it; or why there is none.
    pub(super) way: Option<OpenWay<N>>,
}

/// An open way and what came by it, or why there is none.
pub(super) type OpenWay<N> = Result<(Undecided<N>, Bytes), Box<NotOpened>>;

/// Finds out what the connection carries; `None` if it is over before. An undecided stream is opened to `destination`, if
/// there is one. Boxed by the caller for its own time.
pub(super) async fn race<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    stream: &mut N::Stream,
    destination: Option<&Destination>,
) -> Option<Found<N>> {
    let mut first = BytesMut::new();
    let mut way = match destination {
        Some(destination) => Way::Later(worker.now() + start(destination)),
        None => Way::Nowhere(worker.now() + AFTER_FAILURE),
    };
    let mut watcher = door.drain().watcher();
    let mut patience = None;
    let (spoken, how) = loop {
        let is_silent = first.is_empty();
        tokio::select! {
            biased;
            is_more = read(stream, &mut first) => {
                // A client that has broken off has nothing more to say to anybody.
                if !is_more.ok()? {
                    break (Spoken::Opaque, How::SilentEnd);
                }
                if let Verdict::Decided(spoken) = detect::client(&first, detect::MAX_BYTES) {
                    // Whoever asks for a tunnel means whom it has dialled to make one.
                    let is_tunnel = spoken == Spoken::Http1 && first.starts_with(b"CONNECT ");
                    break (if is_tunnel { Spoken::Opaque } else { spoken }, How::Client);
                }
                patience = Some(worker.now() + MORE_WITHIN);
            }
            () = reached(patience) => break (Spoken::Opaque, How::Timeout),
            decided = way.advance((worker, door), destination, is_silent) => {
                if let Some(how) = decided {
                    break (Spoken::Opaque, how);
                }
            }
            () = watcher.reached(Phase::Closing) => return None,
        }
    };
    if let Some(destination) = destination {
        learn(&destination.cluster, how);
    }
    let way = match spoken {
        Spoken::Opaque | Spoken::Tls => way.taken(first.is_empty()).await,
        Spoken::Http1 | Spoken::Http2 => None,
    };
    Some(Found { first: first.freeze(), spoken, how, way })
}

/// The way to the server, as far as it is.
enum Way<N: Net> {
    /// It is not wanted before that time.
    Later(Instant),
    /// There is nobody to connect to; the client may still name somebody until then.
    Nowhere(Instant),
    Opening(Opening<N>),
    /// With what the server has said so far.
    Open(Undecided<N>, BytesMut),
    /// The same, of a server that only HTTP's clients can mean: they speak next.
    OfHttp(Undecided<N>, BytesMut),
    /// Nobody had anything to say for so long that it was given up.
    Unused,
    /// Why there is none, and how long the client may still say what for.
    Failed(Box<NotOpened>, Instant),
}

type Opening<N> = Pin<Box<dyn Future<Output = Result<Undecided<N>, Box<NotOpened>>> + Send>>;

impl<N: Net> Way<N> {
    /// Goes one step on; `Some` if that decides for an opaque stream. Cancel-safe.
    async fn advance(
        &mut self,
        (worker, door): (&Arc<Worker<N>>, &Door),
        destination: Option<&Destination>,
        is_client_silent: bool,
    ) -> Option<How> {
        match (&mut *self, destination) {
            (Self::Later(at), Some(destination)) => {
                // A timer is never quicker than a millisecond.
                if *at > worker.now() {
                    tokio::time::sleep_until((*at).into()).await;
                }
                let record = Undecided::record(worker, door, destination);
                let (worker, destination) = (Arc::clone(worker), destination.clone());
                let opening = async move { Undecided::open(&worker, destination, record).await };
                *self = Self::Opening(Box::pin(opening));
                None
            }
            (Self::Opening(opening), _) => {
                *self = match opening.as_mut().await {
                    Ok(undecided) => Self::Open(undecided, BytesMut::new()),
                    Err(error) => Self::Failed(error, worker.now() + AFTER_FAILURE),
                };
                None
            }
            (Self::Open(undecided, said), _) => {
                let is_silent = said.is_empty();
                let limit = match destination.and_then(|destination| destination.cluster.runtime.habit.get())
                {
                    _ if !is_silent => MORE_WITHIN,
                    Some(Habit::ClientFirst) => HELD_CLIENT_FIRST,
                    Some(Habit::ServerFirst) | None => FOREVER,
                };
                let bytes = match tokio::time::timeout(limit, undecided.server_spoke()).await {
                    Ok(Ok(bytes)) => bytes,
                    // Its failure is to reach the client as one.
                    Ok(Err(_)) => return Some(How::SilentEnd),
                    Err(_elapsed) if is_silent => {
                        *self = Self::Unused;
                        return None;
                    }
                    Err(_elapsed) => return Some(How::Server),
                };
                said.extend_from_slice(&bytes);
                match detect::server(said) {
                    // Its end is as good as a word.
                    _ if bytes.is_empty() => Some(How::Server),
                    ServerVerdict::Opaque => Some(How::Server),
                    ServerVerdict::More => None,
                    ServerVerdict::Http => {
                        let before = std::mem::replace(self, Self::Nowhere(worker.now()));
                        if let Self::Open(undecided, said) = before {
                            *self = Self::OfHttp(undecided, said);
                        }
                        None
                    }
                }
            }
            (Self::Failed(_, at) | Self::Nowhere(at), _) if is_client_silent => {
                tokio::time::sleep_until((*at).into()).await;
                Some(How::Timeout)
            }
            (Self::Later(_) | Self::OfHttp(..) | Self::Unused | Self::Failed(..) | Self::Nowhere(_), _) => {
                std::future::pending().await
            }
        }
    }

    /// For an opaque stream: the way, and what the server has said; or why there is none. `None` if nobody has begun yet.
    async fn taken(self, is_client_silent: bool) -> Option<OpenWay<N>> {
        match self {
            Self::Later(_) | Self::Nowhere(_) | Self::Unused => None,
            // A client that speaks after all is worth another try.
            Self::Failed(..) if !is_client_silent => None,
            Self::Opening(opening) => Some(opening.await.map(|undecided| (undecided, Bytes::new()))),
            Self::Open(undecided, said) | Self::OfHttp(undecided, said) => {
                Some(Ok((undecided, said.freeze())))
            }
            Self::Failed(error, _) => Some(Err(error)),
        }
    }
}

/// How long a client may say nothing before its server is connected to.
fn start(destination: &Destination) -> Duration {
    match destination.cluster.runtime.habit.get() {
        Some(Habit::ServerFirst) => Duration::ZERO,
        None => START_UNKNOWN,
        Some(Habit::ClientFirst) => START_CLIENT_FIRST,
    }
}

/// Remembers who spoke first. Of destinations that no cluster has, each is another service.
fn learn(cluster: &Cluster, how: How) {
    let habit = match how {
        How::Server => Habit::ServerFirst,
        How::Client => Habit::ClientFirst,
        How::Declared | How::SilentEnd | How::Timeout => return,
    };
    if *cluster.name() != ClusterName::passthrough() {
        cluster.runtime.habit.set(habit);
    }
}

/// Reads on; whether there was anything before the end. Nothing is held while there is nothing.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut BytesMut) -> io::Result<bool> {
    buffer::append(stream, bytes, usize::MAX).await.map(|read| read > 0)
}

/// Waits for that time, for ever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
