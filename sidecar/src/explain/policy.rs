//! What authorization rules say of a call to the own app: the rule that allows it, or what each rule misses.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONTENT_TYPE, HOST},
    request::Parts,
    uri::{InvalidUri, PathAndQuery},
};
use outrider_certs::SpiffeId;

use super::{By, Explained};
use crate::{
    authz::{self, Asked, Fields, Judged, Misfit, Request, Sent, Verdict},
    canonical::{self, Ambiguous},
    headers::framing::{self, FramingError},
    model::{
        ListenerKind, Settings,
        authorization::{Layer, Mode, Rule, Whose},
        listener::{Inbound, Protocol},
    },
};

/// A call of a peer.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who calls.
    pub from: SpiffeId,
    /// The app's port; may be left out where there is only one.
    pub port: Option<u16>,
    /// The request's method; GET if left out.
    pub method: Option<Method>,
    /// Its path, as it is sent, with or without a query; / if left out.
    pub path: Option<String>,
    /// Whom it is for.
    pub host: Option<String>,
    /// Its fields.
    pub headers: Vec<Field>,
    /// A call of gRPC, as `service/method`, in the place of method and path.
    pub grpc: Option<String>,
    /// It is an opaque stream, and no request.
    pub stream: bool,
}

/// A field of a request.
#[derive(Clone, Debug)]
pub struct Field(HeaderName, HeaderValue);

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("write it as name: value")?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_odd| "no name of a field")?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_odd| "no value of a field")?;
        Ok(Self(name, value))
    }
}

impl Question {
    /// Whether anything is said that only a request has.
    fn is_of_request(&self) -> bool {
        self.method.is_some()
            || self.path.is_some()
            || self.host.is_some()
            || self.grpc.is_some()
            || !self.headers.is_empty()
    }
}

/// What is said of the call, and whether it passes, by those settings.
///
/// # Errors
/// It is no call, or there is no such port.
pub fn explain(settings: &Settings, by: By<'_>, question: &Question) -> Result<Explained, String> {
    if question.stream && question.is_of_request() {
        return Err("an opaque stream has nothing of a request: leave out one or the other".to_owned());
    }
    if question.grpc.is_some() && (question.method.is_some() || question.path.is_some()) {
        return Err("a call of gRPC says method and path: leave out one or the other".to_owned());
    }
    let (inbound, port) = inbound(settings, question.port)?;
    if inbound.protocol == Protocol::Tcp && question.is_of_request() {
        return Err(format!(
            "port {port} carries opaque streams (protocol: tcp): leave out what is said of a request"
        ));
    }
    let mut explained = say((settings, by), (inbound, port), question)?;
    explained.lines.extend(by.unsaid(settings));
    if !explained.passes {
        explained.lines.extend(by.rejected(true));
        if !inbound.exceptions.is_none() {
            explained.lines.push(format!(
                "port {port} has exceptions from mutual TLS: whoever comes by one proves nothing, and no rule is asked"
            ));
        }
    }
    Ok(explained)
}

fn say(
    (settings, by): (&Settings, By<'_>),
    (inbound, port): (&Inbound, u16),
    question: &Question,
) -> Result<Explained, String> {
    let caller = &question.from;
    let rules = settings.authorization.as_deref();
    if !inbound.allows(caller, &settings.bootstrap.trust_domain, rules) {
        let why = if inbound.allow.is_empty() {
            "it is no workload of the own trust domain, nor of one that a rule names"
        } else {
            "it is not on the list allow of that port"
        };
        return Ok(refused(format!("denied: {caller} may not connect to port {port}: {why}")));
    }
    if question.stream && inbound.protocol == Protocol::Http {
        let text = format!("denied: port {port} is for requests (protocol: http), not for opaque streams");
        return Ok(refused(text));
    }
    if question.stream || inbound.protocol == Protocol::Tcp {
        let verdict = authz::verdict(settings, inbound, caller, port, Asked::Stream);
        return Ok(told((settings, by), verdict, Ok(Seen { caller, port, asked: Asked::Stream })));
    }
    let head = match request(question)? {
        Ok(head) => head,
        Err(error) => return Ok(refused(format!("refused with 400: it is no target of a request: {error}"))),
    };
    Ok(judged((settings, by), inbound, (caller, port), &head).unwrap_or_else(refused))
}

/// A call that does not pass, and is not even compared with rules.
fn refused(line: String) -> Explained {
    Explained { lines: vec![line], passes: false }
}

/// What is said of a request of somebody who may connect, and whether it passes; or that it is refused before any rule is
/// looked at. The checks are those of [`framing`], in the order in which the sidecar makes them.
fn judged(
    (settings, by): (&Settings, By<'_>),
    inbound: &Inbound,
    (caller, port): (&SpiffeId, u16),
    head: &Parts,
) -> Result<Explained, String> {
    fn bad(error: impl Display) -> String {
        format!("refused with 400: {error}")
    }
    framing::check_request(head).map_err(bad)?;
    if head.method == Method::CONNECT {
        return Err("refused with 501: no peer gets a tunnel by CONNECT (a WebSocket is a GET)".to_owned());
    }
    let authority = match framing::authority(head) {
        // Nobody said whom it is for.
        Err(FramingError::HostMissing) => Cow::Borrowed(""),
        Ok("") => Cow::Borrowed(""),
        Ok(sent) => canonical::authority(sent).ok_or_else(|| bad(FramingError::HostMalformed))?,
        Err(error) => return Err(bad(error)),
    };
    framing::check_single(&head.headers).map_err(bad)?;
    framing::check_method(&head.method).map_err(bad)?;
    let sent =
        Sent { method: &head.method, path: head.uri.path(), authority: &authority, headers: &head.headers };
    let Judged { path, verdict } = authz::of_request(settings, inbound, (caller, port), sent).map_err(bad)?;
    let rules = settings.authorization.as_deref();
    let fields = rules.map(|rules| Fields::of(&head.headers, rules)).unwrap_or_default();
    let clear = rules.map_or(Ok(Cow::Borrowed(&*path)), |rules| canonical::path(&path, rules.care(port)));
    let seen = clear.as_deref().map_err(|unclear| *unclear).map(|path| {
        let method = Request::method(&head.method);
        let request = Request { method, path, authority: &authority, fields: &fields };
        Seen { caller, port, asked: Asked::Request(request) }
    });
    let mut explained = told((settings, by), verdict, seen);
    if path != head.uri.path() {
        explained.lines.insert(0, format!("the app gets the path {path}"));
    }
    Ok(explained)
}

/// The rules of the port, and the port.
fn inbound(settings: &Settings, port: Option<u16>) -> Result<(&Inbound, u16), String> {
    let (mut known, mut others) = (Vec::new(), None);
    for listener in &settings.listeners {
        match &listener.kind {
            ListenerKind::Inbound(inbound) => known.extend(inbound.port.map(|port| (&**inbound, port))),
            ListenerKind::InterceptedInbound(intercepted) => {
                known.extend(intercepted.ports.iter().map(|(port, inbound)| (&**inbound, *port)));
                others = Some(&*intercepted.others);
            }
            ListenerKind::OutboundHttp { .. }
            | ListenerKind::OutboundTcp { .. }
            | ListenerKind::InterceptedOutbound { .. } => {}
        }
    }
    let Some(port) = port else {
        return match (known.as_slice(), others) {
            ([only], None) => Ok(*only),
            ([], None) => Err("nobody can call: the configuration has no inbound listener".to_owned()),
            _ => Err("name the app's port by --port: there is more than one".to_owned()),
        };
    };
    let of_port = known.iter().find(|(_, known)| *known == port).map(|(inbound, _)| *inbound);
    let intercept = settings.bootstrap.intercept.as_ref().filter(|_| of_port.is_none());
    if intercept.is_some_and(|intercept| intercept.inbound.except_ports.contains(&port)) {
        return Err(format!(
            "port {port} is left alone (intercept.inbound.except_ports): its calls do not come by here, and no rule is asked"
        ));
    }
    let found = of_port.or(others).ok_or_else(|| format!("no listener leads to port {port} of the app"))?;
    Ok((found, port))
}

/// The request, as it is sent; or that it has no target that could be sent.
fn request(question: &Question) -> Result<Result<Parts, InvalidUri>, String> {
    let mut headers = HeaderMap::new();
    for Field(name, value) in &question.headers {
        headers.append(name, value.clone());
    }
    if let Some(host) = &question.host {
        if canonical::authority(host).is_none() {
            return Err(format!("{host:?} is not a host"));
        }
        if headers.contains_key(HOST) {
            return Err("say whom it is for by --host or by a field host, not by both".to_owned());
        }
        headers.insert(HOST, host.parse().map_err(|error| format!("not a host: {error}"))?);
    }
    let (method, target) = match &question.grpc {
        None => {
            (question.method.clone().unwrap_or_default(), question.path.as_deref().unwrap_or("/").to_owned())
        }
        Some(call) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
            (Method::POST, format!("/{}", call.trim_start_matches('/')))
        }
    };
    if target.contains('#') {
        return Err(format!(
            "{target:?} has a #: clients keep what follows it to themselves; escape it as %23 if it is sent"
        ));
    }
    let target = match PathAndQuery::try_from(target) {
        Ok(target) => target,
        Err(error) => return Ok(Err(error)),
    };
    let mut head = http::Request::new(()).into_parts().0;
    (head.method, head.uri, head.headers) = (method, target.into(), headers);
    Ok(Ok(head))
}

/// A call as rules look at it.
struct Seen<'a> {
    caller: &'a SpiffeId,
    port: u16,
    asked: Asked<'a>,
}

impl Seen<'_> {
    fn misfit<'a>(&self, rule: &'a Rule) -> Option<Misfit<'a>> {
        authz::misfit(rule, self.caller, self.port, self.asked)
    }
}

/// The verdict in words, and whether the call passes by it. `seen` is what rules look at, if its path is clear.
fn told(
    (settings, by): (&Settings, By<'_>),
    verdict: Option<Verdict<'_>>,
    seen: Result<Seen<'_>, Ambiguous>,
) -> Explained {
    let (Some(verdict), Some(rules)) = (verdict, settings.authorization.as_deref()) else {
        let has_controller = settings.bootstrap.controller.is_some();
        let text = match by {
            By::Running(_) if has_controller => {
                "allowed: neither the file nor a policy of the cluster says who may call, so whoever may connect may"
            }
            By::File | By::Running(_) => {
                "allowed: there is no authorization section, so whoever may connect may call"
            }
        };
        return Explained { lines: vec![text.to_owned()], passes: true };
    };
    let layers: Vec<_> = rules.layers().collect();
    let is_of_both = layers.len() > 1;
    if let Verdict::Allowed(rule) = verdict {
        let mut lines = vec![format!("allowed by rule {}", rule.name)];
        if let (true, Ok(seen)) = (is_of_both, &seen) {
            lines.extend(layers.iter().filter_map(|layer| fitting(layer, seen)));
        }
        return Explained { lines, passes: true };
    }
    let text = match (verdict.passes(), rules.mode()) {
        (true, _) => "audited: no rule fits, and it passes as mode is audit",
        (false, Mode::Audit) => "denied: no rule fits, and without rules the caller could not connect",
        (false, Mode::Enforce) if is_of_both => {
            "denied: rules of the file and of the cluster's policies must both allow it"
        }
        (false, Mode::Enforce) => "denied: no rule fits",
    };
    let mut lines = vec![text.to_owned()];
    match seen {
        Ok(seen) => layers.iter().for_each(|layer| lines.extend(misses(layer, is_of_both, &seen))),
        Err(unclear) => {
            lines.push(format!("  the path is not clear: {unclear}; mode enforce refuses it with 400"));
        }
    }
    Explained { lines, passes: verdict.passes() }
}

/// The rule of that layer that allows it.
fn fitting(layer: &Layer<'_>, seen: &Seen<'_>) -> Option<String> {
    let rule = layer.rules.iter().find(|rule| seen.misfit(rule).is_none())?;
    Some(format!("  {}: {}", of(layer.whose), rule.name))
}

/// What each rule of a layer misses, a line each.
fn misses(layer: &Layer<'_>, is_of_both: bool, seen: &Seen<'_>) -> Vec<String> {
    let indent = if is_of_both { "    " } else { "  " };
    let mut lines = Vec::new();
    if is_of_both {
        lines.push(format!("  {}:", of(layer.whose)));
    }
    lines.extend(layer.rules.iter().map(|rule| {
        let why = seen.misfit(rule).map_or_else(|| "fits".to_owned(), why);
        format!("{indent}{}: {why}", rule.name)
    }));
    if layer.rules.is_empty() {
        let why = match layer.whose {
            Whose::File => "there are no rules",
            Whose::Controller => {
                "there are no rules: no policy that selects this pod allows anybody, or the controller has said nothing yet"
            }
        };
        lines.push(format!("{indent}{why}"));
    }
    lines
}

fn of(whose: Whose) -> &'static str {
    match whose {
        Whose::File => "of the file",
        Whose::Controller => "of the cluster's policies",
    }
}

fn why(misfit: Misfit<'_>) -> String {
    match misfit {
        Misfit::Caller => "is not about this caller",
        Misfit::Port => "is not about this port",
        Misfit::Stream => "is about requests, and this is an opaque stream",
        Misfit::Host => "is about another host",
        Misfit::Method => "is about another method",
        Misfit::Path => "is about another path",
        Misfit::Grpc => "is about another call of gRPC",
        Misfit::Field(name) => {
            return format!("the field {name} is missing, repeated, not ASCII, or has another value");
        }
    }
    .to_owned()
}
