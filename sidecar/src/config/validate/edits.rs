//! What a route changes of requests and answers: `request_headers`, `response_headers`, `rewrite`, `redirect`.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, HeaderValue};
use serde_saphyr::Spanned;

use crate::{
    canonical::{self, Care},
    config::{
        defaults, raw,
        value::{Text, choice, distinct, quantity, required, word},
    },
    headers::{edits::is_editable, framing},
    model::{
        edits::{Edits, FieldEdits, PathEdit, Redirect},
        file::{Faults, Place, quoted, report_odd_keys},
        forwarded::ForwardedSettings,
    },
};

/// Fields of one list (as the Gateway API).
const MAX_FIELDS: usize = 16;
/// Bytes of a field's value (as the Gateway API).
const MAX_VALUE_BYTES: usize = 4096;
/// Bytes of a path (as the Gateway API).
const MAX_PATH_BYTES: usize = 1024;

/// The sections of a route.
pub(super) struct Sections<'a> {
    /// `request_headers`.
    pub(super) request: Option<&'a Spanned<raw::FieldEdits>>,
    /// `response_headers`.
    pub(super) response: Option<&'a Spanned<raw::FieldEdits>>,
    /// `rewrite`.
    pub(super) rewrite: Option<&'a Spanned<raw::Rewrite>>,
    /// Whether every request of the route was found by a prefix of its path, which can be replaced then.
    pub(super) has_prefix: bool,
}

/// What a route changes; `None`: nothing. `place` is the route's.
pub(super) fn edits(raw: &Sections<'_>, place: &Place, faults: &mut Faults) -> Option<Arc<Edits>> {
    let (host, path) = rewrite(raw, place, faults);
    let request = raw.request.map(|raw| request_fields(raw, &place.key("request_headers"), faults));
    let response = raw.response.map(|raw| fields(raw, &place.key("response_headers"), faults));
    let (request, response) = (request.unwrap_or_default(), response.unwrap_or_default());
    let edits = Edits { request, response, host, path };
    edits.is_any().then(|| Arc::new(edits))
}

/// What apps are told of who is asking.
pub(super) fn forwarded(raw: Option<&Spanned<raw::Forwarded>>, faults: &mut Faults) -> ForwardedSettings {
    let Some(section) = raw else { return ForwardedSettings::default() };
    let place = Place::root().key("forwarded").at(section);
    report_odd_keys(&section.value.odd_keys, raw::Forwarded::KEYS, &place, faults);
    let client_cert = choice(section.value.client_cert.as_ref(), &defaults::CLIENT_CERT, &place, faults);
    ForwardedSettings { client_cert }
}

/// Where a route sends its callers; `None`: nowhere. `has_prefix` as in [`Sections`].
pub(super) fn redirect(
    raw: Option<&Spanned<raw::Redirect>>,
    has_prefix: bool,
    place: &Place,
    faults: &mut Faults,
) -> Option<Arc<Redirect>> {
    let section = raw?;
    let (place, raw) = (place.key("redirect").at(section), &section.value);
    report_odd_keys(&raw.odd_keys, raw::Redirect::KEYS, &place, faults);
    let scheme = raw
        .scheme
        .as_ref()
        .and_then(|text| word(text, defaults::REDIRECT_SCHEMES, &place.key("scheme").at(text), faults));
    let host = raw.host.as_ref().and_then(|text| host(text, false, &place.key("host").at(text), faults));
    let port = raw.port.as_ref().map(|text| quantity(Some(text), &defaults::REDIRECT_PORT, &place, faults));
    let paths = (raw.path.as_ref(), raw.path_prefix.as_ref());
    let redirect = Redirect {
        scheme,
        host,
        port: port.and_then(|port| u16::try_from(port).ok()),
        path: path_edit(paths, has_prefix, &place, faults),
        status: choice(raw.status.as_ref(), &defaults::REDIRECT_STATUS, &place, faults),
    };
    let says_where =
        [&raw.scheme, &raw.host, &raw.port, &raw.path, &raw.path_prefix].iter().any(|key| key.is_some());
    if !says_where && raw.odd_keys.is_empty() {
        let remedy = "give scheme, host, port, path or path_prefix";
        faults.add(&place, "leads to where the caller comes from", remedy);
    }
    Some(Arc::new(redirect))
}

/// Host and path.
fn rewrite(raw: &Sections<'_>, place: &Place, faults: &mut Faults) -> (Option<Box<str>>, Option<PathEdit>) {
    let Some(section) = raw.rewrite else { return (None, None) };
    let (place, has_prefix, raw) = (place.key("rewrite").at(section), raw.has_prefix, &section.value);
    report_odd_keys(&raw.odd_keys, raw::Rewrite::KEYS, &place, faults);
    if raw.odd_keys.is_empty() && [&raw.host, &raw.path, &raw.path_prefix].iter().all(|key| key.is_none()) {
        faults.add(&place, "changes nothing", "give host, path or path_prefix");
    }
    let host = raw.host.as_ref().and_then(|text| host(text, true, &place.key("host").at(text), faults));
    (host, path_edit((raw.path.as_ref(), raw.path_prefix.as_ref()), has_prefix, &place, faults))
}

/// The one spelling of a host, with a port or without.
fn host(text: &Spanned<String>, may_have_port: bool, place: &Place, faults: &mut Faults) -> Option<Box<str>> {
    let spelled =
        canonical::authority(&text.value).filter(|text| may_have_port || canonical::host(text) == *text);
    if spelled.is_none() {
        let (what, example) = if may_have_port {
            ("a host, or one with a port", "orders.shop.svc or orders:8080")
        } else {
            ("a host", "shop.example; a port has its own key")
        };
        faults.add(place, format!("{} is not {what}", quoted(&text.value)), format!("write it as {example}"));
    }
    spelled.map(|host| host.into_owned().into())
}

fn path_edit(
    (path, prefix): (Text<'_>, Text<'_>),
    has_prefix: bool,
    place: &Place,
    faults: &mut Faults,
) -> Option<PathEdit> {
    match (path, prefix) {
        (None, None) => None,
        (Some(text), None) => {
            let path = path_text(text, &place.key("path").at(text), faults)?;
            Some(PathEdit::Whole(path.into()))
        }
        (None, Some(text)) => {
            let place = place.key("path_prefix").at(text);
            if !has_prefix {
                let remedy = "match by path_prefix, or give the whole path by path";
                faults.add(&place, "there is no prefix that it could take the place of", remedy);
            }
            let prefix = path_text(text, &place, faults)?;
            Some(PathEdit::Prefix(prefix.trim_end_matches('/').into()))
        }
        (Some(_), Some(text)) => {
            faults.add(&place.key("path_prefix").at(text), "stands beside path", "keep one of them");
            None
        }
    }
}

/// A path in its one spelling: what goes on is what is written here.
fn path_text<'a>(text: &'a Spanned<String>, place: &Place, faults: &mut Faults) -> Option<&'a str> {
    let path = text.value.as_str();
    let fits = path.len() <= MAX_PATH_BYTES && path.starts_with('/') && !path.contains(['?', '#']);
    let spelled = if fits { canonical::path(path, Care::Plain).ok() } else { None };
    match spelled {
        Some(spelled) if spelled == path && !path.contains("//") => return Some(path),
        Some(Cow::Owned(spelled)) if !spelled.contains("//") => {
            faults.add(
                place,
                format!("{} is spelled otherwise", quoted(path)),
                format!("write it as {spelled}"),
            );
        }
        Some(_) | None => {
            let problem = format!("{} is not the path of a request", quoted(path));
            let remedy =
                "begin it with / and write it without a query, dots as segments, // or odd characters";
            faults.add(place, problem, remedy);
        }
    }
    None
}

/// The changes of a request's head. `place` is the section's.
fn request_fields(section: &Spanned<raw::FieldEdits>, place: &Place, faults: &mut Faults) -> FieldEdits {
    let edits = fields(section, place, faults);
    for (name, _) in edits.add.iter().filter(|(name, _)| framing::is_single(name)) {
        let problem = format!("adds {name}, and a request that has it twice is refused");
        faults.add(&place.at(section).key("add"), problem, "use set, which replaces what the caller sends");
    }
    edits
}

/// The changes of one head. `place` is the section's.
fn fields(section: &Spanned<raw::FieldEdits>, place: &Place, faults: &mut Faults) -> FieldEdits {
    let (place, raw) = (place.at(section), &section.value);
    report_odd_keys(&raw.odd_keys, raw::FieldEdits::KEYS, &place, faults);
    let remove: Vec<HeaderName> =
        distinct(raw.remove.as_ref(), MAX_FIELDS, &place.key("remove"), faults, editable);
    let set: Vec<(HeaderName, HeaderValue)> =
        distinct(raw.set.as_ref(), MAX_FIELDS, &place.key("set"), faults, field);
    let add: Vec<(HeaderName, HeaderValue)> =
        distinct(raw.add.as_ref(), MAX_FIELDS, &place.key("add"), faults, field);
    let twice = set
        .iter()
        .enumerate()
        .find(|(index, (name, _))| set.iter().skip(index + 1).any(|(other, _)| other == name));
    if let Some((_, (name, _))) = twice {
        faults.add(&place.key("set"), format!("sets {name} twice"), "keep one of them; add is for several");
    }
    for (name, _) in set.iter().chain(&add).filter(|(name, _)| remove.contains(name)) {
        faults.add(
            &place.key("remove"),
            format!("removes {name}, which is set or added"),
            "keep one of them; set replaces",
        );
    }
    FieldEdits { remove, set, add }
}

fn field(
    raw: &Spanned<raw::NameAndValue>,
    place: &Place,
    faults: &mut Faults,
) -> Option<(HeaderName, HeaderValue)> {
    report_odd_keys(&raw.value.odd_keys, raw::NameAndValue::KEYS, place, faults);
    let name = required(raw.value.name.as_ref(), &place.key("name"), "name the field", faults);
    let name = name.and_then(|text| editable(text, &place.key("name").at(text), faults));
    let text = required(raw.value.value.as_ref(), &place.key("value"), "give the field a value", faults)?;
    // RFC 9110 §5.5: a value neither begins nor ends with a space.
    let fits = text.value.len() <= MAX_VALUE_BYTES && text.value.trim_ascii() == text.value;
    let value = HeaderValue::from_str(&text.value).ok().filter(|_| fits);
    if value.is_none() {
        let problem = format!("{} is not the value of a field", quoted(&text.value));
        let remedy =
            format!("use printable ASCII characters, at most {MAX_VALUE_BYTES}, no space at either end");
        faults.add(&place.key("value").at(text), problem, remedy);
    }
    Some((name?, value?))
}

/// The name of a field that may be changed.
fn editable(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.value.as_bytes()).ok().filter(is_editable);
    if name.is_none() {
        let problem = format!("{} is not a field that a route may change", quoted(&text.value));
        let remedy = "name one as x-team; none of the connection, the framing, the handshake or gRPC's status, nor \
                      one that sidecars write (host: rewrite.host)";
        faults.add(place, problem, remedy);
    }
    name
}
