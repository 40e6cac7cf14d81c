//! `authorization`: which calls of peers may go to the own app.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use outrider_certs::{SpiffeId, TrustDomain};
use serde_saphyr::Spanned;

use super::{intercept::to_port, matches, references::Known};
use crate::{
    canonical::{self, Care},
    config::{
        defaults, raw,
        value::{choice, distinct, name, required},
    },
    headers::reserved,
    model::{
        Listener, ListenerKind,
        authorization::{
            Authorization, Callers, FieldRule, GrpcRule, HttpRule, Namespace, PathRule, Rule, VERDICTS, Whose,
        },
        file::{Faults, Place, quoted, report_odd_keys},
        listener::Protocol,
        wire,
    },
};

/// Rules of one file: a call is compared with one after the other.
const MAX_RULES: usize = 500;
/// Entries of one list of a rule.
const MAX_ENTRIES: usize = 256;
/// Bytes of a path (as routes).
const MAX_PATH_BYTES: usize = 1024;

/// Checks the section; `None` if there is none. `listeners`: those that take connections of peers, among others.
pub(super) fn authorization<'a>(
    file: &raw::File,
    listeners: impl Iterator<Item = &'a Listener>,
    faults: &mut Faults,
) -> Option<Authorization> {
    let raw = file.authorization.as_ref()?;
    let place = Place::root().key("authorization").at(raw);
    section(&raw.value, &place, (&Known::of(file), Some(&Ports::of(listeners))), faults)
}

/// Checks the same section as the controller says it, to workloads of trust domain `own`. Rules may be about ports that nobody
/// listens on yet, and name workloads whose roots are not known here: nobody proves to be one of those.
pub(super) fn told(
    raw: &raw::Authorization,
    own: &str,
    place: &Place,
    faults: &mut Faults,
) -> Option<Authorization> {
    section(raw, place, (&Known::anybody(own), None), faults).map(|rules| rules.by(Whose::Controller))
}

fn section(
    raw: &raw::Authorization,
    place: &Place,
    (known, ports): (&Known<'_>, Option<&Ports>),
    faults: &mut Faults,
) -> Option<Authorization> {
    report_odd_keys(&raw.odd_keys, raw::Authorization::KEYS, place, faults);
    let mode = choice(raw.mode.as_ref(), &defaults::authorization::MODE, place, faults);
    let list = raw.rules.as_ref();
    let place = list.map_or_else(|| place.key("rules"), |list| place.key("rules").at(list));
    let list = list.map(|list| list.value.as_slice()).unwrap_or_default();
    if list.len() > MAX_RULES {
        faults.add(&place, format!("{} rules", list.len()), format!("keep to {MAX_RULES}"));
        return None;
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(rule) = rule(&item.value, &place, known, faults) else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            let problem = format!("the name {} is that of another rule", quoted(&rule.name));
            faults.add(&place, problem, "give each its own: it is told by it what allowed a call");
        }
        if let Some(ports) = ports {
            ports.check(&rule, &place, faults);
        }
        rules.push(rule);
    }
    Some(Authorization::new(mode, rules))
}

/// The ports of the own app that peers can reach.
struct Ports {
    known: Vec<(u16, Protocol)>,
    /// What the ports carry that are not known: the kernel brings connections to any.
    others: Option<Protocol>,
}

impl Ports {
    fn of<'a>(listeners: impl Iterator<Item = &'a Listener>) -> Self {
        let (mut known, mut others) = (Vec::new(), None);
        for listener in listeners {
            match &listener.kind {
                ListenerKind::Inbound(inbound) => {
                    known.extend(inbound.port.map(|port| (port, inbound.protocol)));
                }
                ListenerKind::InterceptedInbound(intercepted) => {
                    known.extend(intercepted.ports.iter().map(|(port, inbound)| (*port, inbound.protocol)));
                    others = Some(intercepted.others.protocol);
                }
                ListenerKind::OutboundHttp { .. }
                | ListenerKind::OutboundTcp { .. }
                | ListenerKind::InterceptedOutbound { .. } => {}
            }
        }
        Self { known, others }
    }

    /// What comes to that port.
    fn carried(&self, port: u16) -> impl Iterator<Item = Protocol> {
        let of_port = self.known.iter().filter(move |(known, _)| *known == port);
        let is_known = of_port.clone().next().is_some();
        of_port.map(|(_, protocol)| *protocol).chain(self.others.filter(|_| !is_known))
    }

    /// A rule that never fits is not what was meant.
    fn check(&self, rule: &Rule, place: &Place, faults: &mut Faults) {
        for port in &rule.ports {
            if self.carried(*port).next().is_none() {
                let known: Vec<String> = self.known.iter().map(|(port, _)| port.to_string()).collect();
                let remedy = format!("name ports of the own app, which has {}", known.join(", "));
                faults.add(&place.key("ports"), format!("no listener leads to port {port}"), remedy);
            }
        }
        let all: Vec<Protocol> = if rule.ports.is_empty() {
            self.known.iter().map(|(_, protocol)| *protocol).chain(self.others).collect()
        } else {
            rule.ports.iter().flat_map(|port| self.carried(*port)).collect()
        };
        if rule.http.is_some() && !all.is_empty() && all.iter().all(|protocol| *protocol == Protocol::Tcp) {
            let remedy = "leave out hosts, methods, paths, path_prefixes, headers and grpc";
            faults.add(place, "asks for requests where protocol is tcp, and would never fit", remedy);
        }
    }
}

fn rule(raw: &raw::AuthorizationRule, place: &Place, known: &Known<'_>, faults: &mut Faults) -> Option<Rule> {
    report_odd_keys(&raw.odd_keys, raw::AuthorizationRule::KEYS, place, faults);
    let from = callers(raw, place, known, faults);
    let ports = entries(raw.ports.as_ref(), place.key("ports"), faults, |text, place, faults| {
        let port = to_port(&text.value);
        if port.is_none() {
            faults.add(place, format!("{} is not a port", quoted(&text.value)), "write it as 8080");
        }
        port
    });
    let http = http_rule(raw, place, faults);
    let text = required(raw.name.as_ref(), &place.key("name"), "name the rule", faults)?;
    let name = name(text, &place.key("name"), faults);
    if VERDICTS.contains(&&*name) {
        let problem = format!("{} is the name of a verdict", quoted(&name));
        faults.add(&place.key("name").at(text), problem, "name it another way");
    }
    Some(Rule { name: name.into(), from, ports, http })
}

fn callers(raw: &raw::AuthorizationRule, place: &Place, known: &Known<'_>, faults: &mut Faults) -> Callers {
    if raw.from.is_none() && raw.from_namespaces.is_none() && raw.from_trust_domains.is_none() {
        let remedy = "say from, from_namespaces or from_trust_domains";
        faults.add(place, "does not say who may call", remedy);
    }
    let ids = entries(raw.from.as_ref(), place.key("from"), faults, |text, place, faults| {
        let id = SpiffeId::parse(&text.value).map_err(|error| error.to_string());
        let id = id.and_then(|id| if id.is_workload() { Ok(id) } else { Err("it has no path".to_owned()) });
        let id = id.inspect_err(|error| {
            let problem = format!("{} is not a workload's SPIFFE ID: {error}", quoted(&text.value));
            faults.add(place, problem, "write it as spiffe://<trust domain>/<path>");
        });
        id.ok().filter(|id| is_known(id.trust_domain(), known, place, faults))
    });
    let namespaces =
        entries(raw.from_namespaces.as_ref(), place.key("from_namespaces"), faults, |text, place, faults| {
            namespace(&text.value, known, place, faults)
        });
    let trust_domains = entries(
        raw.from_trust_domains.as_ref(),
        place.key("from_trust_domains"),
        faults,
        |text, place, faults| {
            let domain = trust_domain(&text.value, place, faults)?;
            is_known(&domain, known, place, faults).then_some(domain)
        },
    );
    Callers { ids, namespaces, trust_domains }
}

/// `namespace`, or `trust domain/namespace`.
fn namespace(text: &str, known: &Known<'_>, place: &Place, faults: &mut Faults) -> Option<Namespace> {
    /// As Kubernetes has them (RFC 1123 labels).
    const MAX_BYTES: usize = 63;
    let (trust_domain, name) = match text.split_once('/') {
        Some((domain, name)) => (trust_domain(domain, place, faults)?, name),
        // One that is no trust domain has a fault already.
        None => (TrustDomain::parse(known.own()?).ok()?, text),
    };
    let is_label = (1..=MAX_BYTES).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !is_label {
        let problem = format!("{} is not a namespace", quoted(text));
        faults.add(place, problem, "write it as shop, or with its trust domain as shop.example/shop");
    }
    (is_label && is_known(&trust_domain, known, place, faults))
        .then(|| Namespace { trust_domain, name: name.into() })
}

fn trust_domain(text: &str, place: &Place, faults: &mut Faults) -> Option<TrustDomain> {
    let domain = TrustDomain::parse(text).inspect_err(|error| {
        let problem = format!("{} is not a trust domain: {error}", quoted(text));
        faults.add(place, problem, "write it as shop.example");
    });
    domain.ok()
}

/// Whether its workloads can prove who they are.
fn is_known(domain: &TrustDomain, known: &Known<'_>, place: &Place, faults: &mut Faults) -> bool {
    let is_known = known.has(domain.as_str());
    if !is_known {
        let problem = format!("{domain} is a trust domain whose roots are not known here");
        let remedy = format!("name workloads of trust_domain, or {domain} under federation");
        faults.add(place, problem, remedy);
    }
    is_known
}

/// What a rule says of HTTP; `None`: nothing.
fn http_rule(raw: &raw::AuthorizationRule, place: &Place, faults: &mut Faults) -> Option<HttpRule> {
    let hosts = entries(raw.hosts.as_ref(), place.key("hosts"), faults, host);
    let methods = entries(raw.methods.as_ref(), place.key("methods"), faults, matches::method);
    let mut paths = entries(raw.paths.as_ref(), place.key("paths"), faults, |text, place, faults| {
        path(&text.value, place, faults).map(|path| PathRule::Exact(path.into()))
    });
    let prefixes = place.key("path_prefixes");
    paths.extend(entries(raw.path_prefixes.as_ref(), prefixes, faults, |text, place, faults| {
        path(&text.value, place, faults)
            .map(|path| PathRule::Prefix(path.strip_suffix('/').unwrap_or(path).into()))
    }));
    let headers = entries(raw.headers.as_ref(), place.key("headers"), faults, field);
    let grpc = entries(raw.grpc.as_ref(), place.key("grpc"), faults, call);
    let others = [(&raw.methods, "methods"), (&raw.paths, "paths"), (&raw.path_prefixes, "path_prefixes")];
    for (list, key) in others {
        if let (Some(_), Some(list)) = (&raw.grpc, list) {
            let problem = "stands beside grpc, which says both method and path";
            faults.add(&place.key(key).at(list), problem, "make two rules of it");
        }
    }
    let is_said = raw.grpc.is_some() || raw.hosts.is_some() || raw.headers.is_some();
    (is_said || others.iter().any(|(list, _)| list.is_some())).then_some(HttpRule {
        hosts,
        methods,
        paths,
        headers,
        grpc,
    })
}

/// Every entry of a list, each once. A list that is there has some: it would fit anything, and read as nothing.
fn entries<R, T: PartialEq>(
    list: Option<&Spanned<Vec<Spanned<R>>>>,
    place: Place,
    faults: &mut Faults,
    read: impl Fn(&Spanned<R>, &Place, &mut Faults) -> Option<T>,
) -> Vec<T> {
    distinct(list, MAX_ENTRIES, &place, faults, read)
}

fn host(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<Box<str>> {
    // It would read as a pattern, and mean itself.
    match canonical::authority(&text.value).filter(|_| !text.value.contains('*')) {
        Some(canonical) if canonical == text.value => return Some(canonical.into()),
        Some(canonical) => {
            let problem = format!("{} is not how hosts are compared", quoted(&text.value));
            faults.add(place, problem, format!("write it as {canonical}"));
        }
        None => {
            let problem = format!("{} is not a host", quoted(&text.value));
            faults.add(place, problem, "write it as orders or orders:8080");
        }
    }
    None
}

/// A path in its one spelling, as requests have it when they are judged.
fn path<'a>(text: &'a str, place: &Place, faults: &mut Faults) -> Option<&'a str> {
    let is_path = text.starts_with('/') && text.len() <= MAX_PATH_BYTES && !text.contains(['?', '#']);
    if !is_path {
        let remedy = "begin it with /, without a query";
        faults.add(place, format!("{} is not the path of a request", quoted(text)), remedy);
        return None;
    }
    let (problem, remedy) = match canonical::path(text, Care::Judged) {
        Ok(canonical) if canonical == text => return Some(text),
        Ok(canonical) => (
            format!("{} is not how paths are compared", quoted(text)),
            Cow::Owned(format!("write it as {canonical}")),
        ),
        Err(error) => {
            let problem = format!("{} would never fit: {error} is refused", quoted(text));
            (problem, Cow::Borrowed("give a path whose meaning is the same to every reader"))
        }
    };
    faults.add(place, problem, remedy);
    None
}

/// What a rule cannot go by: what other keys say, and what is not passed on to the app as it came.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [&str; 19] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "transfer-encoding",
        "content-length",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
        "expect",
        "forwarded",
        "x-request-id",
        "traceparent",
        "tracestate",
        "b3",
    ];
    let name = name.as_str();
    let prefixes = [wire::RESERVED_PREFIX, "x-forwarded-", "x-b3-", "sec-websocket-"];
    OURS.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn field(raw: &Spanned<raw::NameAndValue>, place: &Place, faults: &mut Faults) -> Option<FieldRule> {
    report_odd_keys(&raw.value.odd_keys, raw::NameAndValue::KEYS, place, faults);
    let text = required(raw.value.name.as_ref(), &place.key("name"), "name the field", faults)?;
    let name = HeaderName::from_bytes(text.value.as_bytes())
        .ok()
        .filter(|name| !is_ours(name) && !reserved::is_lookalike(name));
    if name.is_none() {
        let problem = format!("{} is not a field that a rule can go by", quoted(&text.value));
        let remedy = "name one that the app gets as the caller sent it, as x-team; hosts and from say whose call it is";
        faults.add(&place.key("name").at(text), problem, remedy);
    }
    let value = match &raw.value.value {
        None => None,
        Some(text) => {
            let value = HeaderValue::from_str(&text.value).ok();
            let value = value.filter(|value| value.to_str().is_ok() && text.value.trim() == text.value);
            if value.is_none() {
                let problem = format!("{} is not a value that a field can be known by", quoted(&text.value));
                faults.add(&place.key("value").at(text), problem, "use ASCII, without spaces around it");
            }
            Some(value?)
        }
    };
    Some(FieldRule { name: name?, value })
}

/// `service` or `service/method`, as they stand in the path of a call.
fn call(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<GrpcRule> {
    let is_name = |text: &str, others: &[u8]| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        (1..=MAX_PATH_BYTES).contains(&text.len()) && text.bytes().all(fits)
    };
    let (service, method) = text
        .value
        .split_once('/')
        .map_or((text.value.as_str(), None), |(service, method)| (service, Some(method)));
    let is_call = is_name(service, b"_.") && method.is_none_or(|method| is_name(method, b"_"));
    if !is_call {
        let problem = format!("{} is not a service of gRPC", quoted(&text.value));
        faults.add(place, problem, "write it as shop.Orders or shop.Orders/Get");
    }
    is_call.then(|| GrpcRule { service: service.into(), method: method.map(Into::into) })
}
