//! What became of a request, as it speaks for or against the endpoint that had it.
//!
//! ```text
//!   connect, handshake, identity                                     Local
//!   no answer in time, gRPC DEADLINE_EXCEEDED                        Late       (whose doing is open)
//!   502, 503, 504, reset, no HTTP, gRPC UNAVAILABLE                  Gateway
//!   other 5xx, gRPC UNKNOWN, INTERNAL, DATA_LOSS                     Error      (the app works, and fails)
//!   anything else it answered, 4xx and gRPC's like included          Success    (what was asked for is the caller's doing)
//! ```
//! A sidecar that answers for its app is taken at its word: the reason says what happened there.

use http::StatusCode;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, whatever the answer says of what was asked for.
    Success,
    /// The app answered that it failed.
    Error,
    /// Something between us and the app answered, or broke off: the app is not there.
    Gateway,
    /// Nothing could be sent to it.
    Local,
    /// No answer in the time there was: by a limit of ours, the caller's or the far sidecar's.
    Late,
    /// It says nothing of the endpoint: a cap or a fault of our own, a caller who left.
    Nothing,
}

/// What an answer's head, or its trailers, say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What became of the request.
    pub outcome: Outcome,
    /// The endpoint says that it has too much to do.
    pub is_overloaded: bool,
}

impl Judgement {
    const fn of(outcome: Outcome) -> Self {
        Self { outcome, is_overloaded: false }
    }
}

/// By the status of an answer of HTTP.
#[must_use]
pub fn of_status(status: StatusCode, has_retry_after: bool) -> Judgement {
    let outcome = match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Gateway
        }
        // What was asked for is not to be had anywhere.
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Outcome::Success,
        status if status.is_server_error() => Outcome::Error,
        _ => Outcome::Success,
    };
    let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE && has_retry_after;
    Judgement { outcome, is_overloaded: status == StatusCode::TOO_MANY_REQUESTS || is_unavailable }
}

/// By the status of a call of gRPC, as it stands in `grpc-status` (`grpc/doc/statuscodes.md`). What is no number is
/// UNKNOWN, as gRPC's clients take it.
#[must_use]
pub fn of_grpc(status: &[u8]) -> Judgement {
    match status {
        b"4" => Judgement::of(Outcome::Late),
        b"14" => Judgement::of(Outcome::Gateway),
        // RESOURCE_EXHAUSTED is also said of a message that is too large: it weighs less, and never ejects.
        b"8" => Judgement { outcome: Outcome::Success, is_overloaded: true },
        b"13" | b"15" => Judgement::of(Outcome::Error),
        b"0" | b"1" | b"3" | b"5" | b"6" | b"7" | b"9" | b"10" | b"11" | b"12" | b"16" => {
            Judgement::of(Outcome::Success)
        }
        _ => Judgement::of(Outcome::Error),
    }
}

/// By the reason that a peer's sidecar gives for answering itself; `None` for one that a newer version may have added.
#[must_use]
pub fn of_reason(reason: &[u8]) -> Option<Judgement> {
    Some(match reason {
        b"max_requests"
        | b"max_requests_of_peer"
        | b"max_connections"
        | b"max_pending"
        | b"overload"
        | b"rate_limited" => Judgement { outcome: Outcome::Success, is_overloaded: true },
        b"no_endpoint"
        | b"connect_failed"
        | b"identity_mismatch"
        | b"not_processed"
        | b"reset_before_answer"
        | b"protocol_error"
        | b"bad_response" => Judgement::of(Outcome::Gateway),
        b"request_timeout" | b"per_try_timeout" | b"deadline_exceeded" | b"stream_idle" => {
            Judgement::of(Outcome::Late)
        }
        b"bad_request"
        | b"headers_too_large"
        | b"unsupported"
        | b"no_route"
        | b"no_rule"
        | b"not_discovered"
        | b"not_allowed"
        | b"no_longer_allowed"
        | b"not_authorized"
        | b"not_http"
        | b"response_headers_too_large" => Judgement::of(Outcome::Success),
        // Nobody's failure: a caller who left, and one that was asked for.
        b"downstream_gone" | b"fault_injected" => Judgement::of(Outcome::Nothing),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_does_speaks_against_nobody() {
        for status in [200, 204, 304, 400, 401, 403, 404, 408, 413, 429, 431, 451, 501, 505] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_status(status, true).outcome, Outcome::Success, "{status}");
        }
        for status in ["0", "1", "3", "5", "6", "7", "8", "9", "10", "11", "12", "16"] {
            assert_eq!(of_grpc(status.as_bytes()).outcome, Outcome::Success, "{status}");
        }
    }

    #[test]
    fn a_gateways_failure_is_told_from_the_apps() {
        for status in [502, 503, 504] {
            assert_eq!(of_status(StatusCode::from_u16(status).unwrap(), false).outcome, Outcome::Gateway);
        }
        for status in [500, 507, 599] {
            assert_eq!(of_status(StatusCode::from_u16(status).unwrap(), false).outcome, Outcome::Error);
        }
        assert_eq!(of_grpc(b"14").outcome, Outcome::Gateway);
        assert_eq!(of_grpc(b"4").outcome, Outcome::Late);
        for status in ["2", "13", "15", "17", "", "ok", "014"] {
            assert_eq!(of_grpc(status.as_bytes()).outcome, Outcome::Error, "{status}");
        }
    }

    #[test]
    fn overload_is_said_by_429_by_503_with_a_time_and_by_grpc() {
        let is_overloaded = |status: u16, has_retry_after| {
            of_status(StatusCode::from_u16(status).unwrap(), has_retry_after).is_overloaded
        };
        assert!(is_overloaded(429, false) && is_overloaded(429, true) && is_overloaded(503, true));
        assert!(!is_overloaded(503, false) && !is_overloaded(200, true) && !is_overloaded(301, true));
        assert!(of_grpc(b"8").is_overloaded && !of_grpc(b"14").is_overloaded);
        assert!(of_reason(b"max_requests").is_some_and(|said| said.is_overloaded));
        assert_eq!(of_reason(b"something_new"), None);
    }
}
