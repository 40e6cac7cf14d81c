//! `outrider route`: where requests go by a configuration, decided by the code that carries them.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::{HeaderName, HeaderValue, Method, Request, Uri, request::Parts};
use outrider::{
    canonical,
    clock::Clock,
    config,
    model::{
        Cluster, ClusterName, ListenerKind, Snapshot,
        edits::FieldEdits,
        intercept::Unknown,
        policy::{Hedge, PathMatch, Policy, RouteMatch, TextMatch},
        route_table::{Candidate, Rule, RuleList, Sticky},
    },
    publish,
    route::{
        self,
        matching::{Asked, Misfit},
        rewrite,
        table::{self, Way},
        weighted,
    },
};

use super::{ConfigFile, ask::safe};

/// Matches that did not fit and are told, the most specific first.
const MAX_SHOWN: usize = 40;
/// What becomes of a request whose path readers may take for different ones.
const AMBIGUOUS: &str = "400, bad_request: its path has no spelling that every reader takes alike";

#[derive(Debug, Subcommand)]
pub(super) enum Route {
    /// Say where a request of the own app would go: which rule, which clusters, what holds for it, and why nothing else fits
    ///
    /// Ends with 0 if it goes somewhere, with 1 if it does not.
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// The method, as GET
    #[arg(value_name = "METHOD")]
    method: String,
    /// The target, as http://orders:8080/items?page=2, or a path alone
    #[arg(value_name = "URL")]
    url: String,
    /// A field of the request, as 'x-team: red'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The address that the app dialled, where the kernel brings its connections
    #[arg(long, value_name = "IP:PORT")]
    to: Option<SocketAddr>,
    /// The outbound listener that it comes in at; the first one for requests if nothing is said
    #[arg(long, value_name = "NAME", conflicts_with = "to")]
    listener: Option<String>,
}

pub(super) fn run(command: &Route) -> anyhow::Result<ExitCode> {
    let Route::Explain(explain) = command;
    let settings = Arc::new(config::load(&explain.file.config)?);
    let snapshot = publish::preview(settings, Clock::system().now());
    let (head, host) = request(explain)?;
    let mut out = format!("{} {}\n", head.method, safe(&explain.url));
    let goes = Asker { snapshot: &snapshot, head: &head, host: &host, out: &mut out }.explain(explain)?;
    io::stdout().write_all(out.as_bytes())?;
    Ok(if goes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The request as it would come in, and whom it is for; empty if it names nobody.
fn request(explain: &Explain) -> anyhow::Result<(Parts, String)> {
    let method = Method::from_bytes(explain.method.as_bytes()).context("that is not a method")?;
    let uri: Uri = explain.url.parse().context("that is not a URL")?;
    let named = uri.authority().map(|authority| authority.as_str().to_owned());
    let mut head = Request::builder().method(method).uri(uri).body(())?.into_parts().0;
    for text in &explain.headers {
        let (name, value) =
            text.split_once(':').with_context(|| format!("no colon in the field {text:?}"))?;
        let name: HeaderName = name.trim().parse().with_context(|| format!("{name:?} names no field"))?;
        let value: HeaderValue = value.trim().parse().with_context(|| format!("{value:?} is no value"))?;
        head.headers.append(name, value);
    }
    let host = head.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = named.or(host).unwrap_or_default();
    if host.is_empty() {
        return Ok((head, host));
    }
    let host = canonical::authority(&host).with_context(|| format!("{host:?} is not a host"))?.into_owned();
    Ok((head, host))
}

struct Asker<'a> {
    snapshot: &'a Snapshot,
    head: &'a Parts,
    host: &'a str,
    out: &'a mut String,
}

impl<'a> Asker<'a> {
    /// Whether it goes somewhere.
    fn explain(mut self, explain: &Explain) -> anyhow::Result<bool> {
        let default;
        let way = match explain.to {
            Some(address) => table::by_address(self.snapshot, address, self.host),
            None => {
                default = self.default_cluster(explain.listener.as_deref())?;
                table::by_authority(self.snapshot, self.host, default.as_ref())
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
            Way::Unknown => self.unknown(explain.to.is_some()),
        })
    }

    /// Where the listener sends what nobody is named by.
    fn default_cluster(&self, listener: Option<&str>) -> anyhow::Result<Option<ClusterName>> {
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
            (None, Some(name)) => bail!("there is no outbound listener {name:?} for requests"),
            (None, None) => Ok(None),
        }
    }

    fn line(&mut self, title: &str, text: &str) {
        self.out.push_str(&format!("  {title:<9} {}\n", safe(text)));
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

    fn unknown(&mut self, is_dialled: bool) -> bool {
        let mut listeners = self.snapshot.config.settings.listeners.iter();
        let passes = listeners.any(|listener| {
            matches!(listener.kind, ListenerKind::InterceptedOutbound { unknown: Unknown::Passthrough })
        });
        if is_dialled && passes {
            self.line("to", "the address that was dialled, as it is (passthrough)");
            return true;
        }
        self.line("to", "nobody: no cluster and no route has this host: 404, no_route");
        false
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
        self.out.push_str("others, the most specific first:\n");
        for (name, matches) in others.iter().take(MAX_SHOWN) {
            let why = match asked.misfit(matches) {
                None => "fits, but is less specific, or comes later in the file".to_owned(),
                Some(misfit) => told(misfit),
            };
            let text = format!("  {name}: {}: {why}\n", described(matches));
            self.out.push_str(&text);
        }
        if let Some(more) = others.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
            self.out.push_str(&format!("  and {more} more\n"));
        }
    }
}

/// Which fields are changed, and how; a value may be a secret.
fn named(edits: &FieldEdits) -> String {
    let removed = edits.remove.iter().map(|name| ("removed", name));
    let set = edits.set.iter().map(|(name, _)| ("set", name));
    let added = edits.add.iter().map(|(name, _)| ("added", name));
    let all = set.chain(added).chain(removed).map(|(how, name)| format!("{name} {how}"));
    all.collect::<Vec<_>>().join(", ")
}

/// The prefix by which it is found, if it is by one.
fn prefix(matches: &RouteMatch) -> Option<&str> {
    match &matches.path {
        PathMatch::Prefix(prefix) => Some(prefix),
        PathMatch::Any | PathMatch::Exact(_) => None,
    }
}

fn told(misfit: Misfit<'_>) -> String {
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
fn described(matches: &RouteMatch) -> String {
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
