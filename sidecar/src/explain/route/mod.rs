//! Where a request of the own app would go: which rule, which clusters, what holds for it, and why nothing else fits.

mod words;

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderName, HeaderValue, Method, Request, Uri, request::Parts};

use self::words::{described, named, prefix, told};
use super::{By, Explained};
use crate::{
    canonical,
    model::{
        Cluster, ClusterName, ListenerKind, Snapshot,
        intercept::Unknown,
        policy::{Hedge, Policy, RouteMatch},
        route_table::{Candidate, Rule, RuleList, Sticky},
        wanted::Key,
    },
    route::{
        self,
        matching::Asked,
        rewrite,
        table::{self, Way},
        weighted,
    },
};

/// Matches that did not fit and are told, the most specific first.
const MAX_SHOWN: usize = 40;
/// What becomes of a request whose path readers may take for different ones.
const AMBIGUOUS: &str = "400, bad_request: its path has no spelling that every reader takes alike";

/// A request of the own app.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// Its target, whole or a path alone.
    pub url: String,
    /// Its fields, as `x-team: red`.
    pub headers: Vec<String>,
    /// The address that the app dialled, where the kernel brings its connections.
    pub to: Option<SocketAddr>,
    /// The outbound listener that it comes in at; `None`: the first one for requests. Not looked at with `to`.
    pub listener: Option<String>,
}

/// Where that request would go by the snapshot.
///
/// # Errors
/// It is no request, or there is no such listener.
pub fn explain(snapshot: &Snapshot, by: By<'_>, question: &Question) -> Result<Explained, String> {
    let (head, host) = request(question)?;
    let lines = vec![format!("{} {}", head.method, question.url)];
    let mut asker = Asker { snapshot, by, head: &head, host: &host, lines };
    let passes = asker.explain(question)?;
    let mut lines = asker.lines;
    lines.extend(by.unsaid(&snapshot.config.settings));
    lines.extend(by.rejected(false));
    Ok(Explained { lines, passes })
}

/// The request as it would come in, and whom it is for; empty if it names nobody.
fn request(question: &Question) -> Result<(Parts, String), String> {
    let method = Method::from_bytes(question.method.as_bytes());
    let method = method.map_err(|error| format!("that is not a method: {error}"))?;
    let uri: Uri = question.url.parse().map_err(|error| format!("that is not a URL: {error}"))?;
    let named = uri.authority().map(|authority| authority.as_str().to_owned());
    let mut head = Request::new(()).into_parts().0;
    (head.method, head.uri) = (method, uri);
    for text in &question.headers {
        let (name, value) = text.split_once(':').ok_or_else(|| format!("no colon in the field {text:?}"))?;
        let name: HeaderName =
            name.trim().parse().map_err(|error| format!("{name:?} names no field: {error}"))?;
        let value: HeaderValue =
            value.trim().parse().map_err(|error| format!("{value:?} is no value: {error}"))?;
        head.headers.append(name, value);
    }
    let host = head.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = named.or(host).unwrap_or_default();
    if host.is_empty() {
        return Ok((head, host));
    }
    let host = canonical::authority(&host).ok_or_else(|| format!("{host:?} is not a host"))?.into_owned();
    Ok((head, host))
}

struct Asker<'a> {
    snapshot: &'a Snapshot,
    by: By<'a>,
    head: &'a Parts,
    host: &'a str,
    lines: Vec<String>,
}

impl<'a> Asker<'a> {
    /// Whether it goes somewhere.
    fn explain(&mut self, question: &Question) -> Result<bool, String> {
        let default;
        let way = match question.to {
            Some(address) => table::by_address(self.snapshot, address, self.host),
            None => {
                default = self.default_cluster(question.listener.as_deref())?;
                table::by_name(self.snapshot, self.host, default.as_ref())
            }
        };
        let asked = Asked::of(self.head);
        Ok(match way {
            Way::Rules(rules) => self.by_rules(rules, &asked),
            Way::Cluster(cluster) => {
                self.line("by", "no rules: none has this host or service");
                self.without_rules(cluster, &asked, "the whole service")
            }
            Way::Endpoint(cluster, endpoint) => {
                self.line("by", "no rules: who dials one endpoint has chosen");
                let whom = format!("the endpoint {} that was dialled", endpoint.address());
                self.without_rules(cluster, &asked, &whom)
            }
            Way::Unknown => self.unknown(question.to),
        })
    }

    /// Where the listener sends what nobody is named by.
    fn default_cluster(&self, listener: Option<&str>) -> Result<Option<ClusterName>, String> {
        let mut listeners = self.snapshot.config.settings.listeners.iter();
        let found = listeners.find_map(|it| match &it.kind {
            ListenerKind::OutboundHttp { default_cluster } => {
                listener.is_none_or(|name| name == &*it.name).then(|| default_cluster.clone())
            }
            ListenerKind::OutboundTcp { .. }
            | ListenerKind::Inbound(_)
            | ListenerKind::InterceptedOutbound { .. }
            | ListenerKind::InterceptedInbound(_) => None,
        });
        match (found, listener) {
            (Some(default), _) => Ok(default),
            (None, Some(name)) => Err(format!("there is no outbound listener {name:?} for requests")),
            (None, None) => Ok(None),
        }
    }

    fn line(&mut self, title: &str, text: &str) {
        self.lines.push(format!("  {title:<9} {text}"));
    }

    fn by_rules(&mut self, rules: &RuleList, asked: &Asked<'_>) -> bool {
        let by = match table::of_host(&self.snapshot.config.settings.routes, self.host) {
            Some(of_host) if std::ptr::eq(of_host, rules) => format!("the rules of the host {}", self.host),
            _ => "the rules of the service".to_owned(),
        };
        self.line("by", &by);
        let found = table::rule(rules, asked);
        let mut goes = found.is_some();
        match found {
            Some(Candidate { matches, rule }) => {
                self.line("rule", &format!("{}: {}", rule.name, described(matches)));
                self.targets(rule, prefix(matches));
                if !asked.has_clear_path() {
                    goes = self.leads_outside(rule);
                    self.line("refused", &format!("{AMBIGUOUS}, where it goes to the mesh"));
                }
            }
            None if asked.has_clear_path() => self.line("rule", "none: 404, no_rule"),
            None => self.line("rule", &format!("none: {AMBIGUOUS}")),
        }
        let others = rules.iter().filter(|other| found.is_none_or(|found| !std::ptr::eq(found, *other)));
        self.others(others.map(|other| (&*other.rule.name, &*other.matches)), asked);
        goes
    }

    /// Whether some of a rule's clusters are services outside the mesh, which get a path as it was sent.
    fn leads_outside(&self, rule: &Rule) -> bool {
        let clusters = rule.clusters.list().iter().filter(|cluster| cluster.weight > 0);
        let mut found = clusters.filter_map(|cluster| self.snapshot.cluster(&cluster.name));
        found.any(|cluster| cluster.settings.transport.is_outside())
    }

    /// What a rule has its requests come to.
    fn targets(&mut self, rule: &Rule, prefix: Option<&str>) {
        let sticky = match (&rule.sticky, table::kept_by(rule, &self.head.headers)) {
            (None, _) => None,
            (Some(sticky), Some(value)) => {
                let place = weighted::by_text(&rule.clusters, value);
                Some((sticky, rule.clusters.list().get(place)))
            }
            (Some(sticky), None) => Some((sticky, None)),
        };
        if let Some((sticky, kept)) = sticky {
            let by = match sticky {
                Sticky::Header(name) => format!("the field {name}"),
                Sticky::Cookie(name) => format!("the cookie {name}"),
            };
            let to =
                kept.map_or_else(|| "which it has not".to_owned(), |kept| format!("always to {}", kept.name));
            self.line("sticky", &format!("by {by}, {to}"));
        }
        for (cluster, place) in rule.clusters.list().iter().zip(&rule.places) {
            let Some(found) = self.snapshot.cluster(&cluster.name) else { continue };
            let Some(policy) = found.settings.routes.get(*place).map(|route| Arc::clone(&route.policy))
            else {
                continue;
            };
            let (tenths, total) = (u64::from(cluster.weight) * 1000, rule.clusters.total());
            let share = (tenths + total / 2) / total;
            if cluster.name != ClusterName::redirect() {
                self.line("to", &format!("{} ({}.{} %)", cluster.name, share / 10, share % 10));
            }
            self.policy(&policy, prefix, None);
        }
    }

    fn without_rules(&mut self, cluster: &Cluster, asked: &Asked<'_>, whom: &str) -> bool {
        self.line("to", &format!("{}, {whom}", cluster.name()));
        if !asked.has_clear_path() && !cluster.settings.transport.is_outside() {
            self.line("refused", AMBIGUOUS);
            return false;
        }
        let chosen = route::policy(cluster, self.head);
        let name = chosen.route.map(|(_place, name)| Arc::clone(name));
        if let Some(name) = &name {
            self.line("route", &format!("{name} of the cluster"));
        }
        self.policy(chosen.policy, chosen.prefix, Some(cluster.name().as_str()));
        let others = cluster.settings.routes.iter().filter(|other| name.as_ref() != Some(&other.name));
        let others: Vec<_> =
            others.filter_map(|other| Some((&*other.name, other.matches.as_ref()?))).collect();
        self.others(others.into_iter(), asked);
        true
    }

    fn unknown(&mut self, dialled: Option<SocketAddr>) -> bool {
        let unknown =
            self.snapshot.config.settings.listeners.iter().find_map(|listener| match listener.kind {
                ListenerKind::InterceptedOutbound { unknown } => Some(unknown),
                ListenerKind::OutboundHttp { .. }
                | ListenerKind::OutboundTcp { .. }
                | ListenerKind::Inbound(_)
                | ListenerKind::InterceptedInbound(_) => None,
            });
        if let Some(key) = self.unasked(dialled) {
            self.line("to", "nobody that this sidecar knows yet: the controller is asked when the app calls");
            self.line(
                "",
                &format!(
                    "it has said nothing of {key}; without its word such a call gets 503, not_discovered"
                ),
            );
            self.line("", "let the app call it once, and ask again");
            if dialled.is_none() && unknown.is_some() {
                self.line("", "or say with --to which address the app dials: that counts before the name");
            }
            return false;
        }
        if dialled.is_some() && unknown == Some(Unknown::Passthrough) {
            self.line("to", "the address that was dialled, as it is (passthrough)");
            return true;
        }
        self.line("to", "nobody: no cluster and no route has this host: 404, no_route");
        false
    }

    /// What a running sidecar would ask its controller for, which has said nothing of it.
    fn unasked(&self, dialled: Option<SocketAddr>) -> Option<Key> {
        let By::Running(_) = self.by else { return None };
        self.snapshot.config.settings.bootstrap.controller.as_ref()?;
        let key = dialled.map_or_else(|| Key::name(self.host), |address| Some(Key::address(address)))?;
        (!self.snapshot.outside.knows(&key)).then_some(key)
    }

    /// What holds for it there. `unnamed` is who is meant by a request that names nobody.
    fn policy(&mut self, policy: &Policy, prefix: Option<&str>, unnamed: Option<&str>) {
        if let Some(redirect) = &policy.redirect {
            let said = Some(self.host).filter(|host| !host.is_empty());
            let authority = said.or(unnamed).or(redirect.host.as_deref());
            let asked = |authority| rewrite::Asked { authority, uri: &self.head.uri, prefix };
            let to = match authority.map(|authority| rewrite::location(redirect, asked(authority))) {
                Some(Ok(location)) => String::from_utf8_lossy(location.as_bytes()).into_owned(),
                Some(Err(error)) => format!("nowhere, 400: {error}"),
                None => "nowhere, 400: neither the request nor the rule names a host".to_owned(),
            };
            self.line("redirect", &format!("{} to {to}", redirect.status.as_u16()));
            return;
        }
        let timeout = policy.request_timeout;
        let timeout = timeout.map_or("none".to_owned(), |it| humantime::format_duration(it).to_string());
        let retry = &policy.retry;
        let hedge = match retry.hedge {
            Hedge::Never => String::new(),
            Hedge::After(time) => format!(", hedged after {}", humantime::format_duration(time)),
            Hedge::P95 => ", hedged after p95".to_owned(),
        };
        self.line("", &format!("timeout {timeout}, {} retries{hedge}", retry.max_retries));
        for limit in policy.rate_limits.iter() {
            let per = humantime::format_duration(limit.per);
            self.line(
                "",
                &format!("rate limit {}: {} per {per}, burst {}", limit.name, limit.requests, limit.burst),
            );
        }
        if policy.fault.is_some() {
            self.line("", "a fault is injected");
        }
        for mirror in policy.mirrors.iter().flat_map(|mirrors| mirrors.iter()) {
            let percent = f64::from(mirror.of_million) / 10_000.0;
            self.line("", &format!("copied to {} ({percent} %)", mirror.cluster));
        }
        if let Some(edits) = &policy.edits {
            let host = edits.host.as_ref().map(|host| format!("host {host}"));
            let target = edits.path.as_ref().map(|path| rewrite::target(path, &self.head.uri, prefix));
            let path = target.map(|target| match target {
                Ok(target) => format!("target {target}"),
                Err(error) => format!("no target, 400: {error}"),
            });
            let rewritten: Vec<String> = host.into_iter().chain(path).collect();
            if !rewritten.is_empty() {
                self.line("", &format!("rewritten: {}", rewritten.join(", ")));
            }
            for (of, fields) in [("request", &edits.request), ("answer", &edits.response)] {
                let names = named(fields);
                if !names.is_empty() {
                    self.line("", &format!("fields of the {of}: {names}"));
                }
            }
        }
    }

    /// Why the others did not fit, or came too late.
    fn others<'b>(&mut self, others: impl Iterator<Item = (&'b str, &'b RouteMatch)>, asked: &Asked<'_>) {
        let others: Vec<_> = others.collect();
        if others.is_empty() {
            return;
        }
        self.lines.push("others, the most specific first:".to_owned());
        for (name, matches) in others.iter().take(MAX_SHOWN) {
            let why = match (asked.misfit(matches), self.by) {
                (None, By::File) => "fits, but is less specific, or comes later in the file".to_owned(),
                (None, By::Running(_)) => "fits, but is less specific, or comes later".to_owned(),
                (Some(misfit), _) => told(misfit),
            };
            self.lines.push(format!("  {name}: {}: {why}", described(matches)));
        }
        if let Some(more) = others.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
            self.lines.push(format!("  and {more} more"));
        }
    }
}
