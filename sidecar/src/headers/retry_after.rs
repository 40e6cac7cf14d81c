//! `Retry-After` (RFC 9110 §10.2.3): a number of seconds, or a date.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// How long the sender asks to be left alone, where the wall says `now`; zero for a date that is over. `None` if it says
/// nothing, or nothing that can be read: the two obsolete forms of dates (RFC 850, asctime) are none.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit stand for very long.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(date(text)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Seconds of a date like `Sun, 06 Nov 1994 08:49:37 GMT` after 1970. The day of the week is not looked at.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let mut next = || parts.next();
    let (day, month, year, time, zone) = (next()?, next()?, next()?, next()?, next()?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let mut clock = time.split(':').map(|part| number(part, 2));
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    // 60 is a leap second.
    let is_time = hours < 24 && minutes < 60 && seconds <= 60 && clock.next().is_none();
    let (day, year) = (number(day, 2)?, number(year, 4)?);
    let is_date = (1..=31).contains(&day) && year >= 1970 && zone == "GMT" && parts.next().is_none();
    (is_time && is_date).then(|| {
        days(year, u64::try_from(month).unwrap_or(0), day) * 86_400 + hours * 3_600 + minutes * 60 + seconds
    })
}

/// So many digits, as a number.
fn number(text: &str, digits: usize) -> Option<u64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Days from 1970 to a date (month from 0) from then on.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March have their leap day last.
    let year = if month < 2 { year - 1 } else { year };
    let month = (month + 10) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days from the first of March of the year 0 to 1970.
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::fixture::headers;

    fn at(text: &str, now: u64) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        retry_after(&headers(&[("retry-after", text)]), now).map(|asked| asked.as_secs())
    }

    #[test]
    fn seconds_are_read() {
        assert_eq!(at("120", 0), Some(120));
        assert_eq!(at("0", 0), Some(0));
        assert_eq!(at("99999999999999999999999", 0), Some(u64::from(u32::MAX)));
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770), Some(7));
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777), Some(0));
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT", 800_000_000), Some(0), "it is over");
        assert_eq!(at("Thu, 01 Jan 1970 00:00:10 GMT", 0), Some(10));
        assert_eq!(at("Thu, 29 Feb 2024 23:59:60 GMT", 1_709_251_200), Some(0));
        assert_eq!(at("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_199), Some(1));
        assert_eq!(at("Wed, 31 Dec 2098 23:59:59 GMT", 4_070_908_799), Some(0));
        assert_eq!(at("Thu, 01 Jan 2099 00:00:00 GMT", 4_070_908_799), Some(1));
    }

    #[test]
    fn anything_else_says_nothing() {
        for text in [
            "",
            "soon",
            "-1",
            "1.5",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37:01 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1894 08:49:37 GMT",
        ] {
            assert_eq!(at(text, 0), None, "{text}");
        }
    }
}
