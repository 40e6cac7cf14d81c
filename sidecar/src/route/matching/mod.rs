//! Whether a request is what a route or rule asks for.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, request::Parts};

use super::query;
use crate::{
    canonical::{self, Care},
    headers::{cookie, grpc},
    model::policy::{HeaderMatch, PathMatch, RouteMatch, TextMatch},
};

/// A request as routes look at it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    head: &'a Parts,
    /// Its path in its one spelling; `None` if it has none.
    path: Option<Cow<'a, str>>,
}

/// What of a request is not as it must be: the first, in the order in which routes are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit<'a> {
    /// Its path.
    Path,
    /// Its method.
    Method,
    /// It is no call of gRPC.
    NotGrpc,
    /// That field.
    Header(&'a HeaderName),
    /// That cookie.
    Cookie(&'a str),
    /// That parameter of its query.
    Query(&'a str),
}

impl<'a> Asked<'a> {
    /// What this request asks for. Allocates only if its path is not in its one spelling.
    #[must_use]
    pub fn of(head: &'a Parts) -> Self {
        Self { head, path: canonical::path(head.uri.path(), Care::Plain).ok() }
    }

    /// Whether its path has one spelling, so that it can be compared at all.
    #[must_use]
    pub fn has_clear_path(&self) -> bool {
        self.path.is_some()
    }

    /// Its path in its one spelling.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// What of it does not fit; `None` if all of it does. No allocation.
    #[must_use]
    pub fn misfit<'b>(&self, matches: &'b RouteMatch) -> Option<Misfit<'b>> {
        // Exhaustive: what is asked for and not looked at would let anything through.
        let RouteMatch { path, methods, headers, query, cookies, is_grpc } = matches;
        let fields = &self.head.headers;
        // RFC 8441 §5: HTTP/2 asks for WebSocket by an extended CONNECT where HTTP/1 has GET.
        let method = if self.head.method == Method::CONNECT { &Method::GET } else { &self.head.method };
        let asked = self.head.uri.query().unwrap_or_default();
        if !is_path(path, self.path.as_deref()) {
            return Some(Misfit::Path);
        }
        if !methods.is_empty() && !methods.contains(method) {
            return Some(Misfit::Method);
        }
        if *is_grpc && !grpc::is_call(fields) {
            return Some(Misfit::NotGrpc);
        }
        if let Some(field) = headers.iter().find(|field| !has(fields, field)) {
            return Some(Misfit::Header(&field.name));
        }
        if let Some(TextMatch { name, .. }) = cookies.iter().find(|cookie| !has_cookie(fields, cookie)) {
            return Some(Misfit::Cookie(name));
        }
        let missing = query.iter().find(|it| !query::has(asked, &it.name, it.value.as_deref()));
        missing.map(|TextMatch { name, .. }| Misfit::Query(name))
    }

    /// Whether all of it fits.
    #[must_use]
    pub fn is_of(&self, matches: &RouteMatch) -> bool {
        self.misfit(matches).is_none()
    }
}

/// How specific a match is: the larger is looked at first. The Gateway API's order for an `HTTPRoute`: an exact path, the
/// longest prefix (none is `/`), a method, the most fields (cookies, and the type of gRPC, are fields), the most parameters
/// of a query.
#[must_use]
pub fn rank(matches: &RouteMatch) -> (bool, usize, bool, usize, usize) {
    let RouteMatch { path, methods, headers, query, cookies, is_grpc } = matches;
    let (is_exact, prefix) = match path {
        PathMatch::Any => (false, 0),
        // Kept without its last slash: of `/` nothing is left, and it says no more than no path at all.
        PathMatch::Prefix(path) => (false, path.len()),
        PathMatch::Exact(_) => (true, 0),
    };
    let fields = headers.len() + cookies.len() + usize::from(*is_grpc);
    (is_exact, prefix, !methods.is_empty(), fields, query.len())
}

fn is_path(matches: &PathMatch, path: Option<&str>) -> bool {
    match (matches, path) {
        (PathMatch::Any, _) => true,
        (PathMatch::Exact(_) | PathMatch::Prefix(_), None) => false,
        (PathMatch::Exact(exact), Some(path)) => **exact == *path,
        (PathMatch::Prefix(prefix), Some(path)) => {
            path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

fn has(fields: &HeaderMap, HeaderMatch { name, value }: &HeaderMatch) -> bool {
    match value {
        None => fields.contains_key(name),
        Some(value) => fields.get_all(name).iter().any(|found| found == value),
    }
}

fn has_cookie(fields: &HeaderMap, TextMatch { name, value }: &TextMatch) -> bool {
    let found = cookie::value(fields, name);
    found.is_some_and(|found| value.as_ref().is_none_or(|value| value.as_bytes() == found))
}

#[cfg(test)]
mod tests;
