//! `outrider policy`: what authorization rules say of a call, by the code that judges calls.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONTENT_TYPE, HOST},
    request::Parts,
    uri::{InvalidUri, PathAndQuery},
};
use outrider::{
    authz::{self, Asked, Fields, Judged, Misfit, Request, Sent, Verdict},
    canonical, config,
    headers::framing::{self, FramingError},
    model::{
        ListenerKind, Settings,
        authorization::{Authorization, Mode, Rule},
        listener::{Inbound, Protocol},
    },
};
use outrider_certs::SpiffeId;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Whether a call may go to the own app: the rule that allows it, or what each rule misses
    ///
    /// The verdict is that of the sidecar that goes by this configuration: the listener's allow list, the spelling of the
    /// path, the rules under authorization. Exit code 0: the call passes; 1: it does not.
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "OUTRIDER_CONFIG")]
    config: PathBuf,
    /// Who calls: a SPIFFE ID
    #[arg(long, value_name = "ID")]
    from: SpiffeId,
    /// The app's port; may be left out where there is only one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The request's method; GET if left out
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// The request's path, as it is sent, with or without a query, which no rule looks at; / if left out
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Whom the request is for: host or host:port; or say it by a field host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A field of the request; may be given more than once
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<Field>,
    /// A call of gRPC, in the place of method and path
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with_all = ["method", "path"])]
    grpc: Option<String>,
    /// An opaque stream instead of a request
    #[arg(long, conflicts_with_all = ["method", "path", "host", "headers", "grpc"])]
    stream: bool,
}

/// A field of a request.
#[derive(Clone, Debug)]
struct Field(HeaderName, HeaderValue);

impl FromStr for Field {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once(':').ok_or_else(|| anyhow!("write it as name: value"))?;
        let name = HeaderName::from_bytes(name.as_bytes()).context("no name of a field")?;
        Ok(Self(name, HeaderValue::from_bytes(value.trim().as_bytes()).context("no value of a field")?))
    }
}

pub(super) fn run(command: &Policy) -> anyhow::Result<ExitCode> {
    let Policy::Explain(explain) = command;
    let settings = match config::load(&explain.config) {
        Ok(settings) => settings,
        Err(config::Error::Faults(faults)) => {
            bail!("{} has {} fault(s): outrider check names them", explain.config.display(), faults.len())
        }
        Err(error @ config::Error::Read(_)) => return Err(error.into()),
    };
    let (said, passes) = say(explain, &settings)?;
    io::stdout().write_all(said.as_bytes())?;
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Explain {
    /// Whether anything is said that only a request has.
    fn is_of_request(&self) -> bool {
        self.method.is_some()
            || self.path.is_some()
            || self.host.is_some()
            || self.grpc.is_some()
            || !self.headers.is_empty()
    }
}

/// What is said of the call, and whether it passes.
fn say(explain: &Explain, settings: &Settings) -> anyhow::Result<(String, bool)> {
    let (inbound, port) = inbound(settings, explain.port)?;
    if inbound.protocol == Protocol::Tcp && explain.is_of_request() {
        bail!("port {port} carries opaque streams (protocol: tcp): leave out what is said of a request");
    }
    let caller = &explain.from;
    let rules = settings.authorization.as_deref();
    if !inbound.allows(caller, &settings.bootstrap.trust_domain, rules) {
        let why = if inbound.allow.is_empty() {
            "it is no workload of the own trust domain, nor of one that a rule names"
        } else {
            "it is not on the list allow of that port"
        };
        return Ok((format!("denied: {caller} may not connect to port {port}: {why}\n"), false));
    }
    if explain.stream && inbound.protocol == Protocol::Http {
        let text = format!("denied: port {port} is for requests (protocol: http), not for opaque streams\n");
        return Ok((text, false));
    }
    if explain.stream || inbound.protocol == Protocol::Tcp {
        let verdict = authz::verdict(settings, inbound, caller, port, Asked::Stream);
        return Ok(told(settings, verdict, |rules| {
            misses(rules, |rule| authz::misfit(rule, caller, port, Asked::Stream))
        }));
    }
    let head = match request(explain)? {
        Ok(head) => head,
        Err(error) => {
            return Ok((format!("refused with 400: it is no target of a request: {error}\n"), false));
        }
    };
    Ok(judged(settings, inbound, (caller, port), &head).unwrap_or_else(|refused| (refused, false)))
}

/// What is said of a request of somebody who may connect, and whether it passes; or that it is refused before any rule is
/// looked at. The checks are those of [`framing`], in the order in which the sidecar makes them.
fn judged(
    settings: &Settings,
    inbound: &Inbound,
    (caller, port): (&SpiffeId, u16),
    head: &Parts,
) -> Result<(String, bool), String> {
    fn bad(error: impl Display) -> String {
        format!("refused with 400: {error}\n")
    }
    framing::check_request(head).map_err(bad)?;
    if head.method == Method::CONNECT {
        return Err("refused with 501: no peer gets a tunnel by CONNECT (a WebSocket is a GET)\n".to_owned());
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
    let (text, passes) = told(settings, verdict, |rules| match canonical::path(&path, rules.care(port)) {
        Ok(clear) => {
            let (method, fields) = (Request::method(&head.method), Fields::of(&head.headers, rules));
            let seen = Request { method, path: &clear, authority: &authority, fields: &fields };
            misses(rules, |rule| authz::misfit(rule, caller, port, Asked::Request(seen)))
        }
        Err(unclear) => format!("  the path is not clear: {unclear}; mode enforce refuses it with 400\n"),
    });
    let is_respelled = path != head.uri.path();
    let spelled = if is_respelled { format!("the app gets the path {path}\n") } else { String::new() };
    Ok((spelled + &text, passes))
}

/// The rules of the port, and the port.
fn inbound(settings: &Settings, port: Option<u16>) -> anyhow::Result<(&Inbound, u16)> {
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
            ([], None) => bail!("nobody can call: the configuration has no inbound listener"),
            _ => bail!("name the app's port by --port: there is more than one"),
        };
    };
    let of_port = known.iter().find(|(_, known)| *known == port).map(|(inbound, _)| *inbound);
    let found = of_port.or(others).ok_or_else(|| anyhow!("no listener leads to port {port} of the app"))?;
    Ok((found, port))
}

/// The request, as it is sent; or that it has no target that could be sent.
fn request(explain: &Explain) -> anyhow::Result<Result<Parts, InvalidUri>> {
    let mut headers = HeaderMap::new();
    for Field(name, value) in &explain.headers {
        headers.append(name, value.clone());
    }
    if let Some(host) = &explain.host {
        if canonical::authority(host).is_none() {
            bail!("{host:?} is not a host");
        }
        if headers.contains_key(HOST) {
            bail!("say whom it is for by --host or by a field host, not by both");
        }
        headers.insert(HOST, host.parse().context("not a host")?);
    }
    let (method, target) = match &explain.grpc {
        None => {
            (explain.method.clone().unwrap_or_default(), explain.path.as_deref().unwrap_or("/").to_owned())
        }
        Some(call) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
            (Method::POST, format!("/{}", call.trim_start_matches('/')))
        }
    };
    if target.contains('#') {
        bail!(
            "{target:?} has a #: clients keep what follows it to themselves; escape it as %23 if it is sent"
        );
    }
    let target = match PathAndQuery::try_from(target) {
        Ok(target) => target,
        Err(error) => return Ok(Err(error)),
    };
    let mut head = http::Request::new(()).into_parts().0;
    (head.method, head.uri, head.headers) = (method, target.into(), headers);
    Ok(Ok(head))
}

/// The verdict in words, and whether the call passes by it; `misses` says of rules that do not fit what they miss.
fn told(
    settings: &Settings,
    verdict: Option<Verdict<'_>>,
    misses: impl FnOnce(&Authorization) -> String,
) -> (String, bool) {
    let (Some(verdict), Some(rules)) = (verdict, settings.authorization.as_deref()) else {
        let text = "allowed: there is no authorization section, so whoever may connect may call\n";
        return (text.to_owned(), true);
    };
    if let Verdict::Allowed(rule) = verdict {
        return (format!("allowed by rule {}\n", rule.name), true);
    }
    let text = match (verdict.passes(), rules.mode()) {
        (true, _) => "audited: no rule fits, and it passes as mode is audit\n",
        (false, Mode::Audit) => "denied: no rule fits, and without rules the caller could not connect\n",
        (false, Mode::Enforce) => "denied: no rule fits\n",
    };
    (text.to_owned() + &misses(rules), verdict.passes())
}

/// What each rule misses, a line each.
fn misses<'a>(rules: &'a Authorization, misfit: impl Fn(&'a Rule) -> Option<Misfit<'a>>) -> String {
    if rules.rules().is_empty() {
        return "  there are no rules\n".to_owned();
    }
    let line = |rule: &'a Rule| {
        let why = misfit(rule).map_or_else(|| "fits".to_owned(), why);
        format!("  {}: {why}\n", rule.name)
    };
    rules.rules().iter().map(line).collect()
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
