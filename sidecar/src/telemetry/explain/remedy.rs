//! What a failure means, what usually causes it, and where to look next. Complete: a flag or a reason without an entry
//! does not pass the tests.

use super::{super::trail::Trail, remedies as r};
use crate::model::flag::ResponseFlag;

/// What to make of a failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What it means.
    pub means: &'static str,
    /// What usually causes it, the likeliest first.
    pub causes: &'static [&'static str],
    /// What to look at, or to do, next.
    pub next: &'static [&'static str],
}

/// Every reason of an answer of our own, as in `x-outrider-reason` and `docs/request-path.md`; of an answer that broke
/// off; and of a stream that was refused or cut off.
pub const REASONS: [(&str, &Remedy); 34] = [
    ("bad_request", &r::BAD_REQUEST),
    ("headers_too_large", &r::HEADERS_TOO_LARGE),
    ("unsupported", &r::UNSUPPORTED),
    ("no_route", &r::NO_ROUTE),
    ("no_rule", &r::NO_RULE),
    ("not_discovered", &r::NOT_DISCOVERED),
    ("not_allowed", &r::NOT_ALLOWED),
    ("no_longer_allowed", &r::NO_LONGER_ALLOWED),
    ("not_authorized", &r::NOT_AUTHORIZED),
    ("no_endpoint", &r::NO_ENDPOINT),
    ("max_requests", &r::MAX_REQUESTS),
    ("max_requests_of_peer", &r::MAX_REQUESTS_OF_PEER),
    ("max_connections", &r::MAX_CONNECTIONS),
    ("max_pending", &r::MAX_PENDING),
    ("overload", &r::OVERLOAD),
    ("rate_limited", &r::RATE_LIMITED),
    ("fault_injected", &r::FAULT_INJECTED),
    ("connect_failed", &r::CONNECT_FAILED),
    ("identity_mismatch", &r::IDENTITY_MISMATCH),
    ("not_processed", &r::NOT_PROCESSED),
    ("reset_before_answer", &r::RESET),
    ("reset_in_answer", &r::BROKE_OFF),
    ("protocol_error", &r::PROTOCOL_ERROR),
    ("bad_response", &r::BAD_RESPONSE),
    ("response_headers_too_large", &r::RESPONSE_HEADERS),
    ("per_try_timeout", &r::PER_TRY_TIMEOUT),
    ("request_timeout", &r::REQUEST_TIMEOUT),
    ("deadline_exceeded", &r::DEADLINE),
    ("stream_idle", &r::STREAM_IDLE),
    ("downstream_gone", &r::DOWNSTREAM_GONE),
    ("not_http", &r::NOT_HTTP),
    ("late_request", &r::LATE_REQUEST),
    ("malformed_parameters", &r::STREAM_PARAMETERS),
    ("unknown_kind", &r::STREAM_PARAMETERS),
];

/// What to make of an answer with that reason; `None`: it is none of ours.
#[must_use]
pub fn of_reason(reason: &str) -> Option<&'static Remedy> {
    REASONS.iter().find(|(name, _)| *name == reason).map(|(_, remedy)| *remedy)
}

/// What to make of that flag, where no reason says more.
#[must_use]
pub fn of_flag(flag: ResponseFlag) -> &'static Remedy {
    match flag {
        ResponseFlag::NR => &r::NO_ROUTE,
        ResponseFlag::UH => &r::NO_ENDPOINT,
        ResponseFlag::UF => &r::CONNECT_FAILED,
        ResponseFlag::UC => &r::BROKE_OFF,
        ResponseFlag::UO => &r::OVERFLOW,
        ResponseFlag::UT => &r::REQUEST_TIMEOUT,
        ResponseFlag::SI => &r::STREAM_IDLE,
        ResponseFlag::DC => &r::DOWNSTREAM_GONE,
        ResponseFlag::DPE => &r::BAD_REQUEST,
        ResponseFlag::UPE => &r::PROTOCOL_ERROR,
        ResponseFlag::ID => &r::IDENTITY_MISMATCH,
        ResponseFlag::DR => &r::DRAINING,
        ResponseFlag::RBAC => &r::NOT_ALLOWED,
        ResponseFlag::OM => &r::OVERLOAD,
        ResponseFlag::RL => &r::RATE_LIMITED,
        ResponseFlag::FI => &r::FAULT_INJECTED,
        ResponseFlag::DI => &r::DELAYED,
        ResponseFlag::DE => &r::DEADLINE,
    }
}

/// What to make of what became of a request.
#[must_use]
pub fn of_trail(trail: &Trail) -> &'static Remedy {
    let by_reason = trail.reason.as_deref().and_then(of_reason);
    let by_flag = trail.flag.map(of_flag);
    let rest = if trail.is_failed() { &r::APP_FAILED } else { &r::REPEATED };
    by_reason.or(by_flag).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::{attempt, trail};

    #[test]
    fn every_flag_has_a_meaning_causes_and_something_to_do() {
        let all = REASONS.iter().map(|(_, remedy)| *remedy);
        for remedy in
            ResponseFlag::ALL.into_iter().map(of_flag).chain(all).chain([&r::APP_FAILED, &r::REPEATED])
        {
            assert!(remedy.means.ends_with('.'), "{remedy:?}");
            assert!(!remedy.causes.is_empty() && !remedy.next.is_empty(), "{remedy:?}");
            let all = [remedy.means].into_iter().chain(remedy.causes.iter().chain(remedy.next).copied());
            for text in all {
                assert!(text.len() < 240 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
            }
        }
    }

    #[test]
    fn reasons_are_unique() {
        for (at, (name, _)) in REASONS.iter().enumerate() {
            assert!(REASONS.iter().skip(at + 1).all(|(other, _)| other != name), "{name}");
        }
    }

    #[test]
    fn the_reason_says_more_than_the_flag_and_either_more_than_nothing() {
        let mut trail = trail();
        assert_eq!(of_trail(&trail), &r::NO_ENDPOINT);
        trail.reason = Some("made up by a peer".into());
        assert_eq!(of_trail(&trail), &r::NO_ENDPOINT);
        (trail.reason, trail.flag) = (None, None);
        assert_eq!(of_trail(&trail), &r::APP_FAILED);
        trail.status = Some(200);
        trail.attempts.extend([attempt(1, 0), attempt(2, 3)]);
        assert_eq!(of_trail(&trail), &r::REPEATED);
    }
}
