//! Filters, in the words of a sidecar's file.

use std::collections::HashSet;

use outrider::model::mirror::{MAX_MIRRORS, WHOLE};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json, json};

use super::{
    matches::spelled,
    route::{Problem, RouteKind},
    settings::shown,
};

/// What the filters of a rule come to.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Keys of `routes[].rules[]`.
    pub(super) words: Map<String, Json>,
    /// Where copies are to go: a `backendRef`, and the share of it in parts of a million.
    pub(super) mirrors: Vec<(Json, u32)>,
    /// One of them takes the place of the path prefix that was matched.
    pub(super) replaces_prefix: bool,
}

impl Filters {
    /// Whether callers are sent elsewhere: what is about requests that go on has no meaning then.
    pub(super) fn is_redirect(&self) -> bool {
        self.words.contains_key("redirect")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeaderFilter {
    set: Option<Vec<Header>>,
    add: Option<Vec<Header>>,
    remove: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Redirect {
    scheme: Option<String>,
    hostname: Option<String>,
    port: Option<u16>,
    path: Option<PathModifier>,
    status_code: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rewrite {
    hostname: Option<String>,
    path: Option<PathModifier>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mirror {
    backend_ref: Json,
    percent: Option<u32>,
    fraction: Option<Fraction>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fraction {
    numerator: u32,
    denominator: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PathModifier {
    r#type: String,
    replace_full_path: Option<String>,
    replace_prefix_match: Option<String>,
}

/// All of them, or why one of them cannot be: then none may be left out.
pub(super) fn read(kind: RouteKind, list: &[Json]) -> Result<Filters, Problem> {
    let mut filters = Filters::default();
    for (index, raw) in list.iter().enumerate() {
        add(kind, raw, &mut filters).map_err(|problem| problem.at(&format!("filters[{index}]")))?;
    }
    if filters.is_redirect() {
        if filters.words.contains_key("rewrite") {
            let message = "RequestRedirect and URLRewrite are not for the same request";
            return Err(Problem::new("IncompatibleFilters", message));
        }
        filters.words.remove("request_headers");
        filters.mirrors.clear();
    }
    Ok(filters)
}

/// The changes that a backend's filters ask for: keys of `routes[].rules[].clusters[]`.
pub(super) fn of_backend(list: &[Json]) -> Result<Map<String, Json>, Problem> {
    let mut filters = Filters::default();
    for (index, raw) in list.iter().enumerate() {
        let place = format!("filters[{index}]");
        match raw.get("type").and_then(Json::as_str).unwrap_or_default() {
            "RequestHeaderModifier" | "ResponseHeaderModifier" => {
                // These are the same for both kinds.
                add(RouteKind::Http, raw, &mut filters).map_err(|problem| problem.at(&place))?;
            }
            other => {
                let message = format!("a backend's filter of type {:?} is not supported", shown(other));
                return Err(Problem::value(message).at(&place));
            }
        }
    }
    Ok(filters.words)
}

fn add(route: RouteKind, raw: &Json, to: &mut Filters) -> Result<(), Problem> {
    let kind = raw.get("type").and_then(Json::as_str).unwrap_or_default();
    let (key, words) = match kind {
        "RequestHeaderModifier" => ("request_headers", fields(&section(raw, "requestHeaderModifier")?)),
        "ResponseHeaderModifier" => ("response_headers", fields(&section(raw, "responseHeaderModifier")?)),
        // Calls of gRPC cannot be sent elsewhere, and their paths are methods.
        "RequestRedirect" if route == RouteKind::Http => {
            ("redirect", redirect(&section(raw, "requestRedirect")?, to)?)
        }
        "URLRewrite" if route == RouteKind::Http => ("rewrite", rewrite(&section(raw, "urlRewrite")?, to)?),
        "RequestMirror" => return mirror(section(raw, "requestMirror")?, to),
        other => {
            let message = format!("a filter of type {:?} is not supported", shown(other));
            return Err(Problem::value(message));
        }
    };
    if to.words.contains_key(key) {
        return Err(Problem::new("IncompatibleFilters", format!("{kind} stands here twice")));
    }
    // One that changes nothing is none.
    if !words.is_empty() {
        to.words.insert(key.to_owned(), Json::Object(words));
    }
    Ok(())
}

/// One more place for copies.
fn mirror(raw: Mirror, to: &mut Filters) -> Result<(), Problem> {
    if to.mirrors.len() >= MAX_MIRRORS {
        return Err(Problem::value(format!("RequestMirror more than {MAX_MIRRORS} times")));
    }
    let share = share(raw.percent, raw.fraction.as_ref());
    let share =
        share.ok_or_else(|| Problem::value("give percent up to 100, or a fraction up to 1, not both"))?;
    to.mirrors.push((raw.backend_ref, share));
    Ok(())
}

/// A share in parts of a million; `None` if it is none. A fraction over 0 is at least one of them.
fn share(percent: Option<u32>, fraction: Option<&Fraction>) -> Option<u32> {
    let (part, whole) = match (percent, fraction) {
        (None, None) => (1, 1),
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (Some(_), Some(_)) => return None,
    };
    if part > whole {
        return None;
    }
    let share = (u64::from(part) * u64::from(WHOLE)).checked_div(u64::from(whole))?;
    u32::try_from(share).ok().map(|share| share.max(u32::from(part > 0)))
}

fn section<T: DeserializeOwned>(raw: &Json, key: &str) -> Result<T, Problem> {
    let section = raw.get(key).ok_or_else(|| Problem::value(format!("{key} is missing")))?;
    T::deserialize(section).map_err(|error| Problem::value(format!("{key}: {error}")))
}

/// Of two fields of one name, in whatever case, the first counts.
fn fields(raw: &HeaderFilter) -> Map<String, Json> {
    let mut words = Map::new();
    for (key, list) in [("set", &raw.set), ("add", &raw.add)] {
        let mut known = HashSet::new();
        let list = list.iter().flatten();
        let first = list.filter(|field| known.insert(field.name.to_ascii_lowercase()));
        let fields: Vec<Json> = first
            .map(|field| json!({"name": field.name.to_ascii_lowercase(), "value": field.value}))
            .collect();
        if !fields.is_empty() {
            words.insert(key.to_owned(), Json::Array(fields));
        }
    }
    let mut known = HashSet::new();
    let names = raw.remove.iter().flatten().map(|name| name.to_ascii_lowercase());
    let names: Vec<String> = names.filter(|name| known.insert(name.clone())).collect();
    if !names.is_empty() {
        words.insert("remove".to_owned(), json!(names));
    }
    words
}

fn redirect(raw: &Redirect, to: &mut Filters) -> Result<Map<String, Json>, Problem> {
    let mut words = Map::new();
    let mut say = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            words.insert(key.to_owned(), value);
        }
    };
    say("scheme", raw.scheme.as_ref().map(|text| json!(text)));
    say("host", raw.hostname.as_ref().map(|text| json!(text)));
    say("port", raw.port.map(|port| json!(port)));
    say("status", raw.status_code.map(|code| json!(code)));
    path(raw.path.as_ref(), &mut words, to)?;
    Ok(words)
}

fn rewrite(raw: &Rewrite, to: &mut Filters) -> Result<Map<String, Json>, Problem> {
    let mut words = Map::new();
    if let Some(host) = &raw.hostname {
        words.insert("host".to_owned(), json!(host));
    }
    path(raw.path.as_ref(), &mut words, to)?;
    Ok(words)
}

fn path(raw: Option<&PathModifier>, words: &mut Map<String, Json>, to: &mut Filters) -> Result<(), Problem> {
    let Some(raw) = raw else { return Ok(()) };
    match (raw.r#type.as_str(), &raw.replace_full_path, &raw.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), None) => {
            words.insert("path".to_owned(), json!(spelled(path)?));
        }
        ("ReplacePrefixMatch", None, Some(prefix)) => {
            let path = if prefix.is_empty() { "/".to_owned() } else { spelled(prefix)? };
            let bare = path.strip_suffix('/').filter(|rest| !rest.is_empty());
            words.insert("path_prefix".to_owned(), json!(bare.unwrap_or(&path)));
            to.replaces_prefix = true;
        }
        (other, ..) => {
            let message =
                format!("path: {:?} does not go with what is beside it, or is not supported", shown(other));
            return Err(Problem::value(message));
        }
    }
    Ok(())
}
