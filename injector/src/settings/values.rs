//! Texts of annotations become values, or a sentence says what is wrong with them.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;

use crate::{
    denial::quoted,
    names::{INJECT, PORTS},
};

/// Most items of a list; an annotation is no place for a table.
const MAX_ITEMS: usize = 256;
/// Longest name of a service, as the sidecar takes it.
const MAX_NAME: usize = 128;
/// Longest name of an image: a registry's name, a path, and a digest.
const MAX_IMAGE: usize = 512;
/// Longest filter of a log, as the sidecar takes it.
const MAX_FILTER: usize = 256;

/// A value, or what is wrong with the text.
pub(super) type Parsed<T> = Result<T, String>;

/// The items of a list: separated by commas, spaces around them left out.
fn items(text: &str) -> Parsed<Vec<&str>> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    match items.len() {
        0 => Err("it lists nothing".to_owned()),
        1..=MAX_ITEMS => Ok(items),
        many => Err(format!("it lists {many}, at most {MAX_ITEMS} are allowed")),
    }
}

/// A list without what stands there twice.
fn unique<T: PartialEq>(all: impl IntoIterator<Item = Parsed<T>>) -> Parsed<Vec<T>> {
    let mut found = Vec::new();
    for one in all {
        let one = one?;
        if !found.contains(&one) {
            found.push(one);
        }
    }
    Ok(found)
}

pub(super) fn name(text: &str) -> Parsed<String> {
    let is_name = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not 1 to {MAX_NAME} printable ASCII characters without spaces", quoted(text)))
    }
}

fn port(text: &str) -> Parsed<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port: &u16| digits && *port != 0);
    port.ok_or_else(|| format!("{} is no port, which is a number from 1 to 65535", quoted(text)))
}

pub(super) fn ports(text: &str) -> Parsed<Vec<u16>> {
    unique(items(text)?.into_iter().map(port))
}

/// A port of the app.
fn app_port(text: &str) -> Parsed<u16> {
    match port(text)? {
        port if PORTS.contains(&port) => Err(format!("{port} is a port of the sidecar")),
        port => Ok(port),
    }
}

pub(super) fn app_ports(text: &str) -> Parsed<Vec<u16>> {
    unique(items(text)?.into_iter().map(app_port))
}

/// Addresses and ranges as they were written, each of which is one.
pub(super) fn cidrs(text: &str) -> Parsed<Vec<String>> {
    let one = |item: &str| {
        let is_one = item.parse::<IpNet>().is_ok() || item.parse::<std::net::IpAddr>().is_ok();
        let wrong = || format!("{} is no address and no range such as 10.8.0.0/16", quoted(item));
        is_one.then(|| item.to_owned()).ok_or_else(wrong)
    };
    unique(items(text)?.into_iter().map(one))
}

/// The same for callers that pass the sidecar by: everybody is none of them.
pub(super) fn callers(text: &str) -> Parsed<Vec<String>> {
    let found = cidrs(text)?;
    match found.iter().find(|item| item.parse::<IpNet>().is_ok_and(|range| range.prefix_len() == 0)) {
        None => Ok(found),
        Some(all) => Err(format!(
            "{} is everybody, and nobody would be asked for a certificate: name the ranges that call in plaintext, or \
             leave the pod outside of the mesh with the label {INJECT}: disabled",
            quoted(all)
        )),
    }
}

/// Where a collector is, or nowhere.
pub(super) fn endpoint(text: &str) -> Parsed<Option<String>> {
    if text == "none" {
        return Ok(None);
    }
    // What stands there is not repeated: it may hold a password.
    outrider::config::collector_endpoint(text).map_err(|problem| format!("it is {problem}"))?;
    Ok(Some(text.to_owned()))
}

/// Whether the URL of a collector says more than where it is.
pub(super) fn has_path(url: &str) -> bool {
    outrider::config::collector_endpoint(url).is_ok_and(|endpoint| !matches!(&*endpoint.path, "" | "/"))
}

/// A percentage in tenths.
pub(super) fn percent(text: &str) -> Parsed<u16> {
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = (1..=3).contains(&whole.len()) && tenth.len() == 1 && digits(whole) && digits(tenth);
    let tenths = format!("{whole}{tenth}").parse().ok().filter(|tenths| is_number && *tenths <= 1000);
    tenths.ok_or_else(|| format!("{} is no percentage such as 10 or 0.5", quoted(text)))
}

/// One of several words.
pub(super) fn word(words: &[&'static str]) -> impl Fn(&str) -> Parsed<&'static str> {
    move |text| {
        let found = words.iter().find(|word| **word == text).copied();
        found.ok_or_else(|| format!("{} is not {}", quoted(text), words.join(" or ")))
    }
}

/// A word for each port.
pub(super) fn by_port(words: &[&'static str]) -> impl Fn(&str) -> Parsed<BTreeMap<u16, &'static str>> {
    move |text| {
        let mut found = BTreeMap::new();
        for item in items(text)? {
            let (of, is) = item.split_once('=').ok_or_else(|| {
                format!("{} is not port=word, such as 8080={}", quoted(item), words.first().unwrap_or(&""))
            })?;
            let port = app_port(of.trim())?;
            if found.insert(port, word(words)(is.trim())?).is_some() {
                return Err(format!("port {port} is there twice"));
            }
        }
        Ok(found)
    }
}

/// A day that is one, as `2027-03-31`.
pub(super) fn date(text: &str) -> Parsed<String> {
    let wrong = || format!("{} is no date such as 2027-03-31", quoted(text));
    let part = |range: std::ops::Range<usize>| {
        let digits = text.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u16>().ok())
    };
    let shape = text.len() == 10 && text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    let found = year.zip(month).zip(day).filter(|_| shape).and_then(|((year, month), day)| {
        let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
        time::Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
    });
    found.map(|_| text.to_owned()).ok_or_else(wrong)
}

/// A time within these bounds, both included.
pub(super) fn duration(min: Duration, max: Duration) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| {
        let parsed = humantime::parse_duration(text);
        let found = parsed.map_err(|_| format!("{} is no duration such as 20s or 1m 30s", quoted(text)))?;
        if (min..=max).contains(&found) {
            Ok(found)
        } else {
            Err(format!("{} is out of range", quoted(text)))
        }
    }
}

/// A filter as `outrider run --log-level` takes it.
pub(super) fn log_filter(text: &str) -> Parsed<String> {
    let is_level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let is_part = |part: &str| {
        let part = part.trim();
        let (target, level) = part.rsplit_once('=').unwrap_or(("", part));
        is_level(level) && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
    };
    if text.len() <= MAX_FILTER && text.split(',').all(is_part) {
        Ok(text.to_owned())
    } else {
        let allowed = "off, error, warn, info, debug, nor a list such as warn,outrider::identity=debug";
        Err(format!("{} is none of {allowed}", quoted(text)))
    }
}

pub(super) fn uid(text: &str) -> Parsed<u32> {
    let max = i32::MAX.unsigned_abs();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let uid = text.parse().ok().filter(|uid| digits && (1..=max).contains(uid));
    uid.ok_or_else(|| format!("{} is no user number", quoted(text)))
}

pub(super) fn image(text: &str) -> Parsed<String> {
    let is_image = (1..=MAX_IMAGE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte))
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_image {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is no image such as registry.example/outrider:1.0", quoted(text)))
    }
}

/// An amount of a resource as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    /// As it was written.
    pub text: String,
    /// The amount in thousandths.
    pub milli: u128,
}

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at_checked(digits)?;
        let factor: u128 = match suffix {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        // More decimals than three cannot be said in thousandths.
        if whole.is_empty() || whole.len() > 15 || part.is_empty() || part.len() > 3 {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let thousandths: u128 = format!("{part:0<3}").parse().ok()?;
        let milli = (whole * 1_000 + thousandths).checked_mul(factor)? / 1_000;
        Some(Self { text: text.to_owned(), milli })
    }
}

/// An amount within these bounds, both included, or none.
pub(super) fn quantity(min: &'static str, max: &'static str) -> impl Fn(&str) -> Parsed<Option<Quantity>> {
    move |text| {
        if text == "none" {
            return Ok(None);
        }
        let found = Quantity::parse(text)
            .ok_or_else(|| format!("{} is no quantity such as 100m or 64Mi, and not none", quoted(text)))?;
        let is_within = Quantity::parse(min).is_some_and(|min| min.milli <= found.milli)
            && Quantity::parse(max).is_some_and(|max| found.milli <= max.milli);
        if is_within { Ok(Some(found)) } else { Err(format!("{} is out of range", quoted(text))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_what_kubernetes_takes_them_for() {
        let milli = |text: &str| Quantity::parse(text).map(|quantity| quantity.milli);
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("0.1"), Some(100));
        assert_eq!(milli("2"), Some(2_000));
        assert_eq!(milli("1.5Gi"), Some(3 << 29).map(|bytes: u128| bytes * 1_000));
        for wrong in ["", "m", "1.", ".5", "-1", "1e3", "1 Mi", "64mi", "1.0001", "9999999999999999"] {
            assert_eq!(milli(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_are_bounded_and_say_a_thing_once() {
        assert_eq!(ports("80, 443,80,").unwrap(), [80, 443]);
        let many: Vec<String> = (1..=300).map(|port| port.to_string()).collect();
        assert!(ports(&many.join(",")).unwrap_err().contains("at most 256"));
        for wrong in ["", ",", "0", "65536", "+80", "http", "80-90"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn percentages_have_one_decimal_and_everybody_is_no_caller() {
        for (text, tenths) in [("0", 0), ("0.5", 5), ("1", 10), ("100", 1000), ("100.0", 1000)] {
            assert_eq!(percent(text).unwrap(), tenths, "{text}");
        }
        for wrong in ["", ".5", "1.", "0.55", "100.1", "-1", "+1", "1e1", "1000"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0.0.0.0/0", "10.0.0.0/8,::/0", "10.1.2.3/0"] {
            assert!(callers(wrong).unwrap_err().contains("is everybody"), "{wrong}");
        }
        assert!(callers("10.0.0.0/8,fd00::/8,192.0.2.1").is_ok());
    }

    #[test]
    fn ports_of_the_sidecar_are_none_of_the_app() {
        assert!(app_ports("4391").unwrap_err().contains("sidecar"));
        assert!(by_port(&["http"])("4340=http").unwrap_err().contains("sidecar"));
    }

    #[test]
    fn a_word_by_port() {
        let parse = by_port(&["http", "tcp"]);
        assert_eq!(parse("8080=http, 9000 = tcp").unwrap(), BTreeMap::from([(8080, "http"), (9000, "tcp")]));
        for wrong in ["8080", "8080=ftp", "8080=http,8080=tcp", "=http", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dates_filters_images_and_users() {
        assert!(date("2027-02-28").is_ok() && date("2027-02-30").is_err() && date("tomorrow").is_err());
        assert!(log_filter("warn,outrider::identity=debug").is_ok());
        for wrong in ["", "inof", "warn,", "a b=info", "info --config x"] {
            assert!(log_filter(wrong).is_err(), "{wrong}");
        }
        assert!(image("registry.example:5000/mesh/outrider@sha256:0123").is_ok());
        assert!(image("a b").is_err() && image("").is_err() && image("-x").is_err());
        assert!(uid("0").is_err() && uid("2147483648").is_err() && uid("2147483647").is_ok());
        let within = duration(Duration::from_secs(1), Duration::from_secs(60));
        assert!(within("1m").is_ok() && within("61s").is_err() && within("20").is_err());
    }
}
