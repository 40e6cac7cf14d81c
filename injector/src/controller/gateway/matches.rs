//! Matches, in the words of a sidecar's file.

use std::collections::HashSet;

use outrider::canonical::{self, Care};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{
    route::{Problem, RouteKind},
    settings::shown,
};

/// A match of an HTTPRoute. One that says more than is known here would match less than it seems: it is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct HttpMatch {
    path: Option<PathMatch>,
    method: Option<String>,
    headers: Option<Vec<NameMatch>>,
    query_params: Option<Vec<NameMatch>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PathMatch {
    r#type: Option<String>,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameMatch {
    #[serde(default)]
    r#type: Option<String>,
    name: String,
    value: String,
}

/// A match of a GRPCRoute.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GrpcMatch {
    method: Option<MethodMatch>,
    headers: Option<Vec<NameMatch>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MethodMatch {
    r#type: Option<String>,
    service: Option<String>,
    method: Option<String>,
}

/// An entry of `routes[].rules[].matches[]`; empty if it matches everything. With `keeps_prefix` the path prefix is said
/// even if it is `/`, for something takes its place.
pub(super) fn read(kind: RouteKind, raw: &Json, keeps_prefix: bool) -> Result<Map<String, Json>, Problem> {
    let odd = |error: serde_json::Error| Problem::value(error.to_string());
    match kind {
        RouteKind::Http => http(&HttpMatch::deserialize(raw).map_err(odd)?, keeps_prefix),
        RouteKind::Grpc => grpc(&GrpcMatch::deserialize(raw).map_err(odd)?),
    }
}

fn http(raw: &HttpMatch, keeps_prefix: bool) -> Result<Map<String, Json>, Problem> {
    let mut words = Map::new();
    let (kind, value) = match &raw.path {
        Some(path) => (path.r#type.as_deref(), path.value.as_deref().unwrap_or("/")),
        None => (None, "/"),
    };
    match kind.unwrap_or("PathPrefix") {
        "Exact" => drop(words.insert("path".to_owned(), json!(spelled(value)?))),
        "PathPrefix" => {
            let path = spelled(value)?;
            let prefix = path.strip_suffix('/').unwrap_or(&path);
            if !prefix.is_empty() {
                words.insert("path_prefix".to_owned(), json!(prefix));
            } else if keeps_prefix {
                words.insert("path_prefix".to_owned(), json!("/"));
            }
        }
        other => return Err(Problem::value(format!("path.type {:?} is not supported", shown(other)))),
    }
    if let Some(method) = &raw.method {
        words.insert("methods".to_owned(), json!([method]));
    }
    if let Some(fields) = named(raw.headers.as_deref(), str::to_ascii_lowercase, "headers")? {
        words.insert("headers".to_owned(), fields);
    }
    if let Some(query) = named(raw.query_params.as_deref(), str::to_owned, "queryParams")? {
        words.insert("query".to_owned(), query);
    }
    Ok(words)
}

fn grpc(raw: &GrpcMatch) -> Result<Map<String, Json>, Problem> {
    let mut words = Map::new();
    let empty = MethodMatch::default();
    let raw_method = raw.method.as_ref().unwrap_or(&empty);
    exact(raw_method.r#type.as_deref(), "method")?;
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (said(&raw_method.service), said(&raw_method.method)) {
        (Some(service), Some(method)) => {
            words.insert("grpc".to_owned(), json!(format!("{service}/{method}")));
        }
        (Some(service), None) => drop(words.insert("grpc".to_owned(), json!(service))),
        (None, Some(_)) => {
            return Err(Problem::value("a method without a service is not supported: name the service"));
        }
        // All calls are POSTs (gRPC over HTTP/2, "Requests").
        (None, None) => drop(words.insert("methods".to_owned(), json!(["POST"]))),
    }
    if let Some(fields) = named(raw.headers.as_deref(), str::to_ascii_lowercase, "headers")? {
        words.insert("headers".to_owned(), fields);
    }
    Ok(words)
}

/// Names with values; of two with the same name the first counts. `None` if there are none.
fn named(
    list: Option<&[NameMatch]>,
    spell: impl Fn(&str) -> String,
    place: &str,
) -> Result<Option<Json>, Problem> {
    let (mut known, mut words) = (HashSet::new(), Vec::new());
    for item in list.unwrap_or_default() {
        exact(item.r#type.as_deref(), place)?;
        let name = spell(&item.name);
        if known.insert(name.clone()) {
            words.push(json!({"name": name, "value": item.value}));
        }
    }
    Ok((!words.is_empty()).then_some(Json::Array(words)))
}

/// Regular expressions are nothing that a sidecar runs on what strangers send.
fn exact(kind: Option<&str>, place: &str) -> Result<(), Problem> {
    match kind {
        None | Some("Exact") => Ok(()),
        Some(other) => Err(Problem::value(format!("{place}: type {:?} is not supported", shown(other)))),
    }
}

/// A path in the one spelling in which sidecars compare paths.
pub(super) fn spelled(path: &str) -> Result<String, Problem> {
    let spelled = canonical::path(path, Care::Plain);
    spelled
        .map(|path| path.into_owned())
        .map_err(|error| Problem::value(format!("{:?} is {error}", shown(path))))
}
