//! Matches, misfits and edits in words.

use http::Method;

use crate::{
    model::{
        edits::FieldEdits,
        policy::{PathMatch, RouteMatch, TextMatch},
    },
    route::matching::Misfit,
};

/// Which fields are changed, and how; a value may be a secret.
pub(super) fn named(edits: &FieldEdits) -> String {
    let removed = edits.remove.iter().map(|name| ("removed", name));
    let set = edits.set.iter().map(|(name, _)| ("set", name));
    let added = edits.add.iter().map(|(name, _)| ("added", name));
    let all = set.chain(added).chain(removed).map(|(how, name)| format!("{name} {how}"));
    all.collect::<Vec<_>>().join(", ")
}

/// The prefix by which it is found, if it is by one.
pub(super) fn prefix(matches: &RouteMatch) -> Option<&str> {
    match &matches.path {
        PathMatch::Prefix(prefix) => Some(prefix),
        PathMatch::Any | PathMatch::Exact(_) => None,
    }
}

pub(super) fn told(misfit: Misfit<'_>) -> String {
    match misfit {
        Misfit::Path => "its path is another".to_owned(),
        Misfit::Method => "its method is another".to_owned(),
        Misfit::NotGrpc => "it is no call of gRPC (content-type)".to_owned(),
        Misfit::Header(name) => format!("its field {name} is another, or is missing"),
        Misfit::Cookie(name) => format!("its cookie {name} is another, or is missing"),
        Misfit::Query(name) => format!("the {name} of its query is another, or is missing"),
    }
}

/// What a request must be.
pub(super) fn described(matches: &RouteMatch) -> String {
    let RouteMatch { path, methods, headers, query, cookies, is_grpc } = matches;
    let mut parts = Vec::new();
    match path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => parts.push(format!("path {path}")),
        PathMatch::Prefix(prefix) if prefix.is_empty() => parts.push("path_prefix /".to_owned()),
        PathMatch::Prefix(prefix) => parts.push(format!("path_prefix {prefix}")),
    }
    if *is_grpc {
        parts.push("gRPC".to_owned());
    } else if !methods.is_empty() {
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        parts.push(format!("method {}", methods.join(" or ")));
    }
    let texts = |kind: &str, texts: &[TextMatch]| {
        let text = |it: &TextMatch| match &it.value {
            Some(value) => format!("{kind} {}={value}", it.name),
            None => format!("{kind} {}", it.name),
        };
        texts.iter().map(text).collect::<Vec<_>>()
    };
    parts.extend(headers.iter().map(|field| match &field.value {
        Some(value) => format!("field {}: {}", field.name, String::from_utf8_lossy(value.as_bytes())),
        None => format!("field {}", field.name),
    }));
    parts.extend(texts("cookie", cookies));
    parts.extend(texts("query", query));
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}
