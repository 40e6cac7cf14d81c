//! What answers of the gRPC health protocol mean for a check.

use http::HeaderMap;

use super::finding::Finding;
pub(super) use crate::model::grpc_health::{PATH, question};
use crate::model::{
    grpc_health::{SERVING, serving_status},
    health_check::CheckOutcome,
};

/// What an answer says: its message, and the fields in which the call's status stands (those of a trailers-only answer's
/// head, or trailers).
pub(super) fn judge(body: &[u8], status: &HeaderMap) -> Finding {
    let Some(code) = status.get("grpc-status") else {
        return Finding::new(CheckOutcome::Protocol, "an answer without grpc-status");
    };
    let message = status.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    match code.as_bytes() {
        b"0" => {}
        b"5" => return Finding::new(CheckOutcome::NotServing, &format!("no such service (5): {message}")),
        b"12" => {
            return Finding::new(CheckOutcome::NotServing, &format!("no health service (12): {message}"));
        }
        code => {
            let text = format!("grpc-status {}: {message}", String::from_utf8_lossy(code));
            return Finding::new(CheckOutcome::Status, &text);
        }
    }
    match serving_status(body) {
        Some(SERVING) => Finding::new(CheckOutcome::Well, "SERVING"),
        Some(0) => Finding::new(CheckOutcome::NotServing, "UNKNOWN"),
        Some(2) => Finding::new(CheckOutcome::NotServing, "NOT_SERVING"),
        Some(3) => Finding::new(CheckOutcome::NotServing, "SERVICE_UNKNOWN"),
        Some(other) => Finding::new(CheckOutcome::NotServing, &format!("status {other}")),
        None => Finding::new(CheckOutcome::Protocol, "not a HealthCheckResponse"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn status(code: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))])
    }

    fn outcome(body: &[u8], code: &'static str) -> CheckOutcome {
        judge(body, &status(code)).outcome
    }

    #[test]
    fn questions_are_as_protobuf_writes_them() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(200));
        assert_eq!(long.get(..8).unwrap(), b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(long.len(), 5 + 203);
    }

    #[test]
    fn only_serving_is_well() {
        assert_eq!(outcome(b"\0\0\0\0\x02\x08\x01", "0"), CheckOutcome::Well);
        for (body, code) in [
            (&b"\0\0\0\0\0"[..], "0"),
            (b"\0\0\0\0\x02\x08\x02", "0"),
            (b"\0\0\0\0\x02\x08\x03", "0"),
            (b"\0\0\0\0\x02\x08\x63", "0"),
            (b"", "5"),
            (b"", "12"),
        ] {
            assert_eq!(outcome(body, code), CheckOutcome::NotServing, "{body:?} {code}");
        }
        assert_eq!(outcome(b"\0\0\0\0\x02\x08\x01", "14"), CheckOutcome::Status);
        assert_eq!(judge(b"\0\0\0\0\x02\x08\x01", &HeaderMap::new()).outcome, CheckOutcome::Protocol);
    }

    #[test]
    fn what_is_new_in_the_message_is_passed_over() {
        let message = b"\x12\x02hi\x08\x02\x1d1234\x21\x31\x32\x33\x34\x35\x36\x37\x38\x08\x01";
        let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        body.extend_from_slice(message);
        assert_eq!(outcome(&body, "0"), CheckOutcome::Well);
    }

    #[test]
    fn garbage_is_no_answer() {
        for body in [
            &b""[..],
            b"\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x03\x08\x01",
            b"\0\0\0\0\x02\x08\x01\0\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x12\x05",
            b"\0\0\0\0\x01\x0f",
            b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\0\xff\xff\xff\xff\x08\x01",
        ] {
            assert_eq!(outcome(body, "0"), CheckOutcome::Protocol, "{body:?}");
        }
    }
}
