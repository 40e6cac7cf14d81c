//! What an HTTP/1 peer says about how long it keeps a connection: `Keep-Alive: timeout=5, max=100`.
//!
//! The field is a hint that no RFC in force defines (RFC 2068 §19.7.1.1 last did; Apache, nginx and Node send it). It can
//! only shorten what we would do anyway, so whatever is malformed in it is left out.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// We close so long before the peer does: its clock began to run before ours, and our next request takes time to get
/// there. Of a timeout under two of these, half.
const MARGIN: Duration = Duration::from_secs(1);

/// What a peer said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeepAlive {
    /// How long the connection may stay unused, our margin taken off.
    pub(super) idle: Option<Duration>,
    /// How many more requests it may carry.
    pub(super) max: Option<u32>,
}

/// Reads a response's fields. Of a parameter given twice, the smallest counts.
pub(super) fn parse(headers: &HeaderMap) -> KeepAlive {
    let mut said = KeepAlive::default();
    for value in headers.get_all(KEEP_ALIVE) {
        let Ok(text) = value.to_str() else { continue };
        for parameter in text.split(',') {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let Some(value) = number(value) else { continue };
            let name = name.trim();
            if name.eq_ignore_ascii_case("timeout") {
                let idle = before(Duration::from_secs(u64::from(value)));
                said.idle = Some(said.idle.map_or(idle, |other| other.min(idle)));
            } else if name.eq_ignore_ascii_case("max") {
                said.max = Some(said.max.map_or(value, |other| other.min(value)));
            }
        }
    }
    said
}

/// A whole number, perhaps quoted; one too large is as good as none.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn before(timeout: Duration) -> Duration {
    timeout - MARGIN.min(timeout / 2)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn said(values: &[&str]) -> KeepAlive {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEEP_ALIVE, HeaderValue::from_str(value).unwrap());
        }
        parse(&headers)
    }

    fn idle_millis(value: &str) -> Option<u128> {
        said(&[value]).idle.map(|idle| idle.as_millis())
    }

    #[test]
    fn a_timeout_is_learned_with_a_margin() {
        assert_eq!(idle_millis("timeout=5"), Some(4000));
        assert_eq!(idle_millis("timeout=2"), Some(1000));
        assert_eq!(idle_millis("timeout=1"), Some(500));
        assert_eq!(idle_millis("timeout=0"), Some(0));
        assert_eq!(idle_millis("Timeout = \"60\" , max=100"), Some(59_000));
    }

    #[test]
    fn a_count_is_learned() {
        assert_eq!(said(&["timeout=5, max=100"]).max, Some(100));
        assert_eq!(said(&["max=0"]).max, Some(0));
    }

    #[test]
    fn the_smallest_counts() {
        assert_eq!(said(&["timeout=9, timeout=3", "timeout=7, max=8", "max=2"]).max, Some(2));
        assert_eq!(said(&["timeout=9, timeout=3", "timeout=7"]).idle, Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for value in [
            "",
            "timeout",
            "timeout=",
            "timeout=-1",
            "timeout=5s",
            "timeout=+5",
            "timeout=0x5",
            "max=\"",
            "=5",
        ] {
            assert_eq!(said(&[value]), KeepAlive::default(), "{value}");
        }
        assert_eq!(said(&["timeout=99999999999999999999"]), KeepAlive::default());
        assert_eq!(said(&["timeout=x, max=3"]).max, Some(3));
    }

    proptest! {
        #[test]
        fn no_value_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.append(KEEP_ALIVE, value);
                let _said = parse(&headers);
            }
        }
    }
}
