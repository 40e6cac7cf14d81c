//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11), and `Retry-After`.
//!
//! Our policies have a quota (`q`) in a window (`w`), and what they let through at once after a quiet time where that is
//! something else (`outrider-burst`). No partition key is told (`pk`): a caller knows who it is. `t` is the time until one
//! more request is let through, which is also what `Retry-After` says where none is left.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::rate_limit::Quota;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// gRPC's word for the same (gRFC A6), in milliseconds.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Tells how much is left, beside what an app tells of its own limits: lists may be split over several fields.
pub fn tell(headers: &mut HeaderMap, quotas: &[Quota]) {
    for quota in quotas {
        let limit = &quota.limit;
        let name = quoted(&limit.name);
        let burst = match limit.burst {
            burst if burst == limit.requests => String::new(),
            burst => format!(";outrider-burst={burst}"),
        };
        let policy = format!("{name};q={};w={}{burst}", limit.requests, whole_seconds(limit.per));
        let left = format!("{name};r={};t={}", quota.left, whole_seconds(quota.wait));
        for (field, text) in [(POLICY, policy), (LIMIT, left)] {
            // Names are printable ASCII.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.append(field, value);
            }
        }
    }
}

/// Tells one who was refused when to come again.
pub fn refuse(headers: &mut HeaderMap, quota: &Quota, is_grpc: bool) {
    tell(headers, std::slice::from_ref(quota));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(quota.wait).max(1)));
    if is_grpc {
        let millis = quota.wait.as_nanos().div_ceil(1_000_000);
        headers.insert(PUSHBACK, HeaderValue::from(u64::try_from(millis).unwrap_or(u64::MAX)));
    }
}

/// Never less than it is.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// A String of Structured Fields (RFC 9651 §3.3.3).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rate_limit::{By, RateLimit};

    fn quota(name: &str, left: u32, wait: Duration) -> Quota {
        let per = Duration::from_millis(1500);
        let limit =
            RateLimit { name: name.into(), requests: 10, per, burst: 10, by: By::All, tells_always: false };
        Quota { limit, left, wait }
    }

    #[test]
    fn what_is_left_is_told_beside_what_the_app_tells() {
        let mut headers = HeaderMap::new();
        headers.insert(LIMIT, HeaderValue::from_static("\"app\";r=1"));
        let mut all = quota("all", 3, Duration::from_millis(100));
        all.limit.burst = 20;
        tell(&mut headers, &[all, quota("caller", 0, Duration::from_secs(2))]);
        let of = |field: &HeaderName| headers.get_all(field).iter().cloned().collect::<Vec<_>>();
        assert_eq!(of(&POLICY), ["\"all\";q=10;w=2;outrider-burst=20", "\"caller\";q=10;w=2"]);
        assert_eq!(of(&LIMIT), ["\"app\";r=1", "\"all\";r=3;t=1", "\"caller\";r=0;t=2"]);
        assert!(!headers.contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn who_is_refused_is_never_told_to_come_too_early() {
        for (millis, seconds) in [(1, "1"), (1000, "1"), (1001, "2")] {
            let mut headers = HeaderMap::new();
            refuse(&mut headers, &quota("all", 0, Duration::from_millis(millis)), true);
            assert_eq!(headers[header::RETRY_AFTER], seconds);
            assert_eq!(headers[PUSHBACK], millis.to_string());
        }
        let mut headers = HeaderMap::new();
        refuse(&mut headers, &quota("all", 0, Duration::from_nanos(1)), false);
        assert!(!headers.contains_key(PUSHBACK));
    }

    #[test]
    fn any_name_is_a_string_of_structured_fields() {
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
    }
}
