//! `outrider check`: every fault, or one screen about what the configuration says.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use outrider::{
    config,
    model::{
        ClusterName, ClusterSettings, Listener, ListenerKind, Settings,
        authorization::{Authorization, Mode},
        cluster::EndpointSource,
        dns::DnsRecords,
        federation::Profile,
        intercept::Unknown,
        listener::Inbound,
        proxy_protocol::ProxyProtocol,
        route_table::HttpRoute,
        settings::{CaProof, IdentitySource},
        tcp_route::TcpRoute,
        telemetry::{FieldValue, Logged, TelemetrySettings},
        transport::{Roots, Transport},
    },
};

use super::exceptions::exceptions;

/// Clusters and listeners shown by name; the rest is counted.
const MAX_SHOWN: usize = 12;

pub(super) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    match config::load(path) {
        Ok(settings) => {
            io::stdout().write_all(summary(path, &settings).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(config::Error::Faults(faults)) => {
            let mut text = format!("{}: {} fault(s)\n", path.display(), faults.len());
            for fault in &faults {
                text.push_str(&format!("{fault}\n"));
            }
            io::stderr().write_all(text.as_bytes())?;
            Ok(ExitCode::FAILURE)
        }
        Err(error @ config::Error::Read(_)) => Err(error.into()),
    }
}

fn summary(path: &Path, settings: &Settings) -> String {
    let bootstrap = &settings.bootstrap;
    let mut text = format!(
        "{} is sound.\n\nservice {} in trust domain {}, {} worker(s), identity from {}\n",
        path.display(),
        bootstrap.service,
        bootstrap.trust_domain,
        bootstrap.workers,
        identity(&bootstrap.identity),
    );
    let clusters: Vec<&ClusterSettings> = settings.clusters.iter().map(AsRef::as_ref).collect();
    let outward: Vec<String> = clusters
        .iter()
        .filter(|cluster| cluster.transport != Transport::App && cluster.name != ClusterName::redirect())
        .map(|cluster| {
            format!("{}: {}{}", cluster.name, source(&cluster.source), outside(&cluster.transport))
        })
        .collect();
    let listeners: Vec<String> =
        settings.listeners.iter().map(|item| listener(item, settings, &clusters)).collect();
    section(&mut text, "listeners", &listeners);
    if let Some(rules) = &settings.authorization {
        section(&mut text, "authorization", &authorization(rules));
    }
    let exceptions = exceptions(settings);
    if !exceptions.is_empty() {
        section(&mut text, "past mutual TLS, and past authorization", &exceptions);
    }
    section(&mut text, "clusters", &outward);
    if !settings.federation.is_empty() {
        let domains = settings.federation.iter();
        let domains = domains.map(|domain| format!("{} from {}", domain.trust_domain, domain.source()));
        section(&mut text, "federated trust domains", &domains.collect::<Vec<_>>());
    }
    let routes: Vec<String> = settings.routes.routes.iter().map(route).collect();
    let tcp_routes: Vec<String> = settings.tcp_routes.0.iter().map(tcp_route).collect();
    for (title, routes) in [("routes", routes), ("routes of opaque streams", tcp_routes)] {
        if !routes.is_empty() {
            section(&mut text, title, &routes);
        }
    }
    section(&mut text, "telemetry", &telemetry(&settings.telemetry));
    if !settings.telemetry.warnings.is_empty() {
        section(&mut text, "warnings", &settings.telemetry.warnings);
    }
    let missing = missing_files(settings);
    if !missing.is_empty() {
        section(&mut text, "not there yet", &missing);
    }
    text
}

/// Whose requests go by it, and to which clusters.
fn route(route: &HttpRoute) -> String {
    let services = route.services.iter().map(|service| format!("service {service}"));
    let parents = few(&route.hosts.iter().cloned().chain(services).collect::<Vec<_>>());
    let mut clusters: Vec<&str> = Vec::new();
    let listed = route.rules.iter().flat_map(|rule| rule.clusters.list());
    for cluster in listed.map(|cluster| &cluster.name).filter(|name| **name != ClusterName::redirect()) {
        if !clusters.contains(&cluster.as_str()) {
            clusters.push(cluster.as_str());
        }
    }
    let to = if clusters.is_empty() { "elsewhere".to_owned() } else { clusters.join(", ") };
    let matches: usize = route.rules.iter().map(|rule| rule.matches.len()).sum();
    let rules = route.rules.len();
    format!("{} of {parents}: {rules} rule(s) with {matches} match(es), to {to}", route.name)
}

/// Which opaque streams go by it, and to which clusters.
fn tcp_route(route: &TcpRoute) -> String {
    let services = route.services.iter().map(|service| format!("service {service}"));
    let ports = route.ports.iter().map(|port| format!("port {port}"));
    let names = route.snis.iter().map(|name| format!("TLS for {name}"));
    let kinds = [services.collect::<Vec<_>>(), ports.collect(), names.collect()];
    let kinds: Vec<String> = kinds.iter().filter(|kind| !kind.is_empty()).map(|kind| few(kind)).collect();
    let clusters: Vec<&str> = route.clusters.list().iter().map(|cluster| cluster.name.as_str()).collect();
    format!("{} of {}: to {}", route.name, kinds.join("; "), clusters.join(", "))
}

/// A list that fits a line.
pub(super) fn few(all: &[String]) -> String {
    match all {
        [first, second, rest @ ..] if rest.len() > 1 => {
            format!("{first}, {second} and {} more", rest.len())
        }
        all => all.join(", "),
    }
}

/// Who says whose connections come in here, and whether the own app is told the same way.
fn proxied(listener: &Listener) -> String {
    let by = |rules: &ProxyProtocol| few(&rules.from.iter().map(ToString::to_string).collect::<Vec<_>>());
    let told =
        |inbound: &Inbound| if inbound.app_proxy_protocol.is_some() { ", told to the app" } else { "" };
    let of = |rules: Option<&Arc<ProxyProtocol>>, told: &str| match rules {
        Some(rules) => format!("; PROXY protocol by {}{told}", by(rules)),
        None if told.is_empty() => String::new(),
        None => format!("; PROXY protocol{told}"),
    };
    match &listener.kind {
        ListenerKind::Inbound(inbound) => of(inbound.proxy_protocol.as_ref(), told(inbound)),
        ListenerKind::InterceptedInbound(intercepted) => {
            let others = std::iter::once(&intercepted.others);
            let all = intercepted.ports.values().chain(others);
            let ports =
                all.filter(|rules| !of(rules.proxy_protocol.as_ref(), told(rules)).is_empty()).count();
            if ports == 0 { String::new() } else { format!("; {ports} with the PROXY protocol") }
        }
        ListenerKind::OutboundHttp { .. }
        | ListenerKind::OutboundTcp { .. }
        | ListenerKind::InterceptedOutbound { .. } => of(listener.proxy_protocol.as_ref(), ""),
    }
}

/// What is worth knowing of a cluster that leads out of the mesh.
fn outside(transport: &Transport) -> String {
    match transport {
        Transport::Mesh(..) | Transport::App => String::new(),
        Transport::Public(public) => format!(", by TLS to {} outside the mesh", public.server_name),
        Transport::Plain(_) => ", NOT ENCRYPTED, outside the mesh".to_owned(),
    }
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    // Writing to a `String` does not fail.
    let _infallible = write!(text, "\n{title}: {}\n", lines.len());
    for line in lines.iter().take(MAX_SHOWN) {
        text.push_str(&format!("  {line}\n"));
    }
    if lines.len() > MAX_SHOWN {
        text.push_str(&format!("  and {} more\n", lines.len() - MAX_SHOWN));
    }
}

fn identity(source: &IdentitySource) -> String {
    match source {
        IdentitySource::Ca { address, .. } => format!("the CA at {address}"),
        IdentitySource::File { certificate, .. } => certificate.display().to_string(),
    }
}

fn listener(listener: &Listener, settings: &Settings, clusters: &[&ClusterSettings]) -> String {
    let target = match &listener.kind {
        ListenerKind::OutboundHttp { default_cluster: None } => "http, by authority".to_owned(),
        ListenerKind::OutboundHttp { default_cluster: Some(name) } => {
            format!("http, by authority, else to {name}")
        }
        ListenerKind::OutboundTcp { cluster } => format!("tcp to {cluster}"),
        ListenerKind::InterceptedOutbound { unknown: Unknown::Passthrough } => {
            "intercepted, by destination and authority; unknown ones pass through".to_owned()
        }
        ListenerKind::InterceptedOutbound { unknown: Unknown::Deny } => {
            "intercepted, by destination and authority; unknown ones are refused".to_owned()
        }
        ListenerKind::InterceptedInbound(intercepted) => match intercepted.ports.len() {
            0 => "intercepted, every port alike".to_owned(),
            count => format!("intercepted, {count} port(s) with rules of their own"),
        },
        ListenerKind::Inbound(inbound) => {
            let app = clusters.iter().find(|cluster| cluster.name == inbound.app);
            let app = app.map_or_else(String::new, |cluster| source(&cluster.source));
            let allowed = match inbound.allow.len() {
                0 => match &settings.authorization {
                    None => "any workload of the trust domain".to_owned(),
                    Some(_) => "any workload of the trust domain, and of those that rules name".to_owned(),
                },
                count => format!("{count} SPIFFE ID(s)"),
            };
            format!("app at {app}, from {allowed}")
        }
    };
    let direction = if listener.is_inbound() { "inbound" } else { "outbound" };
    format!("{direction} {} on {}: {target}{}", listener.name, listener.address, proxied(listener))
}

/// Every rule, a line each, and what becomes of what none fits.
fn authorization(rules: &Authorization) -> Vec<String> {
    let otherwise = match rules.mode() {
        Mode::Enforce => "what no rule allows is denied",
        Mode::Audit => "AUDIT: what no rule allows passes, and is told",
    };
    let rules = rules.rules().iter().map(|rule| {
        let asked = if rule.http.is_some() { "some requests" } else { "everything" };
        let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
        let ports = if ports.is_empty() { String::new() } else { format!(" to port {}", ports.join(", ")) };
        format!("{}: {asked}{ports}", rule.name)
    });
    [otherwise.to_owned()].into_iter().chain(rules).collect()
}

/// What leaves the process, a line each.
fn telemetry(telemetry: &TelemetrySettings) -> Vec<String> {
    let traces = telemetry.traces.iter().map(|traces| {
        let percent = f64::from(traces.sampled_of_million) / 10_000.0;
        format!("traces to {}, {percent} % of those that begin here", traces.export.endpoint)
    });
    let metrics = telemetry.metrics.iter().map(|metrics| {
        let interval = humantime::format_duration(metrics.interval);
        format!("metrics to {}, every {interval}", metrics.export.endpoint)
    });
    let access_log = telemetry.access_log.iter().map(|log| {
        let of = match log.of {
            Logged::All => "all requests",
            Logged::Errors => "requests that fail",
        };
        let to = log.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
        format!("a record of {of} to {to}")
    });
    traces.chain(metrics).chain(access_log).collect()
}

fn source(source: &EndpointSource) -> String {
    match source {
        EndpointSource::Static(endpoints) => match endpoints.as_slice() {
            [only] => only.address.to_string(),
            several => format!("{} endpoints", several.len()),
        },
        EndpointSource::File { path, .. } => format!("endpoints in {}", path.display()),
        EndpointSource::Dns(dns) => match dns.records {
            DnsRecords::Addresses { port, .. } => format!("{} port {port}, by DNS", dns.name),
            DnsRecords::Services => format!("{}, by DNS (SRV)", dns.name),
        },
        EndpointSource::Controller(_) => "endpoints by the controller".to_owned(),
    }
}

/// Files that something else may still write: no fault, but worth knowing.
fn missing_files(settings: &Settings) -> Vec<String> {
    let endpoints = settings.clusters.iter().filter_map(|cluster| match &cluster.source {
        EndpointSource::File { path, .. } => Some(path),
        EndpointSource::Static(_) | EndpointSource::Dns(_) | EndpointSource::Controller(_) => None,
    });
    let identity = match &settings.bootstrap.identity {
        IdentitySource::Ca { proof: CaProof::JoinToken { file }, .. } => file.iter().collect::<Vec<_>>(),
        IdentitySource::Ca { proof: CaProof::ServiceAccount { token_file, bundle_file }, .. } => {
            vec![token_file, bundle_file]
        }
        IdentitySource::File { certificate, key, bundle } => vec![certificate, key, bundle],
    };
    let public = settings.clusters.iter().filter_map(|cluster| match &cluster.transport {
        Transport::Public(public) => Some(public),
        Transport::Mesh(..) | Transport::Plain(_) | Transport::App => None,
    });
    let public = public.flat_map(|public| {
        let roots = match &public.roots {
            Roots::System => None,
            Roots::File(path) => Some(path),
        };
        let client = public.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        roots.into_iter().chain(client)
    });
    let federated = settings.federation.iter().flat_map(|domain| {
        let roots = domain.endpoint.iter().filter_map(|endpoint| match &endpoint.profile {
            Profile::Web(Roots::File(path)) => Some(path),
            Profile::Web(Roots::System) | Profile::Spiffe(_) => None,
        });
        domain.bundle_file.iter().chain(roots)
    });
    let telemetry = &settings.telemetry;
    let traces = telemetry.traces.iter().map(|traces| &traces.export);
    let exports = traces.chain(telemetry.metrics.iter().map(|metrics| &metrics.export));
    let exports = exports.flat_map(|export| {
        let values = export.headers.iter().filter_map(|(_, value)| match value {
            FieldValue::File(path) => Some(path),
            FieldValue::Given(_) => None,
        });
        let client = export.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        values.chain(export.roots.iter()).chain(client)
    });
    let all = identity.into_iter().chain(federated).chain(endpoints).chain(public).chain(exports);
    all.filter(|path| !path.exists()).map(|path| path.display().to_string()).collect()
}
