//! `grpc-retry-pushback-ms`: what a gRPC server says of a retry of the call that it fails (gRFC A6, "Pushback").

use std::time::Duration;

use http::HeaderMap;

/// The field.
const NAME: &str = "grpc-retry-pushback-ms";

/// What a server says of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// It is to come after exactly this.
    After(Duration),
    /// There is to be none.
    Never,
}

/// Reads it from a head or from trailers; `None`: nothing is said.
#[must_use]
pub fn parse(headers: &HeaderMap) -> Option<Pushback> {
    let mut values = headers.get_all(NAME).iter();
    let value = values.next()?;
    // gRFC A6: "If the value for pushback is negative or unparseable, then it will be seen as the server asking the
    // client not to retry at all."
    let millis = value.to_str().ok().and_then(millis).filter(|_| values.next().is_none());
    Some(millis.map_or(Pushback::Never, |millis| Pushback::After(Duration::from_millis(millis))))
}

/// "an ASCII encoded signed 32-bit integer with no unnecessary leading zeros" that is not negative.
fn millis(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let millis: i32 = text.parse().ok().filter(|_| is_plain)?;
    u64::try_from(millis).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> Option<Pushback> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, HeaderValue::from_str(value).unwrap());
        }
        parse(&headers)
    }

    #[test]
    fn what_is_no_number_of_milliseconds_forbids() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["0"]), Some(Pushback::After(Duration::ZERO)));
        assert_eq!(read(&["1500"]), Some(Pushback::After(Duration::from_millis(1500))));
        for text in ["-1", "", "abc", "1.5", "+1", "01", "00", "1 s", "2147483648", "99999999999999999999"] {
            assert_eq!(read(&[text]), Some(Pushback::Never), "{text:?}");
        }
        assert_eq!(read(&["1", "1"]), Some(Pushback::Never));
    }

    proptest! {
        #[test]
        fn every_number_that_is_not_negative_is_a_wait(millis: i32) {
            let expected = match u64::try_from(millis) {
                Ok(millis) => Pushback::After(Duration::from_millis(millis)),
                Err(_negative) => Pushback::Never,
            };
            prop_assert_eq!(read(&[&millis.to_string()]), Some(expected));
        }
    }
}
