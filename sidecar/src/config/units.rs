//! Units: what a number in the file is counted in, how it is read and how it is shown.

use std::time::Duration;

/// A quantity that has a key in the file.
pub trait Unit: Copy + PartialOrd {
    /// What it is, as in "is not a duration".
    const WHAT: &'static str;
    /// How to write one.
    const EXAMPLE: &'static str;

    /// Reads it; `None` if the text is no such quantity.
    fn parse(text: &str) -> Option<Self>;

    /// Shows it as it would stand in the file.
    fn show(self) -> String;
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// So many KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count * 1024)
    }

    /// So many MiB.
    pub const fn mib(count: u64) -> Self {
        Self::kib(count * 1024)
    }
}

/// A number with at most one decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(u64);

impl Decimal {
    /// So many tenths.
    pub const fn tenths(count: u64) -> Self {
        Self(count)
    }

    /// How many tenths.
    pub const fn in_tenths(self) -> u64 {
        self.0
    }

    /// The number.
    #[expect(clippy::cast_precision_loss, reason = "the keys that have one are in the thousands")]
    pub fn value(self) -> f64 {
        self.0 as f64 / 10.0
    }
}

impl Unit for Decimal {
    const WHAT: &'static str = "number with at most one decimal";
    const EXAMPLE: &'static str = "write it as 5 or 1.9";

    fn parse(text: &str) -> Option<Self> {
        let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
        let tenth = <u64 as Unit>::parse(tenth).filter(|digit| *digit < 10)?;
        <u64 as Unit>::parse(whole)?.checked_mul(10)?.checked_add(tenth).map(Self)
    }

    fn show(self) -> String {
        if self.0.is_multiple_of(10) {
            (self.0 / 10).to_string()
        } else {
            format!("{}.{}", self.0 / 10, self.0 % 10)
        }
    }
}

/// A share in percent, with at most four decimals: as parts of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u64);

impl Percent {
    /// So many.
    pub const fn whole(count: u64) -> Self {
        Self(count * 10_000)
    }

    /// How many of a million.
    pub const fn of_million(self) -> u64 {
        self.0
    }
}

impl Unit for Percent {
    const WHAT: &'static str = "percentage with at most four decimals";
    const EXAMPLE: &'static str = "write it as 5 or 0.25";

    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let missing = 4_usize.checked_sub(decimals.len()).and_then(|count| u32::try_from(count).ok())?;
        let decimals = <u64 as Unit>::parse(decimals)?.checked_mul(10_u64.pow(missing))?;
        <u64 as Unit>::parse(whole)?.checked_mul(10_000)?.checked_add(decimals).map(Self)
    }

    fn show(self) -> String {
        let decimals = format!("{:04}", self.0 % 10_000);
        format!("{}.{decimals}", self.0 / 10_000).trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl Unit for Duration {
    const WHAT: &'static str = "duration";
    const EXAMPLE: &'static str = "write it as 15s, 250ms or 24h";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }

    fn show(self) -> String {
        const STEPS: [(&str, u128); 5] =
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let millis = self.as_millis();
        if millis == 0 {
            return "0s".to_owned();
        }
        let fits = |(_, step): &&(&str, u128)| millis.is_multiple_of(*step);
        match STEPS.iter().find(fits) {
            // A day is written as 24h: that is how certificates are spoken of.
            Some(("d", _)) if millis == 86_400_000 => "24h".to_owned(),
            Some((unit, step)) => format!("{}{unit}", millis / step),
            None => format!("{millis}ms"),
        }
    }
}

impl Unit for Bytes {
    const WHAT: &'static str = "size";
    const EXAMPLE: &'static str = "write bytes as 65536, 64KiB or 1MiB";

    fn parse(text: &str) -> Option<Self> {
        let (digits, factor) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
            .into_iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), factor)))
            .unwrap_or((text, 1));
        <u64 as Unit>::parse(digits)?.checked_mul(factor).map(Self)
    }

    fn show(self) -> String {
        match self.0 {
            bytes if bytes > 0 && bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
            bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
            bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
            bytes => bytes.to_string(),
        }
    }
}

impl Unit for u64 {
    const WHAT: &'static str = "whole number";
    const EXAMPLE: &'static str = "write it in digits";

    fn parse(text: &str) -> Option<Self> {
        // `str::parse` would also take a plus sign.
        if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
    }

    fn show(self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_units() {
        let cases = [("0", 0), ("65536", 65536), ("64KiB", 65536), ("1 MiB", 1 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(<Bytes as Unit>::parse(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "KiB", "-1", "+1", "1.5MiB", "64kb", "64KB", "99999999999GiB"] {
            assert_eq!(<Bytes as Unit>::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for millis in [0, 1, 250, 1_000, 90_000, 60_000, 3_600_000, 86_400_000, 90 * 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(<Duration as Unit>::parse(&duration.show()), Some(duration), "{}", duration.show());
        }
        for bytes in [0, 1, 1000, 65536, 3 << 20, 5 << 30] {
            assert_eq!(<Bytes as Unit>::parse(&Bytes(bytes).show()), Some(Bytes(bytes)));
        }
        assert_eq!(Duration::from_secs(90 * 86_400).show(), "90d");
        assert_eq!(Duration::from_secs(300).show(), "5m");
    }

    #[test]
    fn shares_are_read_to_a_millionth() {
        let cases = [
            ("0", 0),
            ("100", 1_000_000),
            ("0.5", 5_000),
            ("33.3333", 333_333),
            ("0.0001", 1),
            ("7.0000", 70_000),
        ];
        for (text, of_million) in cases {
            let share = <Percent as Unit>::parse(text).unwrap();
            assert_eq!(share.of_million(), of_million, "{text}");
            assert_eq!(<Percent as Unit>::parse(&share.show()), Some(share), "{}", share.show());
        }
        assert_eq!((Percent::whole(100).show(), Percent(5_000).show()), ("100".to_owned(), "0.5".to_owned()));
        for text in ["", ".", "1.", ".5", "0.00001", "-1", "1e2", "5%"] {
            assert_eq!(<Percent as Unit>::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_without_unit_is_no_duration() {
        for text in ["15", "", "s", "-1s", "1 parsec"] {
            assert_eq!(<Duration as Unit>::parse(text), None, "{text}");
        }
    }
}
