//! What a collector's answer means: OTLP's rules of what is sent again (OTLP 1.x, "Failures", "Failures Throttling").

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

/// Bytes of a collector's words that are kept.
const MAX_SAID_BYTES: usize = 256;

/// A collector took a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Of what was in it, so many were refused.
    pub rejected: u64,
    /// Why; or a warning where nothing was. Cut.
    pub said: String,
}

/// No collector took a message: it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Whether it was refused, as opposed to not taken in time.
    pub is_refused: bool,
    /// Why, in words for an operator.
    pub why: String,
    /// Nothing is to be sent for so long: the collector asked for it.
    pub rest: Option<Duration>,
}

/// Why one attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be sent again, after so long if the collector says.
    Again { after: Option<Duration>, why: String },
    /// It may not.
    Refused(String),
}

/// What a peer said, harmless and cut.
pub(super) fn said(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SAID_BYTES / 4).collect()
}

impl Accepted {
    /// Of a message that was taken in part. A negative count is none.
    pub(super) fn partly(rejected: i64, words: &str) -> Self {
        Self { rejected: u64::try_from(rejected).unwrap_or_default(), said: said(words) }
    }
}

/// `google.rpc.Status`, as far as it is read.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How long a collector asks to be left alone, in a gRPC status; `None` if it does not say.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay.unwrap_or(Delay { seconds: 0, nanos: 0 });
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::new(seconds, nanos.min(999_999_999)))
}

/// What a gRPC status means.
pub(super) fn of_grpc(status: &Status) -> Failure {
    let why = format!("gRPC {:?}: {}", status.code(), said(status.message()));
    let after = retry_delay(status.details());
    // What tonic itself says of a connection that could not be made or broke off.
    let is_local = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Again { after, why },
        Code::ResourceExhausted if after.is_some() => Failure::Again { after, why },
        Code::Unknown | Code::Internal if is_local => Failure::Again { after: None, why: reason(status) },
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Failure::Refused(why),
    }
}

/// An error with its causes.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    said(&text)
}

/// What an HTTP status means that is no success.
pub(super) fn of_http(status: http::StatusCode, retry_after: Option<&http::HeaderValue>) -> Failure {
    let why = format!("HTTP {}", status.as_u16());
    if !matches!(status.as_u16(), 429 | 502 | 503 | 504) {
        return Failure::Refused(why);
    }
    // A date is taken for no word at all: the clocks of two hosts are two.
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Failure::Again { after: seconds.map(Duration::from_secs), why }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn with_retry_info(code: Code, seconds: i64) -> Status {
        let info = RetryInfo { retry_delay: Some(Delay { seconds, nanos: 0 }) };
        let any =
            Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        let details = RpcStatus { details: vec![any] }.encode_to_vec();
        Status::with_details(code, "later", details.into())
    }

    #[test]
    fn what_may_be_sent_again_is_what_otlp_says() {
        let is_again = |failure: Failure| matches!(failure, Failure::Again { .. });
        for code in [1, 4, 10, 11, 14, 15] {
            assert!(is_again(of_grpc(&Status::new(Code::from(code), ""))), "{code}");
        }
        for code in [2, 3, 5, 6, 7, 8, 9, 12, 13, 16] {
            assert!(!is_again(of_grpc(&Status::new(Code::from(code), ""))), "{code}");
        }
        for status in [429, 502, 503, 504] {
            assert!(is_again(of_http(StatusCode::from_u16(status).unwrap(), None)), "{status}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert!(!is_again(of_http(StatusCode::from_u16(status).unwrap(), None)), "{status}");
        }
    }

    #[test]
    fn a_collector_says_when() {
        let after = |failure: Failure| match failure {
            Failure::Again { after, .. } => after,
            Failure::Refused(why) => panic!("{why}"),
        };
        assert_eq!(
            after(of_grpc(&with_retry_info(Code::ResourceExhausted, 3))),
            Some(Duration::from_secs(3))
        );
        assert_eq!(after(of_grpc(&with_retry_info(Code::Unavailable, -3))), None, "nonsense");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let http = |value| after(of_http(status, Some(&HeaderValue::from_static(value))));
        assert_eq!((http("7"), http("soon"), http("-1")), (Some(Duration::from_secs(7)), None, None));
    }

    #[test]
    fn what_a_collector_says_is_cut_and_harmless() {
        let status = Status::new(Code::InvalidArgument, format!("\u{1b}[31m{}", "x".repeat(5000)));
        let Failure::Refused(why) = of_grpc(&status) else { panic!("{status}") };
        assert!(why.len() < 300 && !why.contains('\u{1b}'), "{why}");
        assert_eq!(Accepted::partly(-5, "").rejected, 0);
    }
}
