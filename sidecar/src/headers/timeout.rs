//! For how long a caller still waits, as fields say it: gRPC's, and ours.
//!
//! A value that is none counts as no value. That is what Envoy makes of such a `grpc-timeout`; it goes on as it came, so
//! that the app's gRPC library refuses the call, as grpc-go and grpc-java do (INTERNAL). `0` is no value by gRPC's grammar,
//! but its libraries take it for a time that is over, and so do we.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::wire;

/// gRPC over HTTP/2, "Requests": `"grpc-timeout" TimeoutValue TimeoutUnit`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Digits of a `TimeoutValue`, at most.
const MAX_GRPC_DIGITS: usize = 8;
/// Largest `TimeoutValue`.
const MAX_GRPC_VALUE: u128 = 99_999_999;
/// Digits of our own field, at most: three months.
const MAX_MS_DIGITS: usize = 10;
/// The units of gRPC, in nanoseconds, the finest first.
const GRPC_UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// What a request's `grpc-timeout` says; `None` if there is none, or several, or if it is not one.
#[must_use]
pub fn grpc(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let (value, unit) = match (values.next(), values.next()) {
        (Some(only), None) => only.as_bytes().split_last().map(|(unit, value)| (value, unit))?,
        _ => return None,
    };
    let (_, nanos) = GRPC_UNITS.iter().find(|(letter, _)| letter == unit)?;
    duration(u128::from(digits(value, MAX_GRPC_DIGITS)?) * nanos)
}

/// A `grpc-timeout` of that time, or of a little less where eight digits cannot say it, but not of nothing.
#[must_use]
pub fn show_grpc(left: Duration) -> HeaderValue {
    let nanos = left.as_nanos().max(1);
    let fits = |(_, unit): &&(u8, u128)| nanos / unit <= MAX_GRPC_VALUE;
    let (letter, unit) = GRPC_UNITS.iter().find(fits).copied().unwrap_or((b'H', nanos));
    let text = format!("{}{}", nanos / unit, char::from(letter));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("1n"))
}

/// What [`wire::TIMEOUT_MS`] says; `None` if that is no number of milliseconds.
#[must_use]
pub fn ours(value: &HeaderValue) -> Option<Duration> {
    digits(value.as_bytes(), MAX_MS_DIGITS).map(Duration::from_millis)
}

/// [`wire::TIMEOUT_MS`] of that time, up to the next millisecond: said to somebody who was told whole ones, it does not grow,
/// and whoever it is said to does not give up before us.
pub fn tell(headers: &mut HeaderMap, left: Duration) {
    let millis = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    headers.insert(wire::TIMEOUT_MS, HeaderValue::from(millis));
}

/// One to `max` digits, and nothing else.
fn digits(text: &[u8], max: usize) -> Option<u64> {
    let is_number = (1..=max).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    if is_number { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn duration(nanos: u128) -> Option<Duration> {
    const SECOND: u128 = 1_000_000_000;
    Some(Duration::new(u64::try_from(nanos / SECOND).ok()?, u32::try_from(nanos % SECOND).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::fixture::headers;

    fn read(text: &str) -> Option<Duration> {
        grpc(&headers(&[("grpc-timeout", text)]))
    }

    #[test]
    fn a_grpc_timeout_is_one_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
            ("007S", Duration::from_secs(7)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_grpc_timeout_counts_as_none() {
        for text in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "1 S",
            " 1S",
            "1S ",
            "+1S",
            "-1S",
            "1.5S",
            "0x1S",
            "123456789S",
            "1SS",
            "\u{663}S",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let twice = headers(&[("grpc-timeout", "1S"), ("grpc-timeout", "2S")]);
        assert_eq!(grpc(&twice), None);
        assert_eq!(grpc(&HeaderMap::new()), None);
    }

    #[test]
    fn our_field_is_a_number_of_milliseconds() {
        let read = |text: &str| ours(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for text in ["", "-1", "+1", "1.5", "1s", "99999999999", "one"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_grpc_timeout_is_never_longer_and_hardly_shorter(nanos in 1_u64..) {
            let left = Duration::from_nanos(nanos);
            let mut map = HeaderMap::new();
            map.insert(GRPC_TIMEOUT, show_grpc(left));
            let again = grpc(&map).unwrap();
            prop_assert!(again <= left);
            // From milliseconds to seconds is the widest step: at least 100,000 of them are left.
            prop_assert!((left - again).as_nanos() * 100_000 <= left.as_nanos(), "{again:?} of {left:?}");
        }

        #[test]
        fn a_told_time_never_grows(millis in 0_u64..=9_999_999_999, nanos_since in 0_u64..10_000_000_000) {
            let mut map = HeaderMap::new();
            tell(&mut map, Duration::from_millis(millis).saturating_sub(Duration::from_nanos(nanos_since)));
            prop_assert!(ours(&map[wire::TIMEOUT_MS]).unwrap() <= Duration::from_millis(millis));
        }

        #[test]
        fn any_value_is_read_without_a_panic(bytes in proptest::collection::vec(32_u8..=255, 0..12)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _any = ours(&value);
                let mut map = HeaderMap::new();
                map.insert(GRPC_TIMEOUT, value);
                let _any = grpc(&map);
            }
        }
    }
}
