//! From the file as it stands to [`Settings`]: gives it meaning and names every fault.

mod authorization;
mod balance;
mod bootstrap;
mod clusters;
mod controller;
mod dns;
mod edits;
mod fault;
mod federation;
mod fragments;
mod health_check;
mod http_routes;
mod intercept;
mod listeners;
mod matches;
mod mirror;
mod outlier;
mod own_app;
mod policies;
mod probes;
mod proxy_protocol;
mod rate_limit;
mod references;
mod retry;
mod routes;
mod tcp_routes;
mod telemetry;
mod together;
mod told_routes;
mod transport;
mod weighted;
mod workload;

use std::{path::Path, sync::Arc};

use super::{Environment, Fault, Settings, otel::Otel, raw};
use crate::model::{
    dns::ResolverSettings,
    file::{Faults, Place, report_odd_keys, validate_zone},
};

pub(super) use fragments::fragment;
pub(super) use telemetry::{MAX_ATTRIBUTES, MAX_HEADERS, export_field, is_attribute};
pub(super) use told_routes::{ToldRoutes, lead, told_routes};
pub(super) use workload::{inbound, rules};

/// Clusters of one file.
const MAX_CLUSTERS: usize = 10_000;
/// Listeners of one file, each direction.
const MAX_LISTENERS: usize = 256;

/// Checks a file, with what the environment adds to it. Relative paths start at `folder`.
pub(super) fn settings(
    file: &raw::File,
    folder: &Path,
    environment: &Environment,
) -> Result<Settings, Vec<Fault>> {
    let root = Place::root();
    let mut faults = Faults::default();
    report_odd_keys(&file.odd_keys, raw::File::KEYS, &root, &mut faults);

    let bootstrap = bootstrap::bootstrap(file, folder, &mut faults);
    let zone = file.zone.as_ref().and_then(|zone| validate_zone(zone, &root.key("zone"), &mut faults));
    let drain = bootstrap::drain(file.drain.as_ref(), &mut faults);
    let limits = bootstrap::limits(file.limits.as_ref(), &mut faults);
    let inbound = listeners::inbound(file, &mut faults);
    let outbound = listeners::outbound(file, &mut faults);
    let intercept = intercept::intercept(file, &mut faults);
    let controller = controller::controller(
        file.controller.as_ref(),
        file.trust_domain.as_ref(),
        environment,
        &mut faults,
    );
    let mark = intercept.as_ref().and_then(|intercept| intercept.settings.own.mark());
    let kinds = inbound.iter().map(|(listener, _)| listener);
    let kinds = kinds.chain(intercept.iter().flat_map(|intercept| &intercept.listeners));
    let authorization = authorization::authorization(file, kinds, &mut faults);
    let resolver = dns::resolver(file.dns.as_ref(), mark, &mut faults);
    let around = dns::Surroundings { folder, resolver, told: None };
    let mut clusters = clusters::clusters(file, &around, &mut faults);
    let routes = http_routes::routes(file, &mut clusters, &mut faults);
    let service = file.service.as_ref().map_or("", |service| &service.value);
    let otel = Otel::read(environment);
    let forwarded = edits::forwarded(file.forwarded.as_ref(), &mut faults);
    let telemetry = telemetry::telemetry(file.telemetry.as_ref(), service, folder, otel, &mut faults);
    check_listeners(file, &mut faults);
    let federation = federation::federation(file, folder, &mut faults);
    let probes = probes::probes(file, &mut faults);
    let tcp_routes = tcp_routes::tcp_routes(file, &mut faults);
    references::check(file, &mut faults);

    match bootstrap {
        Some(mut bootstrap) if faults.is_empty() => {
            bootstrap.controller = controller.map(Arc::new);
            let (mut listeners, mut all): (Vec<_>, Vec<_>) = inbound.into_iter().unzip();
            listeners.extend(outbound);
            if let Some(intercept) = intercept {
                bootstrap.intercept = Some(intercept.settings);
                listeners.extend(intercept.listeners);
                all.extend(intercept.clusters);
            }
            all.extend(clusters);
            Ok(Settings {
                bootstrap,
                zone,
                resolver: around.resolver,
                drain,
                limits: Arc::new(limits),
                forwarded,
                telemetry: Arc::new(telemetry),
                authorization: authorization.map(Arc::new),
                federation: federation.into(),
                probes: probes.into(),
                listeners: listeners.into_iter().map(Arc::new).collect(),
                clusters: all.into_iter().map(Arc::new).collect(),
                tcp_routes: Arc::new(tcp_routes),
                routes: Arc::new(routes),
            })
        }
        Some(_) | None => Err(faults.into_vec()),
    }
}

/// Whom to ask for names where nothing is said of it.
pub(super) fn resolver_by_default() -> Arc<ResolverSettings> {
    dns::resolver(None, None, &mut Faults::default())
}

/// Something must come in.
fn check_listeners(file: &raw::File, faults: &mut Faults) {
    if file.inbound.as_ref().is_none_or(|list| list.value.is_empty())
        && file.outbound.as_ref().is_none_or(|list| list.value.is_empty())
        && file.intercept.is_none()
    {
        faults.add(
            &Place::root(),
            "no listeners",
            "give at least one under inbound or outbound, or intercept",
        );
    }
}
