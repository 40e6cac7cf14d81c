//! `outrider check`: every fault, or one screen about what the configuration says.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use outrider::{
    config,
    model::{
        ClusterSettings, Listener, ListenerKind, Settings,
        cluster::EndpointSource,
        dns::DnsRecords,
        intercept::Unknown,
        settings::IdentitySource,
        transport::{Roots, Transport},
    },
};

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
        .filter(|cluster| cluster.transport != Transport::App)
        .map(|cluster| {
            format!("{}: {}{}", cluster.name, source(&cluster.source), outside(&cluster.transport))
        })
        .collect();
    let listeners: Vec<String> = settings.listeners.iter().map(|item| listener(item, &clusters)).collect();
    section(&mut text, "listeners", &listeners);
    section(&mut text, "clusters", &outward);
    let missing = missing_files(settings);
    if !missing.is_empty() {
        section(&mut text, "not there yet", &missing);
    }
    text
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

fn listener(listener: &Listener, clusters: &[&ClusterSettings]) -> String {
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
                0 => "any workload of the trust domain".to_owned(),
                count => format!("{count} SPIFFE ID(s)"),
            };
            format!("app at {app}, from {allowed}")
        }
    };
    let direction = if listener.is_inbound() { "inbound" } else { "outbound" };
    format!("{direction} {} on {}: {target}", listener.name, listener.address)
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
    }
}

/// Files that something else may still write: no fault, but worth knowing.
fn missing_files(settings: &Settings) -> Vec<String> {
    let endpoints = settings.clusters.iter().filter_map(|cluster| match &cluster.source {
        EndpointSource::File { path, .. } => Some(path),
        EndpointSource::Static(_) | EndpointSource::Dns(_) => None,
    });
    let identity = match &settings.bootstrap.identity {
        IdentitySource::Ca { join_token_file, .. } => join_token_file.iter().collect::<Vec<_>>(),
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
    let all = identity.into_iter().chain(endpoints).chain(public);
    all.filter(|path| !path.exists()).map(|path| path.display().to_string()).collect()
}
