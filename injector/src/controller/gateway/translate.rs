//! What is told of the routes of a Service: entries of `routes[]` of a sidecar's file.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{
    attached,
    route::{Backend, Mirror, Problem, Route, RouteKey, Rule, To},
};
use crate::controller::model::{
    cluster::{Cluster, Part},
    objects::{Name, ObjectKey, Protocol, Reach},
    resolve::Target,
    value::{REFUSAL, fitting, service_name},
};

/// Largest weight of a cluster in a rule.
const MAX_WEIGHT: u64 = 1_000_000;

/// What is told of the routes that hold for a port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Entries of `routes[]`, as JSON.
    pub routes: Vec<Arc<str>>,
    /// What they send requests to, but for the Service itself.
    pub needs: Vec<Target>,
    /// What was looked at.
    pub parts: Vec<Part>,
}

/// What is told of the routes of `namespace` for this port of a Service.
#[must_use]
pub fn routing(cluster: &Cluster, service: &ObjectKey, port: u16, namespace: &Name) -> Routing {
    let mut routing = Routing { parts: vec![Part::Routes(service.clone())], ..Routing::default() };
    let found =
        cluster.service(service).and_then(|found| found.ports.iter().find(|known| known.port == port));
    let Some(known) = found else { return routing };
    let own = Target::Service(service.clone(), port);
    for (key, route) in attached::sorted(cluster.book(), service, known, namespace).taken {
        let rules: Vec<Json> = route
            .rules
            .iter()
            .filter_map(|rule| entry(cluster, (key, service), rule, &mut routing))
            .collect();
        let name = fitting(format!("{}.{}", key.key.name, key.key.namespace));
        let entry = json!({"name": name, "services": [service_name(service, port)], "rules": rules});
        routing.routes.push(entry.to_string().into());
    }
    routing.needs.retain(|target| *target != own);
    routing.needs.sort();
    routing.needs.dedup();
    routing.parts.sort();
    routing.parts.dedup();
    routing
}

fn entry(
    cluster: &Cluster,
    (key, parent): (&RouteKey, &ObjectKey),
    rule: &Rule,
    to: &mut Routing,
) -> Option<Json> {
    let mut words: Map<String, Json> = rule.words.clone()?;
    let copies = copies(cluster, (key, parent), rule, to);
    if !copies.is_empty() {
        words.insert("mirror".to_owned(), Json::Array(copies));
    }
    let backends = match &rule.to {
        To::Elsewhere => return Some(Json::Object(words)),
        To::Backends(backends) => backends.as_slice(),
        To::Nobody => &[],
    };
    let none = Map::new();
    let mut shares: Vec<(Target, u64, &Map<String, Json>)> = Vec::with_capacity(backends.len());
    for backend in backends {
        let resolved = meant(cluster, (key, parent), backend, to);
        // Of two that are the same the changes are the same, and of those that are refused there are none.
        let edits = if resolved.is_ok() { &backend.edits } else { &none };
        let target = resolved.unwrap_or(Target::Refusal);
        match shares.iter_mut().find(|(known, ..)| *known == target) {
            Some((_, weight, _)) => *weight += u64::from(backend.weight),
            None => shares.push((target, u64::from(backend.weight), edits)),
        }
    }
    if shares.iter().all(|(_, weight, _)| *weight == 0) {
        shares = vec![(Target::Refusal, 1, &none)];
    }
    let largest = shares.iter().map(|(_, weight, _)| *weight).max().unwrap_or(1);
    // Shares of one cluster that were summed up may be more than one may have: all become smaller alike.
    let divisor = largest.div_ceil(MAX_WEIGHT).max(1);
    let clusters = shares.iter().map(|(target, weight, edits)| {
        let mut words = Map::clone(edits);
        words.insert("name".to_owned(), json!(name_of(target)));
        words.insert("weight".to_owned(), json!(weight.div_ceil(divisor)));
        Json::Object(words)
    });
    words.insert("clusters".to_owned(), clusters.collect());
    to.needs.extend(shares.into_iter().map(|(target, ..)| target));
    Some(Json::Object(words))
}

/// Where copies of a rule's requests go. A Service that is not there, or may not be meant, gets none, and the requests go on.
fn copies(
    cluster: &Cluster,
    (key, parent): (&RouteKey, &ObjectKey),
    rule: &Rule,
    to: &mut Routing,
) -> Vec<Json> {
    let mut copies = Vec::with_capacity(rule.mirrors.len());
    for Mirror { backend, of_million } in &rule.mirrors {
        if let Ok(target) = meant(cluster, (key, parent), backend, to) {
            let percent = format!("{}.{:04}", of_million / 10_000, of_million % 10_000);
            copies.push(json!({"cluster": name_of(&target), "percent": percent}));
            to.needs.push(target);
        }
    }
    copies
}

/// What a backend stands for, on which the routing depends whether it is there or not.
fn meant(
    cluster: &Cluster,
    of: (&RouteKey, &ObjectKey),
    backend: &Backend,
    to: &mut Routing,
) -> Result<Target, Problem> {
    if let Ok((service, _)) = &backend.service {
        to.parts.push(Part::Ports(service.clone()));
    }
    resolve(cluster, of, backend)
}

fn name_of(target: &Target) -> String {
    match target {
        Target::Service(key, port) => service_name(key, *port),
        // Nothing else comes of a backend.
        Target::Refusal | Target::Host(..) | Target::Pod(..) | Target::External(..) => REFUSAL.to_owned(),
    }
}

/// What a backend of a route stands for, of which `parent` is a parent.
///
/// # Errors
/// Why its requests are refused.
pub fn resolve(
    cluster: &Cluster,
    (key, parent): (&RouteKey, &ObjectKey),
    backend: &Backend,
) -> Result<Target, Problem> {
    let (service, port) = backend.service.as_ref().map_err(Problem::clone)?;
    let own = &key.key.namespace;
    // Callers of a consumer's route are the route's own namespace's, and called the parent's.
    let is_of_those_called = parent.namespace != *own && service.namespace == parent.namespace;
    let is_permitted =
        service.namespace == *own || is_of_those_called || cluster.book().permits(key.kind, own, service);
    if !is_permitted {
        let message = format!(
            "Service {service}: no ReferenceGrant there permits it to {}s of {own}",
            key.kind.as_str()
        );
        return Err(Problem::new("RefNotPermitted", message));
    }
    let not_found = |what: &str| Problem::new("BackendNotFound", format!("Service {service} {what}"));
    let found = cluster.service(service).ok_or_else(|| not_found("is not there"))?;
    if matches!(found.reach, Reach::Name(_)) {
        return Err(not_found("is only a name (ExternalName)"));
    }
    let known = found.ports.iter().find(|known| known.port == *port);
    let known = known.ok_or_else(|| not_found(&format!("has no port {port} for TCP")))?;
    if known.protocol == Protocol::Tcp {
        let message = format!("port {port} of Service {service} carries no HTTP, as its appProtocol says");
        return Err(Problem::new("UnsupportedProtocol", message));
    }
    Ok(Target::Service(service.clone(), *port))
}

/// What is wrong with what a route refers to, for one of its parents.
#[derive(Debug, Default)]
pub struct Unresolved {
    /// Backends that get no requests.
    pub backends: Vec<Problem>,
    /// Mirrors that get no copies.
    pub mirrors: Vec<Problem>,
}

/// Everything that is wrong with the backends of a route, and with its mirrors, for one of its parents.
#[must_use]
pub fn unresolved(cluster: &Cluster, key: &RouteKey, route: &Route, parent: &ObjectKey) -> Unresolved {
    let mut found = Unresolved::default();
    for rule in &route.rules {
        let problem = |backend: &Backend| {
            let problem = resolve(cluster, (key, parent), backend).err()?;
            Some(problem.at(&format!("rule {}", rule.name)))
        };
        let list = if let To::Backends(list) = &rule.to { list.as_slice() } else { &[] };
        found.backends.extend(list.iter().filter_map(problem));
        found.mirrors.extend(rule.mirrors.iter().filter_map(|mirror| problem(&mirror.backend)));
    }
    found
}
