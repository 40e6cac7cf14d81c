//! Whether a call of a peer may go to the own app: a pure function of rules and of what is asked for.
//!
//! Rules allow and never deny. A call is allowed if any rule fits it; a rule fits if every key that it has fits; a key fits
//! if any of its entries does. Where several say rules (the file, and the controller), all of them must allow it. What is judged is canonical ([`crate::canonical`]) and is what the app gets: texts are
//! compared by equality, paths by whole segments, identities by their parts. Nothing is a pattern.

mod asked;

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, Method};
use outrider_certs::SpiffeId;

pub use asked::{Asked, Fields, Kept, Request};

use crate::{
    canonical::{self, Ambiguous, Care},
    model::{
        Settings,
        authorization::{
            Authorization, Callers, FieldRule, GrpcRule, HttpRule, Mode, Namespace, PathRule, Rule,
        },
        listener::Inbound,
    },
};

/// What the rules say of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is allowed: this rule is the first that fits.
    Allowed(&'a Rule),
    /// None fits.
    Denied,
    /// None fits, and it passes nevertheless: [`Mode::Audit`].
    Audited,
}

impl Verdict<'_> {
    /// Its place in [`VERDICTS`](crate::model::authorization::VERDICTS).
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Allowed(_) => 0,
            Self::Denied => 1,
            Self::Audited => 2,
        }
    }

    /// What it is told by: the name of the rule that fits, `denied` or `audited`.
    #[must_use]
    pub fn told(self) -> Arc<str> {
        match self {
            Self::Allowed(rule) => Arc::clone(&rule.name),
            Self::Denied => "denied".into(),
            Self::Audited => "audited".into(),
        }
    }

    /// Whether the call may go on.
    #[must_use]
    pub fn passes(self) -> bool {
        match self {
            Self::Allowed(_) | Self::Audited => true,
            Self::Denied => false,
        }
    }
}

/// The first thing that a rule asks for and a call does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit<'a> {
    /// The caller is another.
    Caller,
    /// It is to another port.
    Port,
    /// It is an opaque stream, and the rule is about requests.
    Stream,
    /// It is for another host.
    Host,
    /// It has another method.
    Method,
    /// It has another path.
    Path,
    /// This field is absent, repeated, not ASCII, or has another value.
    Field(&'a HeaderName),
    /// It is no call of gRPC, or another one.
    Grpc,
}

/// What the settings say of a call of `caller` to that port of the app, which came in by `inbound`; `None`: they have no
/// rules, and whoever may connect may call. Whether the caller may connect is another question
/// ([`Inbound::allows`]), and both must agree.
///
/// In audit mode only those pass unallowed who could call if there were no rules.
#[must_use]
pub fn verdict<'a>(
    settings: &'a Settings,
    inbound: &Inbound,
    caller: &SpiffeId,
    port: u16,
    asked: Asked<'_>,
) -> Option<Verdict<'a>> {
    let rules = settings.authorization.as_deref()?;
    let verdict = judge(rules, caller, port, asked);
    let is_strange = matches!(verdict, Verdict::Audited) && is_strange(settings, inbound, caller);
    Some(if is_strange { Verdict::Denied } else { verdict })
}

/// What became of a request's path, and what the settings say of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a, 'b> {
    /// The one spelling of its path, which the app is to get.
    pub path: Cow<'b, str>,
    /// What the settings say; `None`: they have no rules.
    pub verdict: Option<Verdict<'a>>,
}

/// A request as it was sent, but for its authority, which is canonical.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The path of its target, without the query.
    pub path: &'a str,
    /// Whom it is for, canonical; empty if it names nobody.
    pub authority: &'a str,
    /// Its fields, before those for one connection are taken off.
    pub headers: &'a HeaderMap,
}

/// Brings a request's path into its one spelling and [judges](verdict) the request by that.
///
/// In audit mode a path is spelled with no more care than without rules, and one that the rules would not even look at, for
/// it is not clear, is [`Verdict::Audited`]; but not of callers who are held to the rules all the same ([`verdict`]).
///
/// # Errors
/// The path has no spelling that every reader would take alike.
pub fn of_request<'a, 'b>(
    settings: &'a Settings,
    inbound: &Inbound,
    (caller, port): (&SpiffeId, u16),
    sent: Sent<'b>,
) -> Result<Judged<'a, 'b>, Ambiguous> {
    let Some(rules) = settings.authorization.as_deref() else {
        return Ok(Judged { path: canonical::path(sent.path, Care::Plain)?, verdict: None });
    };
    let fields = Fields::of(sent.headers, rules);
    let (method, authority) = (Request::method(sent.method), sent.authority);
    let judge = |path: &str| {
        let request = Request { method, path, authority, fields: &fields };
        verdict(settings, inbound, caller, port, Asked::Request(request))
    };
    let care = rules.care(port);
    let is_audit = rules.mode() == Mode::Audit && !is_strange(settings, inbound, caller);
    let path = canonical::path(sent.path, if is_audit { Care::Plain } else { care })?;
    // What a `..` takes away is not in `path` any more; in force it would have been refused all the same.
    let is_clear = if is_audit { canonical::path(sent.path, care).map(drop) } else { Ok(()) };
    let verdict = match is_clear.and_then(|()| canonical::path(&path, care)) {
        Ok(clear) => judge(&clear),
        Err(_unclear) => Some(Verdict::Audited),
    };
    Ok(Judged { path, verdict })
}

/// Whether nobody like that could call if there were no rules.
fn is_strange(settings: &Settings, inbound: &Inbound, caller: &SpiffeId) -> bool {
    !inbound.allows(caller, &settings.bootstrap.trust_domain, None)
}

/// Judges a call of `caller` to that port of the app. Compares with one rule after the other; their number is bounded where
/// they are read. No allocation.
#[must_use]
pub fn judge<'a>(rules: &'a Authorization, caller: &SpiffeId, port: u16, asked: Asked<'_>) -> Verdict<'a> {
    let mut allowed = None;
    let mut is_audited = false;
    for layer in rules.layers() {
        let fitting = layer.rules.iter().find(|rule| misfit(rule, caller, port, asked).is_none());
        match (fitting, layer.mode) {
            (Some(rule), _) => allowed = allowed.or(Some(rule)),
            (None, Mode::Enforce) => return Verdict::Denied,
            (None, Mode::Audit) => is_audited = true,
        }
    }
    match allowed {
        _ if is_audited => Verdict::Audited,
        Some(rule) => Verdict::Allowed(rule),
        None => Verdict::Denied,
    }
}

/// Why that rule does not fit such a call; `None`: it does.
#[must_use]
pub fn misfit<'a>(rule: &'a Rule, caller: &SpiffeId, port: u16, asked: Asked<'_>) -> Option<Misfit<'a>> {
    if !is_from(&rule.from, caller) {
        return Some(Misfit::Caller);
    }
    if !is_any(&rule.ports, |listed| *listed == port) {
        return Some(Misfit::Port);
    }
    match (&rule.http, asked) {
        (None, Asked::Stream | Asked::Request(_)) => None,
        (Some(_), Asked::Stream) => Some(Misfit::Stream),
        (Some(http), Asked::Request(request)) => http_misfit(http, request),
    }
}

fn http_misfit<'a>(rule: &'a HttpRule, request: Request<'_>) -> Option<Misfit<'a>> {
    if !is_any(&rule.hosts, |host| is_for(host, request.authority)) {
        return Some(Misfit::Host);
    }
    if !is_any(&rule.methods, |method| method == request.method) {
        return Some(Misfit::Method);
    }
    if !is_any(&rule.paths, |path| is_path(path, request.path)) {
        return Some(Misfit::Path);
    }
    let missing = rule.headers.iter().find(|field| !has(request.fields, field));
    if let Some(field) = missing {
        return Some(Misfit::Field(&field.name));
    }
    if !is_any(&rule.grpc, |call| is_call(call, request)) {
        return Some(Misfit::Grpc);
    }
    None
}

/// Whether any entry fits; a list that is not there fits everything.
fn is_any<T>(list: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

/// Whether it is one of these callers; unlike other lists, none that is empty fits anybody. Whoever calls is a workload: a
/// trust domain's own ID is nobody's.
fn is_from(from: &Callers, caller: &SpiffeId) -> bool {
    caller.is_workload()
        && (from.ids.contains(caller)
            || from.namespaces.iter().any(|namespace| is_of(namespace, caller))
            || from.trust_domains.contains(caller.trust_domain()))
}

/// Whether the ID is of that namespace, by its parts: it has exactly the four segments of a Kubernetes service account.
fn is_of(namespace: &Namespace, caller: &SpiffeId) -> bool {
    let mut segments = caller.path().split('/');
    let is_named = segments.next() == Some("")
        && segments.next() == Some("ns")
        && segments.next() == Some(&*namespace.name)
        && segments.next() == Some("sa")
        && segments.next().is_some()
        && segments.next().is_none();
    is_named && *caller.trust_domain() == namespace.trust_domain
}

/// Whether that host is asked: with its port, or by itself whatever the port.
fn is_for(host: &str, authority: &str) -> bool {
    host == authority || host == canonical::host(authority)
}

fn is_path(rule: &PathRule, path: &str) -> bool {
    match rule {
        PathRule::Exact(exact) => **exact == *path,
        PathRule::Prefix(prefix) => {
            path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

fn has(fields: &Fields, rule: &FieldRule) -> bool {
    let found = fields.get(&rule.name);
    found.is_some_and(|found| rule.value.as_ref().is_none_or(|value| value == found))
}

/// Whether it is that call (gRPC over HTTP/2, "Requests"): `POST /<service>/<method>` with its own content type.
fn is_call(rule: &GrpcRule, request: Request<'_>) -> bool {
    let called = request.path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let Some((service, method)) = called else { return false };
    request.method == Method::POST
        && request.fields.is_grpc()
        && *service == *rule.service
        && !method.is_empty()
        && !method.contains('/')
        && rule.method.as_deref().is_none_or(|named| named == method)
}

#[cfg(test)]
mod spellings;
#[cfg(test)]
mod tests;
