//! Retry: may this failed attempt be made again?
//!
//! Two things make a repetition safe: the app certainly has not seen the request (then for any method), or the method,
//! or the policy, says that seeing it twice is as seeing it once. Whether *anything* may be retried at the moment is the
//! [`retry_budget`](super::retry_budget)'s question, asked after this one.
//!
//! # One retry layer
//! If every hop of a chain retried, one failure at its end would be multiplied at each. The previous hop tells which
//! of its attempts this is; in its second and later ones this hop repeats only what was certainly not processed, and
//! leaves the rest to the hop that is already repeating.

use http::Method;

use crate::model::policy::Methods;

/// Whether the app may have seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Certainly not: never written, refused before processing, or a sidecar said so.
    No,
    /// It may have; also when nobody knows.
    Maybe,
}

/// What is known of a request whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryFacts {
    /// Whether the app may have seen it.
    pub processed: Processed,
    /// Whether its method (or its route) says that doing it twice is as doing it once.
    pub is_idempotent: bool,
    /// Whether we still hold all of its body, and have sent nothing of an answer downstream.
    pub is_replayable: bool,
    /// Attempts made at this hop, the failed one included; 1 = only the first.
    pub attempt: u32,
    /// The policy's `max_retries`.
    pub max_retries: u32,
    /// Which attempt of the previous hop's this request is, as told by a verified peer; 1 = its first, or unknown.
    pub previous_attempts_upstream: u32,
}

/// Whether to try again, or why not. Of several reasons the first in this order is named: `NotSafe`, `NotReplayable`,
/// `TooMany`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Policy allows another attempt.
    Retry,
    /// Policy allows no more attempts at this hop, or the previous hop is the one that retries this request.
    TooMany,
    /// The app may have seen it, and doing it twice could do harm.
    NotSafe,
    /// The body is gone.
    NotReplayable,
}

/// Judges one failed attempt.
#[must_use]
pub fn may_retry(request: RetryFacts) -> Verdict {
    let maybe_processed = match request.processed {
        Processed::No => false,
        Processed::Maybe => true,
    };
    if maybe_processed && !request.is_idempotent {
        return Verdict::NotSafe;
    }
    if !request.is_replayable {
        return Verdict::NotReplayable;
    }
    let is_retried_upstream = maybe_processed && request.previous_attempts_upstream > 1;
    if is_retried_upstream || request.attempt > request.max_retries {
        return Verdict::TooMany;
    }
    Verdict::Retry
}

/// Whether a request may be repeated that the app may have seen. `is_upgrade`: it asks for another protocol, and what
/// follows a switch is not known to be idempotent, whatever is said of requests.
#[must_use]
pub fn is_safe_twice(method: &Method, methods: Methods, is_upgrade: bool) -> bool {
    !is_upgrade
        && match methods {
            Methods::Any => true,
            Methods::None => false,
            Methods::Idempotent => is_idempotent(method),
        }
}

/// Whether a method is idempotent by RFC 9110 §9.2.2. Methods compare exactly: `get` is an unknown one, and unknown
/// ones are not.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    // RFC 9110 §9.2.2: "PUT, DELETE, and safe request methods are idempotent"; §9.2.1 names the safe ones.
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first attempt of a GET that failed unseen; everything speaks for a retry.
    const GOOD: RetryFacts = RetryFacts {
        processed: Processed::No,
        is_idempotent: true,
        is_replayable: true,
        attempt: 1,
        max_retries: 2,
        previous_attempts_upstream: 1,
    };

    #[test]
    fn a_policy_may_say_that_any_method_is_safe_but_not_of_an_upgrade() {
        let [idempotent, any] = [Methods::Idempotent, Methods::Any];
        assert!(is_safe_twice(&Method::GET, idempotent, false) && is_safe_twice(&Method::POST, any, false));
        assert!(!is_safe_twice(&Method::POST, idempotent, false));
        assert!(!is_safe_twice(&Method::GET, Methods::None, false));
        assert!(!is_safe_twice(&Method::GET, any, true) && !is_safe_twice(&Method::GET, idempotent, true));
    }

    #[test]
    fn what_was_not_processed_is_retried_whatever_the_method() {
        assert_eq!(may_retry(RetryFacts { is_idempotent: false, ..GOOD }), Verdict::Retry);
    }

    #[test]
    fn what_may_have_been_processed_is_retried_only_if_idempotent() {
        let maybe = RetryFacts { processed: Processed::Maybe, ..GOOD };
        assert_eq!(may_retry(maybe), Verdict::Retry);
        assert_eq!(may_retry(RetryFacts { is_idempotent: false, ..maybe }), Verdict::NotSafe);
    }

    #[test]
    fn a_body_that_is_gone_cannot_be_sent_again() {
        assert_eq!(may_retry(RetryFacts { is_replayable: false, ..GOOD }), Verdict::NotReplayable);
    }

    #[test]
    fn retries_are_counted_beyond_the_first_attempt() {
        assert_eq!(may_retry(RetryFacts { attempt: 2, ..GOOD }), Verdict::Retry);
        assert_eq!(may_retry(RetryFacts { attempt: 3, ..GOOD }), Verdict::TooMany);
        assert_eq!(may_retry(RetryFacts { max_retries: 0, ..GOOD }), Verdict::TooMany);
    }

    #[test]
    fn a_retry_of_the_previous_hop_is_retried_here_only_if_it_was_not_processed() {
        let second = RetryFacts { previous_attempts_upstream: 2, ..GOOD };
        assert_eq!(may_retry(second), Verdict::Retry);
        assert_eq!(may_retry(RetryFacts { processed: Processed::Maybe, ..second }), Verdict::TooMany);
    }

    #[test]
    fn only_the_methods_of_rfc_9110_are_idempotent() {
        for name in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(&Method::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
        for name in ["POST", "PATCH", "CONNECT", "get", "Put", "PROPFIND", "QUERY", "GETT"] {
            assert!(!is_idempotent(&Method::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_ever_retried(
            maybe: bool, is_idempotent: bool, is_replayable: bool,
            attempt in 1_u32..13, max_retries in 0_u32..11, previous_attempts_upstream in 0_u32..13,
        ) {
            let processed = if maybe { Processed::Maybe } else { Processed::No };
            let facts = RetryFacts {
                processed, is_idempotent, is_replayable, attempt, max_retries, previous_attempts_upstream,
            };
            if may_retry(facts) == Verdict::Retry {
                prop_assert!(is_replayable && attempt <= max_retries);
                prop_assert!(!maybe || (is_idempotent && previous_attempts_upstream <= 1));
            }
        }
    }
}
