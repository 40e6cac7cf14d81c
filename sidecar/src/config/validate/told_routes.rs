//! Routes that the controller says of a service, in the words of the file, by the same rules. They hold for that service and no
//! other, and lead to services of the controller.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{fragments::bounded, http_routes};
use crate::{
    config::{Fault, Settings, raw},
    model::{
        ClusterName, ClusterSettings,
        controller::{MAX_ROUTES, MAX_ROUTES_BYTES},
        file::{Faults, Place, quoted},
        route_table::RouteTable,
    },
};

/// The routes of one service, each sound for itself.
#[derive(Clone, Debug)]
pub(in crate::config) struct ToldRoutes {
    service: ClusterName,
    routes: Vec<raw::HttpRoute>,
    /// The clusters that they lead to.
    pub(in crate::config) named: BTreeSet<String>,
}

/// Reads the routes of a service; `None`: there are more than are taken.
pub(in crate::config) fn told_routes(
    service: &str,
    texts: Option<&[Box<str>]>,
) -> Result<ToldRoutes, Vec<Fault>> {
    let place = Place::root().key(&format!("controller.services[{service}]")).key("routes");
    let mut faults = Faults::default();
    let Some(texts) = texts else {
        let most = format!("keep to {MAX_ROUTES} routes and {} KiB", MAX_ROUTES_BYTES / 1024);
        faults.add(&place, "are more than are taken", most);
        return Err(faults.into_vec());
    };
    let mut told =
        ToldRoutes { service: ClusterName::new(service), routes: Vec::new(), named: BTreeSet::new() };
    let mut table = RouteTable::default();
    for (index, text) in texts.iter().enumerate() {
        let place = place.item(index);
        let raw = bounded::<raw::HttpRoute>(text, &place)?;
        check_parent(&raw, service, &place, &mut faults);
        let named = named(&raw);
        let known: Vec<&str> = named.iter().map(String::as_str).chain([service]).collect();
        if let Some(route) = http_routes::route(&raw, (&mut Vec::new(), &known), &place, &mut faults) {
            if table.routes.iter().any(|other| other.name == route.name) {
                let problem = format!("the name {} is that of another route", quoted(&route.name));
                faults.add(&place, problem, "give each its own");
            }
            http_routes::add(&mut table, route, &place, &mut faults);
        }
        told.named.extend(named);
        told.routes.push(raw);
    }
    if faults.is_empty() { Ok(told) } else { Err(faults.into_vec()) }
}

/// What is said of one service holds for its requests and for nobody else's.
fn check_parent(raw: &raw::HttpRoute, service: &str, place: &Place, faults: &mut Faults) {
    if let Some(hosts) = &raw.hosts {
        let remedy = "leave it out of what the controller says";
        faults.add(&place.key("hosts").at(hosts), "is for the file only", remedy);
    }
    let services = raw.services.iter().flat_map(|list| &list.value);
    if !services.map(|text| text.value.as_str()).eq([service]) {
        let problem = format!("is not {} alone", quoted(service));
        faults.add(&place.key("services"), problem, "name the service that the route came with");
    }
}

/// The clusters that its rules name.
fn named(raw: &raw::HttpRoute) -> BTreeSet<String> {
    let rules = raw.rules.iter().flat_map(|list| &list.value);
    let mut named = BTreeSet::new();
    for rule in rules.map(|rule| &rule.value) {
        let clusters = rule.clusters.iter().flat_map(|list| &list.value).map(|item| &item.value.name);
        let mirrors = rule.mirror.iter().flat_map(|list| &list.value).map(|item| &item.value.cluster);
        named.extend(clusters.chain(mirrors).flatten().map(|text| text.value.clone()));
    }
    named
}

/// Adds routes to settings in which every cluster is that they name.
pub(in crate::config) fn lead(settings: &mut Settings, told: &[&ToldRoutes]) {
    if told.iter().all(|told| told.routes.is_empty()) {
        return;
    }
    let redirect = ClusterName::redirect();
    let named: HashSet<&str> =
        told.iter().flat_map(|told| &told.named).map(String::as_str).chain([redirect.as_str()]).collect();
    let led = settings.clusters.iter().filter(|cluster| named.contains(cluster.name.as_str()));
    let mut led: Vec<ClusterSettings> = led.map(|cluster| ClusterSettings::clone(cluster)).collect();
    let known: Vec<&str> =
        named.iter().copied().chain(told.iter().map(|told| told.service.as_str())).collect();
    let mut table = RouteTable::clone(&settings.routes);
    for told in told {
        for raw in &told.routes {
            // What is wrong with a route was told when it was read.
            let (place, mut faults) = (Place::root(), Faults::default());
            if let Some(route) = http_routes::route(raw, (&mut led, &known), &place, &mut faults) {
                http_routes::add(&mut table, route, &place, &mut faults);
            }
        }
        table.services.get_mut(&told.service).into_iter().for_each(http_routes::most_specific_first);
    }
    settings.routes = table.into();
    let mut led: HashMap<ClusterName, ClusterSettings> =
        led.into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect();
    for cluster in &mut settings.clusters {
        if let Some(led) = led.remove(&cluster.name) {
            *cluster = led.into();
        }
    }
    settings.clusters.extend(led.into_values().map(Into::into));
}
