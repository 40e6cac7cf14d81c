//! What an attempt has come to, as far as another is concerned.
//!
//! Three can say that a request failed: we (an error of ours), the sidecar before the app (an answer of its own, which
//! says so in `x-outrider-processed`), and the app (a status that the policy names). What the app said may always have
//! been done.

use std::time::SystemTime;

use http::{HeaderMap, header};

use super::{attempt::Answer, error::ProxyError};
use crate::{
    headers::{
        grpc,
        pushback::{self, Pushback},
        retry_after::retry_after,
    },
    model::{policy::RetryPolicy, retries::RetryReason, wire},
    resilience::{backoff::Advice, retry::Processed},
};

/// An attempt that could be followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Whether the app may have seen the request.
    pub(super) processed: Processed,
    /// What happened.
    pub(super) reason: RetryReason,
    /// What the answer says of a retry.
    pub(super) advice: Advice,
}

/// The failure in an attempt's outcome; `None`: it is an answer to deliver, or an error that another attempt would
/// meet too.
///
/// `wall` is asked only where an answer says when its server will be back.
pub(super) fn of(
    outcome: &Result<Answer, ProxyError>,
    policy: &RetryPolicy,
    wall: impl FnOnce() -> SystemTime,
) -> Option<Failure> {
    match outcome {
        Ok(answer) => of_answer(answer, policy, wall),
        Err(error) => of_error(error),
    }
}

/// The failure that an error is.
pub(super) fn of_error(error: &ProxyError) -> Option<Failure> {
    let processed = error.retry_class()?;
    let reason = match (error, processed) {
        (ProxyError::Connect { .. } | ProxyError::Identity { .. }, _) => RetryReason::Connect,
        (ProxyError::TryTimeout { .. }, _) => RetryReason::PerTryTimeout,
        (_, Processed::No) => RetryReason::NotProcessed,
        (_, Processed::Maybe) => RetryReason::Reset,
    };
    Some(Failure { processed, reason, advice: Advice::None })
}

fn of_answer(answer: &Answer, policy: &RetryPolicy, wall: impl FnOnce() -> SystemTime) -> Option<Failure> {
    let (status, headers) = (answer.response.status(), answer.response.headers());
    if let Some(processed) = answer.processed {
        let reason = match processed {
            Processed::No => RetryReason::NotProcessed,
            Processed::Maybe => RetryReason::Reset,
        };
        return Some(Failure { processed, reason, advice: Advice::None });
    }
    // The far sidecar answers itself, and does not say that another may: what it refused would be no less elsewhere.
    if headers.contains_key(wire::REASON) {
        return None;
    }
    let reason = if policy.statuses.contains(status.as_u16()) {
        RetryReason::Status
    } else if grpc_status(headers).is_some_and(|status| policy.grpc_statuses.contains(status)) {
        RetryReason::GrpcStatus
    } else {
        return None;
    };
    let advice = match pushback::parse(headers).filter(|_| grpc::is_call(headers)) {
        Some(Pushback::After(wait)) => Advice::Exactly(wait),
        Some(Pushback::Never) => Advice::Never,
        None if headers.contains_key(header::RETRY_AFTER) => {
            retry_after(headers, wall()).map_or(Advice::None, Advice::Back)
        }
        None => Advice::None,
    };
    Some(Failure { processed: Processed::Maybe, reason, advice })
}

/// The status of a call that ends without any message: it stands in the head then (gRPC over HTTP/2, "Trailers-Only").
fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    let status = headers.get("grpc-status").filter(|_| grpc::is_call(headers))?;
    status.to_str().ok()?.parse().ok()
}
