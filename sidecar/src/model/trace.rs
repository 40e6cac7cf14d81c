//! Which trace a request belongs to (W3C Trace Context, OpenTelemetry).

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

use http::HeaderValue;

/// A trace. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub NonZeroU128);

/// A span of a trace. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub NonZeroU64);

impl TraceId {
    /// A random one.
    #[must_use]
    pub fn random(rng: &mut fastrand::Rng) -> Self {
        Self(NonZeroU128::new(rng.u128(..)).unwrap_or(NonZeroU128::MIN))
    }
}

impl SpanId {
    /// A random one.
    #[must_use]
    pub fn random(rng: &mut fastrand::Rng) -> Self {
        Self(NonZeroU64::new(rng.u64(..)).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a request came by its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It said so.
    Told,
    /// It came with the request ID of one that we had brought to the app.
    RequestId,
    /// It was begun here.
    Here,
}

/// A request's place in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePlace {
    /// The trace.
    pub trace: TraceId,
    /// The span that ours are children of.
    pub parent: Option<SpanId>,
    /// The span of the request as a whole: inbound always (SERVER), outbound where the trace begins with it (INTERNAL).
    /// Attempts outbound (CLIENT) are its children; without it, the parent's.
    pub own: Option<SpanId>,
    /// Whether its spans are wanted, whatever becomes of it.
    pub is_sampled: bool,
    /// As it was sent.
    pub state: Option<HeaderValue>,
    /// How it came by its trace.
    pub origin: Origin,
}
