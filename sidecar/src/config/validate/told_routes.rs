//! Routes that the controller says of a service, in the words of the file, by the same rules. They hold for that service and no
//! other, and lead to services of the controller.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
};

use serde_saphyr::Spanned;

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
    /// The clusters that they send requests to.
    pub(in crate::config) needed: BTreeSet<String>,
    /// The clusters that they send copies to.
    pub(in crate::config) copied: BTreeSet<String>,
}

impl ToldRoutes {
    fn named(&self) -> impl Iterator<Item = &str> {
        self.needed.iter().chain(&self.copied).map(String::as_str)
    }
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
    let mut told = ToldRoutes {
        service: ClusterName::new(service),
        routes: Vec::new(),
        needed: BTreeSet::new(),
        copied: BTreeSet::new(),
    };
    let mut table = RouteTable::default();
    for (index, text) in texts.iter().enumerate() {
        let place = place.item(index);
        let raw = bounded::<raw::HttpRoute>(text, &place)?;
        check_parent(&raw, service, &place, &mut faults);
        note_named(&raw, &mut told);
        let known: Vec<&str> = told.named().chain([service]).collect();
        if let Some(route) = http_routes::route(&raw, (&mut Vec::new(), &known), &place, &mut faults) {
            if table.routes.iter().any(|other| other.name == route.name) {
                let problem = format!("the name {} is that of another route", quoted(&route.name));
                faults.add(&place, problem, "give each its own");
            }
            http_routes::add(&mut table, route, &place, &mut faults);
        }
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
fn note_named(raw: &raw::HttpRoute, told: &mut ToldRoutes) {
    for rule in raw.rules.iter().flat_map(|list| &list.value).map(|rule| &rule.value) {
        let clusters = rule.clusters.iter().flat_map(|list| &list.value).map(|item| &item.value.name);
        told.needed.extend(clusters.flatten().map(|text| text.value.clone()));
        let mirrors = rule.mirror.iter().flat_map(|list| &list.value).map(|item| &item.value.cluster);
        told.copied.extend(mirrors.flatten().map(|text| text.value.clone()));
    }
}

/// A route without the copies that would go to what is not there.
fn without_lost_copies<'a>(raw: &'a raw::HttpRoute, there: &HashSet<String>) -> Cow<'a, raw::HttpRoute> {
    let is_lost = |mirror: &Spanned<raw::Mirror>| {
        mirror.value.cluster.as_ref().is_some_and(|cluster| !there.contains(&cluster.value))
    };
    let rules = |raw: &'a raw::HttpRoute| raw.rules.iter().flat_map(|list| &list.value);
    let mirrors = rules(raw).filter_map(|rule| rule.value.mirror.as_ref()).flat_map(|list| &list.value);
    if !mirrors.into_iter().any(is_lost) {
        return Cow::Borrowed(raw);
    }
    let mut raw = raw.clone();
    for rule in raw.rules.iter_mut().flat_map(|list| &mut list.value) {
        let Some(list) = &mut rule.value.mirror else { continue };
        list.value.retain(|mirror| !is_lost(mirror));
        if list.value.is_empty() {
            rule.value.mirror = None;
        }
    }
    Cow::Owned(raw)
}

/// Adds routes to settings in which every cluster is that they send requests to. Copies to others are left out.
pub(in crate::config) fn lead(settings: &mut Settings, told: &[&ToldRoutes]) {
    if told.iter().all(|told| told.routes.is_empty()) {
        return;
    }
    let redirect = ClusterName::redirect();
    let named: HashSet<&str> = told.iter().flat_map(|told| told.named()).chain([redirect.as_str()]).collect();
    let there: HashSet<String> =
        settings.clusters.iter().map(|cluster| cluster.name.as_str().to_owned()).collect();
    let led = settings.clusters.iter().filter(|cluster| named.contains(cluster.name.as_str()));
    let mut led: Vec<ClusterSettings> = led.map(|cluster| ClusterSettings::clone(cluster)).collect();
    let known: Vec<&str> =
        named.iter().copied().chain(told.iter().map(|told| told.service.as_str())).collect();
    let mut table = RouteTable::clone(&settings.routes);
    for told in told {
        for raw in &told.routes {
            // What is wrong with a route was told when it was read.
            let (place, mut faults) = (Place::root(), Faults::default());
            let raw = without_lost_copies(raw, &there);
            if let Some(route) = http_routes::route(&raw, (&mut led, &known), &place, &mut faults) {
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
