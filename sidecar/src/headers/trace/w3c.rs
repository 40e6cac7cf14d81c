//! `traceparent` (W3C Trace Context, Level 1 §3.2).

use std::num::{NonZeroU64, NonZeroU128};

use http::HeaderValue;

use super::hex::{parse as hex, part, put};
use crate::model::trace::{SpanId, TraceId};

/// The version that we speak.
const VERSION: u128 = 0;
/// The version that there never is (§3.2.2.1).
const INVALID: u128 = 0xff;
/// The one flag of Level 1 (§3.2.2.5.1).
const SAMPLED: u128 = 1;

/// Trace, span, and whether the trace is sampled; `None` if it is not well-formed. Newer versions may have more to say
/// behind what we know (§3.2.4).
pub(super) fn parse(value: &[u8]) -> Option<(TraceId, SpanId, bool)> {
    let (version, rest) = part(value, 2)?;
    let version = hex(version).filter(|version| *version != INVALID)?;
    let (trace, rest) = part(rest?, 32)?;
    let (span, rest) = part(rest?, 16)?;
    let (flags, more) = part(rest?, 2)?;
    if version == VERSION && more.is_some() {
        return None;
    }
    let trace = TraceId(NonZeroU128::new(hex(trace)?)?);
    let span = SpanId(NonZeroU64::new(u64::try_from(hex(span)?).ok()?)?);
    Some((trace, span, hex(flags)? & SAMPLED != 0))
}

/// The field, in version 00. Of the flags, only the one that we know is set (§3.2.2.5.2).
pub(super) fn format(trace: TraceId, span: SpanId, is_sampled: bool) -> Option<HeaderValue> {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    put(text.get_mut(3..35)?, trace.0.get());
    put(text.get_mut(36..52)?, u128::from(span.0.get()));
    put(text.get_mut(53..55)?, u128::from(is_sampled));
    HeaderValue::from_bytes(&text).ok()
}
