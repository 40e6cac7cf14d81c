//! Single values: text from the file, or the default, becomes a checked value.
//!
//! Every function here adds its fault and then returns something harmless, so that validation goes on to the next
//! key; what it returned is never used, because settings with faults are thrown away.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_saphyr::Spanned;

use super::{
    defaults::{Choice, Key},
    units::Unit,
};
use crate::model::file::{Faults, Place, quoted, similar};

/// A key's text in the file, if it is there.
pub(super) type Text<'a> = Option<&'a Spanned<String>>;

/// A quantity within its range.
pub(super) fn quantity<T: Unit>(text: Text<'_>, key: &Key<T>, section: &Place, faults: &mut Faults) -> T {
    quantity_or_none(text, key, section, faults).unwrap_or(key.min)
}

/// A quantity within its range, or `None` for `none` where the key allows that.
pub(super) fn quantity_or_none<T: Unit>(
    text: Text<'_>,
    key: &Key<T>,
    section: &Place,
    faults: &mut Faults,
) -> Option<T> {
    let Some(text) = text else { return key.default };
    if key.may_be_none && text.value == "none" {
        return None;
    }
    let place = section.key(key.name).at(text);
    let Some(value) = T::parse(&text.value) else {
        let or_none = if key.may_be_none { ", or none" } else { "" };
        let problem = format!("{} is not a {}", quoted(&text.value), T::WHAT);
        faults.add(&place, problem, format!("{}{or_none}", T::EXAMPLE));
        return key.default;
    };
    if value < key.min || value > key.max {
        let problem = format!("{} is out of range", text.value);
        faults.add(&place, problem, format!("keep to {}..={}", key.min.show(), key.max.show()));
        return key.default;
    }
    Some(value)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: Text<'_>, key: &Choice<T>, section: &Place, faults: &mut Faults) -> T {
    let Some(text) = text else { return key.default.1 };
    let place = section.key(key.name).at(text);
    word(text, &key.words(), &place, faults).unwrap_or(key.default.1)
}

/// One of the words of a list.
pub(super) fn word<T: Copy>(
    text: &Spanned<String>,
    words: &[(&'static str, T)],
    place: &Place,
    faults: &mut Faults,
) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = similar(&text.value, known.iter().copied())
            .map_or_else(String::new, |word| format!("did you mean {word}? "));
        let problem = format!("{} is not known here", quoted(&text.value));
        faults.add(place, problem, format!("{hint}use one of {}", known.join(", ")));
    }
    found
}

/// Words of a list, in the file's order, each at most once; all of them in their own order if the file says nothing.
pub(super) fn words<T: Copy + PartialEq>(
    list: Option<&Spanned<Vec<Spanned<String>>>>,
    known: &[(&'static str, T)],
    place: &Place,
    faults: &mut Faults,
) -> Vec<T> {
    let Some(list) = list else { return known.iter().map(|(_, value)| *value).collect() };
    if list.value.is_empty() {
        faults.add(&place.at(list), "is an empty list", "list at least one, or leave the key out for all");
    }
    let mut values = Vec::new();
    for (index, text) in list.value.iter().enumerate() {
        let place = place.item(index).at(text);
        let Some(value) = word(text, known, &place, faults) else { continue };
        if values.contains(&value) {
            faults.add(&place, format!("{} stands here twice", text.value), "list every one once");
        } else {
            values.push(value);
        }
    }
    values
}

/// A value that must be there.
pub(super) fn required<'a>(text: Text<'a>, place: &Place, remedy: &str, faults: &mut Faults) -> Text<'a> {
    if text.is_none() {
        faults.add(place, "is missing", remedy);
    }
    text
}

/// A name: 1 to 128 printable ASCII characters without spaces.
pub(super) fn name(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> String {
    const MAX_NAME_BYTES: usize = 128;
    let fits = (1..=MAX_NAME_BYTES).contains(&text.value.len())
        && text.value.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        let problem = format!("{} is not a name", quoted(&text.value));
        faults.add(&place.at(text), problem, "use 1 to 128 printable ASCII characters without spaces");
    }
    text.value.clone()
}

/// An `IP:port`. Port 0 (the system chooses) is for listeners only, and there for tests.
pub(super) fn address(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<SocketAddr> {
    let parsed = text.value.parse().ok();
    if parsed.is_none() {
        let problem = format!("{} is not an IP address with a port", quoted(&text.value));
        faults.add(&place.at(text), problem, "write it as 127.0.0.1:8080 or [::1]:8080");
    }
    parsed
}

/// A `host:port` whose host is a name or an address (in brackets if IPv6).
pub(super) fn host_and_port(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> String {
    let is_valid = text.value.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port));
    if !is_valid {
        let problem = format!("{} is not a host with a port", quoted(&text.value));
        faults.add(&place.at(text), problem, "write it as ca.example:4350 or 127.0.0.1:4350");
    }
    text.value.clone()
}

/// Whether this is a host name (RFC 1123 §2.1, with `_`, which Docker and Kubernetes users write) or an IP address
/// (IPv6 in brackets).
pub(super) fn is_host(text: &str) -> bool {
    const MAX_HOST_BYTES: usize = 253;
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inside.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() <= MAX_HOST_BYTES
        && text.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(fits))
}

/// Whether this is a port that one can connect to.
pub(super) fn is_port(text: &str) -> bool {
    <u64 as Unit>::parse(text).is_some_and(|port| (1..=65_535).contains(&port))
}

/// A path; a relative one starts at `folder`.
pub(super) fn path(text: &Spanned<String>, folder: &Path, place: &Place, faults: &mut Faults) -> PathBuf {
    if text.value.is_empty() || text.value.contains('\0') {
        faults.add(
            &place.at(text),
            format!("{} is not a path", quoted(&text.value)),
            "name a file or folder",
        );
    }
    folder.join(&text.value)
}

/// What `read` makes of the items of a list of 1 to `max`, each once; empty where there is no list. What cannot be read is
/// left out, and is `read`'s to tell.
pub(super) fn distinct<R, T: PartialEq>(
    list: Option<&Spanned<Vec<Spanned<R>>>>,
    max: usize,
    place: &Place,
    faults: &mut Faults,
    read: impl Fn(&Spanned<R>, &Place, &mut Faults) -> Option<T>,
) -> Vec<T> {
    let Some(list) = list else { return Vec::new() };
    let place = place.at(list);
    if !(1..=max).contains(&list.value.len()) {
        faults.add(&place, format!("has {} items", list.value.len()), format!("list 1 to {max}"));
        return Vec::new();
    }
    let mut items = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(value) = read(item, &place, faults) else { continue };
        if items.contains(&value) {
            faults.add(&place, "stands here twice", "list each once");
        }
        items.push(value);
    }
    items
}
