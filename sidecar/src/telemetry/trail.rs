//! The trail of one request or stream: what became of it, step by step, for spans, the access log, `tap` and `explain`.
//!
//! It is written on the way, without formatting anything, and goes as a whole to whoever wants it when the request is
//! over. Names of steps and reasons are of closed lists; everything that a peer or an app can choose is bounded.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version, uri::PathAndQuery};
use outrider_certs::SpiffeId;
use smallvec::SmallVec;

use crate::model::{
    ClusterName,
    edge::Direction,
    flag::ResponseFlag,
    retries::RetryReason,
    trace::{SpanId, TracePlace},
};

/// Steps of one trail; what is more is left out.
pub const MAX_STEPS: usize = 32;
/// Attempts of one trail; what is more is left out. No policy has more than 11.
pub const MAX_ATTEMPTS: usize = 16;
/// Bytes of one text of a trail; what is more is cut.
pub const MAX_TEXT_BYTES: usize = 512;

/// Bytes of a path with its query; what is more is cut when the request is over.
pub const MAX_TARGET_BYTES: usize = 4096;
/// Bytes of a method; what is more is cut when the request is over.
pub const MAX_METHOD_BYTES: usize = 32;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A request of HTTP.
    Http,
    /// A call of gRPC.
    Grpc,
    /// An opaque stream.
    Stream,
    /// A tunnel of CONNECT.
    Tunnel,
}

/// Who is at the downstream end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The own app.
    App,
    /// A verified peer.
    Peer(SpiffeId),
    /// Somebody who proved nothing.
    Unverified,
}

/// What was asked for. As it was sent: whoever shows it escapes it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query, cheaply shared with the request.
    pub target: Option<PathAndQuery>,
    /// Whom it was for, canonical.
    pub authority: Box<str>,
    /// HTTP version of the downstream connection.
    pub version: Version,
}

/// One attempt at one endpoint. Times are from the request's arrival.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where.
    pub endpoint: SocketAddr,
    /// Who is there: verified, once there was a connection of the mesh; before, nobody.
    pub peer: Option<SpiffeId>,
    /// Its span (outbound, where spans may be wanted).
    pub span: Option<SpanId>,
    /// Whether it was made beside another.
    pub is_hedge: bool,
    /// Whether it decided if an ejected endpoint is back.
    pub is_probe: bool,
    /// When it began.
    pub begun: Duration,
    /// When it had a connection, and whether that was there already.
    pub connected: Option<(Duration, Reuse)>,
    /// When the head of its answer was there.
    pub answered: Option<Duration>,
    /// When it was over.
    pub ended: Option<Duration>,
    /// Its answer's status.
    pub status: Option<u16>,
    /// Why it was repeated, or would have been.
    pub failure: Option<RetryReason>,
    /// The flag that the request would have had, had this been its last.
    pub flag: Option<ResponseFlag>,
    /// What went wrong, in words, bounded.
    pub error: Option<Box<str>>,
}

impl Attempt {
    /// One that begins `begun` after the request's arrival.
    #[must_use]
    pub fn new(endpoint: SocketAddr, begun: Duration) -> Self {
        Self {
            endpoint,
            peer: None,
            span: None,
            is_hedge: false,
            is_probe: false,
            begun,
            connected: None,
            answered: None,
            ended: None,
            status: None,
            failure: None,
            flag: None,
            error: None,
        }
    }
}

/// Whether a connection was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It was.
    Reused,
    /// It was made for this.
    Fresh,
}

/// What happened that is not the usual course.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It was let wait for an endpoint that may be asked, so long.
    Waited(Duration),
    /// A fault was injected: this delay.
    Delayed(Duration),
    /// An attempt failed for this reason and was repeated, after this rest.
    Repeated(RetryReason, Duration),
    /// An attempt failed and was not repeated, for this reason.
    NotRepeated(NotRepeated),
    /// A second attempt was made beside the first.
    Hedged,
    /// An attempt was taken back from an endpoint that fell silent.
    TakenBack,
    /// Why nobody could be asked: what the cluster's endpoints were at that moment.
    NobodyToAsk(Standings),
}

/// Why an attempt was not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRepeated {
    /// The app may have seen it, and doing it twice is not as doing it once.
    NotIdempotent,
    /// Its body is not held any more.
    BodyGone,
    /// No attempt was left.
    AttemptsUsedUp,
    /// The retry budget had nothing left.
    OverBudget,
    /// As many were being repeated as may be.
    OverActive,
    /// The hop before repeats itself.
    HopBefore,
    /// The endpoint asked for a longer rest than the request could take, or not to be asked again.
    Advised,
    /// The own app is down: nobody else could take it here.
    AppDown,
    /// No time was left.
    Deadline,
}

/// A cluster's endpoints at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// All.
    pub all: u32,
    /// Not ready, as discovery says.
    pub not_ready: u32,
    /// Unhealthy, as checks say.
    pub unhealthy: u32,
    /// Ejected.
    pub ejected: u32,
    /// Tried by this request already.
    pub tried: u32,
}

/// The trail of one request or stream.
#[derive(Clone, Debug)]
pub struct Trail {
    /// What it is.
    pub kind: Traffic,
    /// Whether it is a copy of a request, whose answer nobody gets: only its span is told.
    pub is_mirror: bool,
    /// Which way.
    pub direction: Direction,
    /// The listener that it came in by.
    pub listener: Arc<str>,
    /// Who sent it.
    pub caller: Caller,
    /// From which address.
    pub client: Option<IpAddr>,
    /// When it came.
    pub started: Instant,
    /// The configuration that it went by; 0 before it was known.
    pub generation: u64,
    /// What was asked for; `None` of streams.
    pub asked: Option<Asked>,
    /// Its `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// Its place in its trace; `None` where no spans are made.
    pub trace: Option<TracePlace>,
    /// Where it went.
    pub cluster: Option<ClusterName>,
    /// The route that it was of.
    pub route: Option<Arc<str>>,
    /// What authorization rules say of it: the name of the one that allows it, `denied`, or `audited`. `None`: none were asked.
    pub authorization: Option<Arc<str>>,
    /// The attempts, in their order.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// Which attempt's outcome the caller was given, counted from 0; `None`: the newest's, or nobody's.
    pub delivered: Option<u8>,
    /// What else happened, and when after its arrival.
    pub steps: Vec<(Duration, Step)>,
    /// The status that went downstream.
    pub status: Option<u16>,
    /// The gRPC status that went downstream, from the head or the trailers.
    pub grpc_status: Option<u16>,
    /// Why we answered, or what was odd.
    pub flag: Option<ResponseFlag>,
    /// The reason of our own answer, of the closed list in `docs/request-path.md`; or what the far sidecar gave.
    pub reason: Option<Box<str>>,
    /// The same in words, for operators: bounded.
    pub error: Option<Box<str>>,
    /// When the answer's head was there, after its arrival.
    pub answered: Option<Duration>,
    /// When it was over, after its arrival.
    pub ended: Duration,
    /// Bytes of the request's body, or from the caller.
    pub request_bytes: u64,
    /// Bytes of the answer's body, or to the caller.
    pub response_bytes: u64,
    /// The request's fields that the access log is to have.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The answer's fields that the access log is to have.
    pub answer_fields: Vec<(HeaderName, HeaderValue)>,
}

impl Trail {
    /// The trail of what has just come.
    #[must_use]
    pub fn new(
        kind: Traffic,
        direction: Direction,
        listener: Arc<str>,
        caller: Caller,
        started: Instant,
    ) -> Self {
        Self {
            kind,
            is_mirror: false,
            direction,
            listener,
            caller,
            client: None,
            started,
            generation: 0,
            asked: None,
            request_id: None,
            trace: None,
            cluster: None,
            route: None,
            authorization: None,
            attempts: SmallVec::new(),
            delivered: None,
            steps: Vec::new(),
            status: None,
            grpc_status: None,
            flag: None,
            reason: None,
            error: None,
            answered: None,
            ended: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            fields: Vec::new(),
            answer_fields: Vec::new(),
        }
    }

    /// Whether it failed, and not for its caller: a flag that says so, a status of 500 and more, or a gRPC status that blames
    /// the server (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: OpenTelemetry's list for
    /// servers). Whoever may not call, calls too often or leaves, has not been failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        let is_flag = self.flag.is_some_and(|flag| match flag {
            ResponseFlag::DC
            | ResponseFlag::DI
            | ResponseFlag::DPE
            | ResponseFlag::FI
            | ResponseFlag::NR
            | ResponseFlag::RBAC
            | ResponseFlag::RL => false,
            ResponseFlag::DE
            | ResponseFlag::DR
            | ResponseFlag::ID
            | ResponseFlag::OM
            | ResponseFlag::SI
            | ResponseFlag::UC
            | ResponseFlag::UF
            | ResponseFlag::UH
            | ResponseFlag::UO
            | ResponseFlag::UPE
            | ResponseFlag::UT => true,
        });
        let is_grpc = self.grpc_status.is_some_and(|status| matches!(status, 2 | 4 | 12 | 13 | 14 | 15));
        is_flag || is_grpc || self.status.is_some_and(|status| status >= 500)
    }

    /// Whether it did not go as its caller wished: it failed, was refused, or was left by its caller.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.flag.is_some_and(|flag| flag != ResponseFlag::DI) || self.is_failed()
    }

    /// Whether somebody may ask why: such an error, or it was repeated.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        self.attempts.len() > 1 || self.is_error()
    }

    /// Makes what it has of the request's buffers its own, cut: a path of ten bytes may hold a head of many kilobytes.
    pub fn detach(&mut self) {
        let copy = |value: &HeaderValue| {
            let bytes = value.as_bytes();
            HeaderValue::from_bytes(bytes.get(..MAX_TEXT_BYTES).unwrap_or(bytes)).ok()
        };
        if let Some(TracePlace { state, .. }) = &mut self.trace {
            *state = state.as_ref().and_then(copy);
        }
        self.request_id = self.request_id.as_ref().and_then(copy);
        for (_, value) in self.fields.iter_mut().chain(&mut self.answer_fields) {
            if let Some(own) = copy(value) {
                *value = own;
            }
        }
        if let Some(Asked { method, target, authority, .. }) = &mut self.asked {
            if method.as_str().len() > MAX_METHOD_BYTES {
                let beginning = cut(method.as_str(), MAX_METHOD_BYTES).as_bytes();
                *method = Method::from_bytes(beginning).unwrap_or_default();
            }
            if authority.len() > MAX_TEXT_BYTES {
                *authority = text(authority);
            }
            *target = target.take().and_then(|target| {
                let own = Bytes::copy_from_slice(cut(target.as_str(), MAX_TARGET_BYTES).as_bytes());
                PathAndQuery::from_maybe_shared(own).ok()
            });
        }
    }

    /// The attempt whose outcome the caller was given, and its index; where that was not noted, the newest one.
    #[must_use]
    pub fn delivered(&self) -> Option<(usize, &Attempt)> {
        let noted = self.delivered.map(usize::from).filter(|index| *index < self.attempts.len());
        let index = noted.or(self.attempts.len().checked_sub(1))?;
        Some((index, self.attempts.get(index)?))
    }

    /// Appends a step; what is over [`MAX_STEPS`] is left out.
    pub fn step(&mut self, after: Duration, step: Step) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push((after, step));
        }
    }
}

/// A text of a trail, cut to [`MAX_TEXT_BYTES`].
#[must_use]
pub fn text(text: &str) -> Box<str> {
    cut(text, MAX_TEXT_BYTES).into()
}

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
