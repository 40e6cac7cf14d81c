//! Whether a span tells of an error, and of which kind, as OpenTelemetry's conventions have it (HTTP, RPC): of a server
//! only what is its own fault, of a client whatever it did not want.

use std::borrow::Cow;

use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status},
};
use opentelemetry_semantic_conventions::attribute::ERROR_TYPE;

use super::attributes::{cut, grpc_status};
use crate::{
    model::{flag::ResponseFlag, retries::RetryReason},
    telemetry::trail::{Attempt, Trail},
};

/// The kind of an error that has no other name.
const OTHER: &str = "_OTHER";

/// An error that a span tells of.
pub(super) struct Fault<'a> {
    /// Of a closed list, or a number.
    kind: Cow<'static, str>,
    /// In words.
    said: &'a str,
}

impl Fault<'_> {
    /// Its kind as the span's attribute.
    pub(super) fn attribute(&self) -> KeyValue {
        KeyValue::new(ERROR_TYPE, self.kind.clone())
    }
}

/// The status of a span with that error, or without one.
pub(super) fn status(fault: Option<Fault<'_>>) -> Status {
    fault.map_or(Status::Unset, |fault| Status::error(cut(fault.said)))
}

/// What says that something failed.
#[derive(Clone, Copy, Default)]
struct Signs {
    flag: Option<ResponseFlag>,
    grpc: Option<u16>,
    status: Option<u16>,
    failure: Option<RetryReason>,
}

impl Signs {
    /// The most telling one.
    fn kind(self) -> Cow<'static, str> {
        let flag = self.flag.filter(|flag| !is_harmless(*flag)).map(|flag| flag.letters().into());
        flag.or_else(|| self.grpc.filter(|status| *status != 0).map(grpc_status))
            .or_else(|| self.status.filter(|status| *status >= 400).map(|status| status.to_string().into()))
            .or_else(|| self.failure.map(|failure| failure.label().into()))
            .unwrap_or(Cow::Borrowed(OTHER))
    }

    /// Whether a client calls that an error.
    fn is_for_client(self) -> bool {
        self.flag.is_some_and(|flag| !is_harmless(flag))
            || self.grpc.is_some_and(|status| status != 0)
            || self.status.is_some_and(|status| status >= 400)
            || self.failure.is_some()
    }

    /// Whether it is the server's fault.
    fn is_for_server(self) -> bool {
        let blames_caller = self.flag.is_some_and(|flag| {
            use ResponseFlag as F;
            matches!(flag, F::NR | F::RBAC | F::RL | F::DPE)
        });
        self.flag.is_some_and(blames_server)
            || self.status.is_some_and(|status| status >= 500)
            || (!blames_caller && self.grpc.is_some_and(|status| matches!(status, 2 | 4 | 12 | 13 | 14 | 15)))
    }
}

/// The error in a request as a whole, if it is one for that side.
pub(super) fn of_whole<'a>(trail: &'a Trail, kind: &SpanKind) -> Option<Fault<'a>> {
    let mut signs = Signs { flag: trail.flag, grpc: trail.grpc_status, status: trail.status, failure: None };
    // What we answer to somebody who is gone says nothing.
    let was_answered = trail.delivered().is_some_and(|(_, attempt)| attempt.status.is_some());
    if trail.flag == Some(ResponseFlag::DC) && !was_answered {
        signs = Signs::default();
    }
    let is_error = if *kind == SpanKind::Server { signs.is_for_server() } else { signs.is_for_client() };
    is_error.then(|| Fault { kind: signs.kind(), said: said(trail).unwrap_or_default() })
}

/// The error in one attempt; what the request as a whole came to counts for the one that was delivered. One that nobody
/// waited for any more is none.
pub(super) fn of_attempt<'a>(
    trail: &'a Trail,
    attempt: &'a Attempt,
    is_delivered: bool,
) -> Option<Fault<'a>> {
    let mut signs = Signs { status: attempt.status, failure: attempt.failure, ..Signs::default() };
    if is_delivered {
        signs.flag = trail.flag;
        signs.grpc = trail.grpc_status.filter(|_| attempt.status.is_some());
    }
    // What nobody would have repeated is told in words only.
    let is_cancelled = trail.flag == Some(ResponseFlag::DC);
    let is_broken = attempt.error.is_some() && attempt.status.is_none() && !is_cancelled;
    if !(signs.is_for_client() || is_broken) {
        return None;
    }
    let of_whole = said(trail).filter(|_| is_delivered);
    let said = of_whole.or(attempt.error.as_deref()).or(attempt.failure.map(RetryReason::label));
    Some(Fault { kind: signs.kind(), said: said.unwrap_or_default() })
}

/// What went wrong, in words.
fn said(trail: &Trail) -> Option<&str> {
    trail.error.as_deref().or(trail.reason.as_deref())
}

/// Whether a flag tells of no error: a delay that was wanted, or a caller who did not wait.
fn is_harmless(flag: ResponseFlag) -> bool {
    matches!(flag, ResponseFlag::DI | ResponseFlag::DC)
}

/// Whether a flag tells of a failure behind the server, or of its own.
fn blames_server(flag: ResponseFlag) -> bool {
    use ResponseFlag as F;
    match flag {
        F::UF | F::UC | F::UT | F::UH | F::UO | F::SI | F::ID | F::UPE | F::OM | F::DE => true,
        F::NR | F::DC | F::DPE | F::DR | F::RBAC | F::RL | F::FI | F::DI => false,
    }
}
