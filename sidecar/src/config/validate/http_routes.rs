//! `routes`: rules by which requests go to clusters, and what holds for them there.

use std::{cmp::Reverse, sync::Arc};

use serde_saphyr::Spanned;

use super::{
    edits::{self, Sections},
    intercept, matches,
    mirror::mirrors,
    policies,
    references::cluster_names,
    weighted,
};
use crate::{
    canonical,
    config::{
        raw,
        value::{distinct, name, required},
    },
    model::{
        cluster::{ClusterName, ClusterSettings},
        edits::Edits,
        file::{Faults, Place, quoted, report_odd_keys},
        policy::{Policy, Route, RouteMatch},
        route_table::{Candidate, HttpRoute, RouteTable, Rule, RuleList, Sticky},
        transport::{HttpVersion, PeerKind, Transport},
        weighted::{WeightedCluster, WeightedClusters},
    },
    route::matching::rank,
};

/// Routes of one file.
const MAX_ROUTES: usize = 1000;
/// Hosts of one route, and services.
const MAX_PARENTS: usize = 64;
/// Rules of one route.
const MAX_RULES: usize = 64;
/// Matches of one rule (Gateway API: 64).
const MAX_MATCHES: usize = 64;
/// Matches of one host or service, over all routes: a request is compared with one after the other.
const MAX_CANDIDATES: usize = 1024;

/// The table of all routes. What holds for the requests of each rule goes to the clusters that it names.
pub(super) fn routes(
    file: &raw::File,
    clusters: &mut Vec<ClusterSettings>,
    faults: &mut Faults,
) -> RouteTable {
    let mut table = RouteTable::default();
    let Some(list) = &file.routes else { return table };
    let place = Place::root().key("routes").at(list);
    if list.value.len() > MAX_ROUTES {
        faults.add(&place, format!("{} routes", list.value.len()), format!("keep to {MAX_ROUTES}"));
        return table;
    }
    let known = cluster_names(file);
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(route) = route(&item.value, (clusters, &known), &place, faults) else { continue };
        if table.routes.iter().any(|other| other.name == route.name) {
            let problem = format!("the name {} is that of another route", quoted(&route.name));
            faults.add(&place, problem, "give each its own");
        }
        add(&mut table, route, &place, faults);
    }
    let lists =
        table.hosts.values_mut().chain(table.wildcards.values_mut()).chain(table.services.values_mut());
    lists.for_each(most_specific_first);
    table
}

/// Brings matches in the order in which they are looked at; those that are equally specific keep theirs.
pub(super) fn most_specific_first(list: &mut RuleList) {
    list.sort_by_key(|candidate| Reverse(rank(&candidate.matches)));
}

/// Has its hosts and services lead to a route.
pub(super) fn add(table: &mut RouteTable, route: HttpRoute, place: &Place, faults: &mut Faults) {
    let candidates: Vec<Candidate> = route
        .rules
        .iter()
        .flat_map(|rule| {
            rule.matches
                .iter()
                .map(|matches| Candidate { matches: Arc::clone(matches), rule: Arc::clone(rule) })
        })
        .collect();
    let mut is_over = false;
    let mut extend = |list: &mut Vec<Candidate>| {
        list.extend(candidates.iter().cloned());
        is_over |= list.len() > MAX_CANDIDATES;
    };
    for host in &route.hosts {
        let (lists, key) = match host.strip_prefix("*.") {
            Some(rest) => (&mut table.wildcards, rest),
            None => (&mut table.hosts, host.as_str()),
        };
        extend(lists.entry(key.into()).or_default());
    }
    for service in &route.services {
        extend(table.services.entry(service.clone()).or_default());
    }
    if is_over {
        let remedy = format!("keep to {MAX_CANDIDATES}, over all routes");
        faults.add(place, "with it, one host or service has too many matches", remedy);
    }
    table.routes.push(route);
}

/// One route, whose rules lead to some of `clusters`; those of them that have rules already may have the same.
pub(super) fn route(
    raw: &raw::HttpRoute,
    (clusters, known): (&mut Vec<ClusterSettings>, &[&str]),
    place: &Place,
    faults: &mut Faults,
) -> Option<HttpRoute> {
    report_odd_keys(&raw.odd_keys, raw::HttpRoute::KEYS, place, faults);
    let name = required(raw.name.as_ref(), &place.key("name"), "name the route", faults);
    let name = name.map(|text| part_of_name(text, &place.key("name"), faults));
    let hosts = distinct(raw.hosts.as_ref(), MAX_PARENTS, &place.key("hosts"), faults, host);
    let services = distinct(
        raw.services.as_ref(),
        MAX_PARENTS,
        &place.key("services"),
        faults,
        |text, place, faults| {
            weighted::is_known(text, known, place, faults).then(|| ClusterName::new(&text.value))
        },
    );
    if raw.hosts.is_none() && raw.services.is_none() {
        faults.add(
            place,
            "is nobody's",
            "give hosts, or services (clusters whose requests go by it), or both",
        );
    }
    let rules_place = place.key("rules");
    let list = raw.rules.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
    let rules_place = raw.rules.as_ref().map_or_else(|| rules_place.clone(), |list| rules_place.at(list));
    if !(1..=MAX_RULES).contains(&list.len()) {
        faults.add(&rules_place, format!("has {} items", list.len()), format!("list 1 to {MAX_RULES} rules"));
        return None;
    }
    let mut rules: Vec<Arc<Rule>> = Vec::with_capacity(list.len());
    let name = name?;
    for (index, item) in list.iter().enumerate() {
        let place = rules_place.item(index).at(item);
        let Some(rule) = rule(&item.value, (&name, index), (clusters, known), &place, faults) else {
            continue;
        };
        if let Some(other) = rules.iter().find(|other| other.name == rule.name) {
            let problem = format!("the name {} is that of another rule here", quoted(&other.name));
            faults.add(&place, problem, "give each its own");
        }
        let is_double = |matches: &Arc<RouteMatch>| rules.iter().any(|other| other.matches.contains(matches));
        if let Some(double) = rule.matches.iter().position(is_double) {
            let problem = format!("what its match {double} matches, a rule above it matches already");
            faults.add(&place, problem, "make one of them: it would never be used");
        }
        rules.push(Arc::new(rule));
    }
    Some(HttpRoute { name, hosts, services, rules })
}

/// A name that may be a part of one: `route/rule`.
fn part_of_name(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> String {
    if text.value.contains('/') {
        let problem = format!("{} has a /", quoted(&text.value));
        faults.add(&place.at(text), problem, "leave it out: rules are called route/rule");
    }
    name(text, place, faults)
}

/// A canonical authority, or a wildcard for what is below one.
fn host(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<String> {
    let (star, authority) = match text.value.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text.value.as_str()),
    };
    let spelled = canonical::authority(authority).filter(|spelled| !spelled.contains('*'));
    let Some(spelled) = spelled.filter(|spelled| star.is_empty() || !spelled.starts_with('[')) else {
        let problem = format!("{} is not a host, or host:port", quoted(&text.value));
        let remedy =
            "write it as shop.example, shop.example:8080 or *.shop.example (a * stands for whole labels)";
        faults.add(place, problem, remedy);
        return None;
    };
    if *spelled != *authority {
        let problem = format!("{} is not how hosts are compared", quoted(&text.value));
        faults.add(place, problem, format!("write it as {star}{spelled}"));
        return None;
    }
    Some(text.value.clone())
}

fn rule(
    raw: &raw::Rule,
    (route, index): (&str, usize),
    (clusters, known): (&mut Vec<ClusterSettings>, &[&str]),
    place: &Place,
    faults: &mut Faults,
) -> Option<Rule> {
    report_odd_keys(&raw.odd_keys, raw::Rule::KEYS, place, faults);
    let part = match &raw.name {
        Some(text) => part_of_name(text, &place.key("name"), faults),
        None => index.to_string(),
    };
    let name: Arc<str> = format!("{route}/{part}").into();
    let matches = matches_of(raw, place, faults);
    let sticky = raw.sticky.as_ref().map(|section| sticky(section, &place.key("sticky").at(section), faults));
    let weighted = match (&raw.clusters, &raw.redirect) {
        (Some(list), None) => weighted::clusters(list, known, place, faults),
        (None, Some(_)) => nowhere(clusters),
        (Some(list), Some(_)) => {
            let place = place.key("clusters").at(list);
            faults.add(
                &place,
                "stands beside redirect",
                "keep one of them: what is sent elsewhere goes to none",
            );
            None
        }
        (None, None) => {
            let remedy = "name the clusters that its requests go to, or give redirect";
            faults.add(&place.key("clusters"), "is missing", remedy);
            None
        }
    };
    if let (Some(sticky), Some(_)) = (&raw.sticky, &raw.redirect) {
        let place = place.key("sticky").at(sticky);
        faults.add(&place, "has no meaning where the caller is sent elsewhere", "leave it out");
    }
    let names: Vec<ClusterName> = match &weighted {
        Some(weighted) => weighted.list().iter().map(|cluster| cluster.name.clone()).collect(),
        None => Vec::new(),
    };
    let places = lead(raw, (&name, &names), (clusters, known), place, faults);
    let sticky = match sticky {
        Some(sticky) => Some(sticky?),
        None => None,
    };
    Some(Rule { name, matches: matches?, clusters: weighted?, places, sticky })
}

/// What the requests of rules count for that send their callers elsewhere; it is made for the first of them.
fn nowhere(clusters: &mut Vec<ClusterSettings>) -> Option<WeightedClusters> {
    let name = ClusterName::redirect();
    if !clusters.iter().any(|cluster| cluster.name == name) {
        // Its requests are looked at as those of the mesh; none of them goes on.
        let transport = Transport::Mesh(PeerKind::Outrider, HttpVersion::Http2);
        clusters.push(ClusterSettings { name: name.clone(), transport, ..intercept::passthrough() });
    }
    WeightedClusters::new(vec![WeightedCluster { name, weight: 1 }])
}

/// Gives each of the clusters the route of a rule; its place there.
fn lead(
    raw: &raw::Rule,
    (name, clusters): (&Arc<str>, &[ClusterName]),
    (all, known): (&mut [ClusterSettings], &[&str]),
    place: &Place,
    faults: &mut Faults,
) -> Vec<usize> {
    let said = || policies::Said {
        request_timeout: raw.request_timeout.as_ref(),
        retry: raw.retry.as_ref(),
        rate_limits: raw.rate_limits.as_ref(),
        fault: raw.fault.as_ref(),
        edits: Sections {
            request: raw.request_headers.as_ref(),
            response: raw.response_headers.as_ref(),
            rewrite: raw.rewrite.as_ref(),
            has_prefix: raw
                .matches
                .as_ref()
                .is_some_and(|list| list.value.iter().all(|item| item.value.path_prefix.is_some())),
        },
        redirect: raw.redirect.as_ref(),
    };
    // Its faults are told once, whatever the clusters are.
    let policy = policies::of_route(&said(), &Policy::bare(), place, faults);
    mirrors(raw, (&policy, known), place, faults);
    let own = own_edits(raw, place, faults);
    let mut places = Vec::with_capacity(clusters.len());
    for (index, cluster) in clusters.iter().enumerate() {
        let Some(settings) = all.iter_mut().find(|settings| settings.name == *cluster) else { continue };
        if settings.routes.iter().any(|route| route.matches.is_some() && route.name == *name) {
            let problem = format!("{} is the name of a route of cluster {cluster}, too", quoted(name));
            faults.add(place, problem, "give one of them another name");
        }
        let mut told = Faults::default();
        let mut policy = policies::of_route(&said(), &settings.policy, place, &mut told);
        policy.mirrors = mirrors(raw, (&policy, known), place, &mut told);
        if let Some(own) = own.get(index).and_then(Option::as_deref) {
            let rules = policy.edits.as_deref().cloned().unwrap_or_default();
            policy.edits = Some(rules.then(own).into());
        }
        // One route of the cluster's with two Services as its parents is told with each of them.
        let is_same =
            |route: &Route| route.matches.is_none() && route.name == *name && *route.policy == policy;
        if let Some(place) = settings.routes.iter().position(is_same) {
            places.push(place);
            continue;
        }
        places.push(settings.routes.len());
        settings.routes.push(Route { name: Arc::clone(name), matches: None, policy: policy.into() });
    }
    places
}

/// What is changed only of what goes to one of the clusters, in the order of the list.
fn own_edits(raw: &raw::Rule, place: &Place, faults: &mut Faults) -> Vec<Option<Arc<Edits>>> {
    let Some(list) = &raw.clusters else { return Vec::new() };
    let place = place.key("clusters").at(list);
    let edits = |(index, item): (usize, &Spanned<raw::RuleCluster>)| {
        let (request, response) = (item.value.request_headers.as_ref(), item.value.response_headers.as_ref());
        let sections = Sections { request, response, rewrite: None, has_prefix: false };
        edits::edits(&sections, &place.item(index).at(item), faults)
    };
    list.value.iter().enumerate().map(edits).collect()
}

/// What a rule's requests are: any one of these. `None` if something is wrong.
fn matches_of(raw: &raw::Rule, place: &Place, faults: &mut Faults) -> Option<Vec<Arc<RouteMatch>>> {
    let Some(list) = &raw.matches else { return Some(vec![Arc::new(RouteMatch::ANY)]) };
    let place = place.key("matches").at(list);
    if !(1..=MAX_MATCHES).contains(&list.value.len()) {
        let problem = format!("has {} items", list.value.len());
        let remedy = format!("list 1 to {MAX_MATCHES}, or leave the key out: it matches everything then");
        faults.add(&place, problem, remedy);
        return None;
    }
    let mut found: Vec<Arc<RouteMatch>> = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let (place, raw) = (place.item(index).at(item), &item.value);
        report_odd_keys(&raw.odd_keys, raw::Match::KEYS, &place, faults);
        let keys = matches::Keys::from(raw);
        if keys.is_empty() && raw.odd_keys.is_empty() {
            let remedy = "say what requests must be, or leave matches out: it matches everything then";
            faults.add(&place, "matches every request", remedy);
        }
        let matches = matches::read(keys, &place, faults)?;
        if found.iter().any(|other| **other == matches) {
            faults.add(&place, "stands here twice", "list each once");
        }
        found.push(Arc::new(matches));
    }
    Some(found)
}

fn sticky(raw: &Spanned<raw::Sticky>, place: &Place, faults: &mut Faults) -> Option<Sticky> {
    report_odd_keys(&raw.value.odd_keys, raw::Sticky::KEYS, place, faults);
    match (&raw.value.header, &raw.value.cookie) {
        (Some(text), None) => {
            matches::field_name(Some(text), &place.key("header"), faults).map(Sticky::Header)
        }
        (None, Some(text)) if matches::is_cookie(&text.value) => {
            Some(Sticky::Cookie(text.value.as_str().into()))
        }
        (None, Some(text)) => {
            let problem = format!("{} is not the name of a cookie", quoted(&text.value));
            faults.add(&place.key("cookie").at(text), problem, "write it as requests have it");
            None
        }
        (None, None) => {
            if raw.value.odd_keys.is_empty() {
                faults.add(place, "names nothing", "give header or cookie");
            }
            None
        }
        (Some(_), Some(text)) => {
            faults.add(&place.key("cookie").at(text), "stands beside header", "keep one of them");
            None
        }
    }
}
