//! `/config`: the routes of a cluster, and the rules by which requests go to clusters.

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{
    config::{duration, retry},
    limits,
};
use crate::model::{
    ClusterName,
    edits::{Edits, FieldEdits, PathEdit, Redirect},
    mirror::Mirror,
    policy::{HeaderMatch, PathMatch, Route, RouteMatch, TextMatch},
    route_table::{HttpRoute, Rule, Sticky},
};

/// A route of a cluster, with what holds for its requests wherever that was said. Those of rules have no `matches` of
/// their own.
pub(super) fn route(route: &Route) -> Value {
    let edits = route.policy.edits.as_deref();
    json!({
        "name": &*route.name,
        "matches": route.matches.as_ref().map(matches),
        "request_timeout": route.policy.request_timeout.map(duration),
        "retry": retry(&route.policy.retry),
        "rate_limits": limits::configured(&route.policy),
        "fault": limits::fault(&route.policy),
        "request_headers": edits.map(|edits| fields(&edits.request)),
        "response_headers": edits.map(|edits| fields(&edits.response)),
        "rewrite": edits.and_then(rewrite),
        "redirect": route.policy.redirect.as_deref().map(redirect),
        "mirror": route.policy.mirrors.as_deref().map(mirrors),
    })
}

fn mirrors(mirrors: &[Mirror]) -> Vec<Value> {
    let mirror = |mirror: &Mirror| json!({ "cluster": mirror.cluster.as_str(), "percent": f64::from(mirror.of_million) / 10_000.0 });
    mirrors.iter().map(mirror).collect()
}

/// Names alone: a value may be a secret.
fn fields(edits: &FieldEdits) -> Value {
    let names = |fields: &[(HeaderName, HeaderValue)]| -> Vec<String> {
        fields.iter().map(|(name, _)| name.to_string()).collect()
    };
    json!({
        "set": names(&edits.set),
        "add": names(&edits.add),
        "remove": edits.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>(),
    })
}

fn rewrite(edits: &Edits) -> Option<Value> {
    let is_any = edits.host.is_some() || edits.path.is_some();
    let (path, prefix) = path(edits.path.as_ref());
    is_any.then(|| json!({ "host": edits.host.as_deref(), "path": path, "path_prefix": prefix }))
}

fn redirect(redirect: &Redirect) -> Value {
    let (path, prefix) = path(redirect.path.as_ref());
    json!({
        "scheme": redirect.scheme,
        "host": redirect.host.as_deref(),
        "port": redirect.port,
        "path": path,
        "path_prefix": prefix,
        "status": redirect.status.as_u16(),
    })
}

/// The whole path, or the prefix.
fn path(edit: Option<&PathEdit>) -> (Option<&str>, Option<&str>) {
    match edit {
        None => (None, None),
        Some(PathEdit::Whole(path)) => (Some(path), None),
        Some(PathEdit::Prefix(prefix)) if prefix.is_empty() => (None, Some("/")),
        Some(PathEdit::Prefix(prefix)) => (None, Some(prefix)),
    }
}

/// Rules, and whose requests go by them.
pub(super) fn http_route(route: &HttpRoute) -> Value {
    json!({
        "name": &*route.name,
        "hosts": route.hosts,
        "services": route.services.iter().map(ClusterName::as_str).collect::<Vec<_>>(),
        "rules": route.rules.iter().map(|rule| self::rule(rule)).collect::<Vec<_>>(),
    })
}

/// What holds for its requests is with the clusters that they go to.
fn rule(rule: &Rule) -> Value {
    let (header, cookie) = match &rule.sticky {
        None => (None, None),
        Some(Sticky::Header(name)) => (Some(name.as_str()), None),
        Some(Sticky::Cookie(name)) => (None, Some(&**name)),
    };
    let clusters = rule.clusters.list().iter();
    json!({
        "name": &*rule.name,
        "matches": rule.matches.iter().map(|it| matches(it)).collect::<Vec<_>>(),
        "clusters": clusters
            .map(|cluster| json!({ "name": cluster.name.as_str(), "weight": cluster.weight }))
            .collect::<Vec<_>>(),
        "sticky": rule.sticky.as_ref().map(|_| json!({ "header": header, "cookie": cookie })),
    })
}

fn matches(matches: &RouteMatch) -> Value {
    let RouteMatch { path, methods, headers, query, cookies, is_grpc } = matches;
    let (exact, prefix) = match path {
        PathMatch::Any => (None, None),
        PathMatch::Prefix(prefix) if prefix.is_empty() => (None, Some("/")),
        PathMatch::Prefix(prefix) => (None, Some(&**prefix)),
        PathMatch::Exact(exact) => (Some(&**exact), None),
    };
    let field = |field: &HeaderMatch| {
        let value = field.value.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        json!({ "name": field.name.as_str(), "value": value })
    };
    let text = |text: &TextMatch| json!({ "name": &*text.name, "value": text.value.as_deref() });
    json!({
        "path": exact,
        "path_prefix": prefix,
        "methods": methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "headers": headers.iter().map(field).collect::<Vec<_>>(),
        "query": query.iter().map(text).collect::<Vec<_>>(),
        "cookies": cookies.iter().map(text).collect::<Vec<_>>(),
        "grpc": is_grpc,
    })
}
