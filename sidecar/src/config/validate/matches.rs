//! What a request must be, to be a route's or a rule's.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method, header};
use serde_saphyr::Spanned;

use crate::{
    canonical::{self, Care},
    config::{
        raw,
        value::{Text, required},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        policy::{HeaderMatch, PathMatch, RouteMatch, TextMatch},
        wire,
    },
};

/// Methods of one match; fields, cookies, and parameters of its query (Gateway API: 16 each).
const MAX_MATCHES: usize = 16;
/// Bytes of a path (as the Gateway API).
const MAX_PATH_BYTES: usize = 1024;
/// Bytes of the name or value of a cookie or parameter (Gateway API: 256 and 1024).
const MAX_TEXT_BYTES: usize = 1024;

/// A list of names with values.
type Pairs<'a> = Option<&'a Spanned<Vec<Spanned<raw::NameAndValue>>>>;

/// The keys by which a section says what requests it is about.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    path: Text<'a>,
    path_prefix: Text<'a>,
    methods: Option<&'a Spanned<raw::Texts>>,
    headers: Pairs<'a>,
    query: Pairs<'a>,
    cookies: Pairs<'a>,
    grpc: Text<'a>,
}

/// Those keys of every section that has them.
macro_rules! keys {
    ($($section:ty),*) => {$(
        impl<'a> From<&'a $section> for Keys<'a> {
            fn from(raw: &'a $section) -> Self {
                Self {
                    path: raw.path.as_ref(),
                    path_prefix: raw.path_prefix.as_ref(),
                    methods: raw.methods.as_ref(),
                    headers: raw.headers.as_ref(),
                    query: raw.query.as_ref(),
                    cookies: raw.cookies.as_ref(),
                    grpc: raw.grpc.as_ref(),
                }
            }
        }
    )*};
}

keys!(raw::Route, raw::InboundRoute, raw::Match);

impl Keys<'_> {
    /// Whether there is none of them.
    pub(super) fn is_empty(&self) -> bool {
        let Keys { path, path_prefix, methods, headers, query, cookies, grpc } = self;
        path.is_none()
            && path_prefix.is_none()
            && methods.is_none()
            && headers.is_none()
            && query.is_none()
            && cookies.is_none()
            && grpc.is_none()
    }
}

/// `None` if something is wrong: what is left would match more than was meant.
pub(super) fn read(raw: Keys<'_>, place: &Place, faults: &mut Faults) -> Option<RouteMatch> {
    let path = match (raw.path, raw.path_prefix) {
        (None, None) => Some(PathMatch::Any),
        (Some(text), None) => {
            path(text, &place.key("path"), faults).map(|path| PathMatch::Exact(path.into()))
        }
        (None, Some(text)) => path(text, &place.key("path_prefix"), faults)
            .map(|path| PathMatch::Prefix(path.strip_suffix('/').unwrap_or(path).into())),
        (Some(_), Some(text)) => {
            faults.add(&place.key("path_prefix").at(text), "stands beside path", "keep one of them");
            None
        }
    };
    let methods = some(raw.methods, &place.key("methods"), faults, method);
    let headers = some(raw.headers, &place.key("headers"), faults, field);
    let query = some(raw.query, &place.key("query"), faults, parameter);
    let cookies = some(raw.cookies, &place.key("cookies"), faults, cookie);
    let (path, methods, is_grpc) = match raw.grpc {
        None => (path?, methods?, false),
        Some(text) => (grpc(text, &raw, &place.key("grpc").at(text), faults)?, vec![Method::POST], true),
    };
    Some(RouteMatch { path, methods, headers: headers?, query: query?, cookies: cookies?, is_grpc })
}

/// The path of a service's calls, or of one method's (gRPC over HTTP/2, "Requests").
fn grpc(text: &Spanned<String>, raw: &Keys<'_>, place: &Place, faults: &mut Faults) -> Option<PathMatch> {
    if raw.path.is_some() || raw.path_prefix.is_some() || raw.methods.is_some() {
        faults.add(
            place,
            "stands beside path, path_prefix or methods",
            "keep one of them: a call is a POST to a path",
        );
        return None;
    }
    let is_name = |text: &str, dot: &str| {
        let is_word =
            |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || dot.as_bytes().contains(&byte);
        (1..=MAX_PATH_BYTES / 4).contains(&text.len()) && text.bytes().all(is_word)
    };
    let found = match text.value.split_once('/') {
        Some((service, method)) => (is_name(service, ".") && is_name(method, ""))
            .then(|| PathMatch::Exact(format!("/{}", text.value).into())),
        None => is_name(&text.value, ".").then(|| PathMatch::Prefix(format!("/{}", text.value).into())),
    };
    if found.is_none() {
        let problem = format!("{} is not a service of gRPC, nor a method of one", quoted(&text.value));
        faults.add(place, problem, "write it as shop.Orders or shop.Orders/Get");
    }
    found
}

/// Every item of a list that has some, each once; empty where there is no list.
fn some<R, T: PartialEq>(
    list: Option<&Spanned<Vec<Spanned<R>>>>,
    place: &Place,
    faults: &mut Faults,
    read: impl Fn(&Spanned<R>, &Place, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(list) = list else { return Some(Vec::new()) };
    let place = place.at(list);
    if !(1..=MAX_MATCHES).contains(&list.value.len()) {
        faults.add(&place, format!("has {} items", list.value.len()), format!("list 1 to {MAX_MATCHES}"));
        return None;
    }
    let mut items = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let value = read(item, &place, faults)?;
        if items.contains(&value) {
            faults.add(&place, "stands here twice", "list each once");
        }
        items.push(value);
    }
    Some(items)
}

fn path<'a>(text: &'a Spanned<String>, place: &Place, faults: &mut Faults) -> Option<&'a str> {
    let path = text.value.as_str();
    let fits = path.starts_with('/')
        && path.len() <= MAX_PATH_BYTES
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if !fits {
        let problem = format!("{} is not the path of a request", quoted(path));
        let remedy = "begin it with / and write it as requests do: ASCII, no query";
        faults.add(&place.at(text), problem, remedy);
    }
    if !fits {
        return None;
    }
    let (problem, remedy) = match canonical::path(path, Care::Plain) {
        Ok(Cow::Borrowed(_)) => return Some(path),
        Ok(Cow::Owned(spelled)) if spelled == path => return Some(path),
        Ok(Cow::Owned(spelled)) => {
            (format!("{} is not how paths are compared", quoted(path)), format!("write it as {spelled}"))
        }
        Err(error) => {
            (format!("is {error}"), "requests with it are refused in the mesh: write another".to_owned())
        }
    };
    faults.add(&place.at(text), problem, remedy);
    None
}

pub(super) fn method(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<Method> {
    // Methods are compared letter by letter (RFC 9110 §9.1), and `get` is none. A tunnel has no path to be routed by.
    let is_upper = !text.value.bytes().any(|byte| byte.is_ascii_lowercase());
    let method = Method::from_bytes(text.value.as_bytes()).ok();
    let method = method.filter(|method| is_upper && *method != Method::CONNECT);
    if method.is_none() {
        let problem = format!("{} is not a method here", quoted(&text.value));
        faults.add(place, problem, "write it as GET or POST; a WebSocket is a GET");
    }
    method
}

fn field(raw: &Spanned<raw::NameAndValue>, place: &Place, faults: &mut Faults) -> Option<HeaderMatch> {
    report_odd_keys(&raw.value.odd_keys, raw::NameAndValue::KEYS, place, faults);
    let name = field_name(raw.value.name.as_ref(), &place.key("name"), faults);
    header_match(name, raw.value.value.as_ref(), place, faults)
}

/// A field of that name, and of that value if one is said. Without a name it is checked all the same.
pub(super) fn header_match(
    name: Option<HeaderName>,
    value: Text<'_>,
    place: &Place,
    faults: &mut Faults,
) -> Option<HeaderMatch> {
    let value = match value {
        None => None,
        Some(text) => {
            let value = HeaderValue::from_str(&text.value).ok();
            if value.is_none() {
                let problem = format!("{} is not the value of a field", quoted(&text.value));
                faults.add(&place.key("value").at(text), problem, "use printable characters");
            }
            Some(value?)
        }
    };
    Some(HeaderMatch { name: name?, value })
}

/// A parameter of the query, decoded.
fn parameter(raw: &Spanned<raw::NameAndValue>, place: &Place, faults: &mut Faults) -> Option<TextMatch> {
    text_match(raw, "a parameter", |_| true, place, faults)
}

fn cookie(raw: &Spanned<raw::NameAndValue>, place: &Place, faults: &mut Faults) -> Option<TextMatch> {
    text_match(raw, "a cookie", is_cookie, place, faults)
}

fn text_match(
    raw: &Spanned<raw::NameAndValue>,
    what: &str,
    is_it: impl Fn(&str) -> bool,
    place: &Place,
    faults: &mut Faults,
) -> Option<TextMatch> {
    report_odd_keys(&raw.value.odd_keys, raw::NameAndValue::KEYS, place, faults);
    let name = required(raw.value.name.as_ref(), &place.key("name"), "name it", faults)?;
    let is_name = (1..=MAX_TEXT_BYTES).contains(&name.value.len()) && is_it(&name.value);
    if !is_name {
        let problem = format!("{} is not the name of {what}", quoted(&name.value));
        faults.add(&place.key("name").at(name), problem, "write it as requests have it, decoded");
    }
    let value = raw.value.value.as_ref();
    let is_value = value.is_none_or(|value| value.value.len() <= MAX_TEXT_BYTES);
    if !is_value {
        let remedy = format!("keep to {MAX_TEXT_BYTES} bytes");
        faults.add(&place.key("value"), "is too long", remedy);
    }
    let value = value.map(|value| value.value.as_str().into());
    (is_name && is_value).then(|| TextMatch { name: name.value.as_str().into(), value })
}

/// Whether this can be a cookie's name (RFC 6265 §4.1.1: a token).
pub(super) fn is_cookie(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

pub(super) fn field_name(text: Text<'_>, place: &Place, faults: &mut Faults) -> Option<HeaderName> {
    let text = required(text, place, "name the field", faults)?;
    // What is never there when routes are looked at: HTTP/2 says otherwise whom a request is for.
    let is_there =
        |name: &HeaderName| *name != header::HOST && !name.as_str().starts_with(wire::RESERVED_PREFIX);
    let name = HeaderName::from_bytes(text.value.as_bytes()).ok().filter(is_there);
    if name.is_none() {
        let problem = format!("{} is not a field that a route can go by", quoted(&text.value));
        let remedy = "name one as x-canary; not host (clusters have authorities), nor one of x-outrider-";
        faults.add(&place.at(text), problem, remedy);
    }
    name
}
