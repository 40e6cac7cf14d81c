//! The file's settings together with what the controller says of services.
//!
//! ```text
//!   file ────────────────────┐
//!   fragments ──each alone───┼──▶ Settings: all of the file, and every service that is sound and takes nothing of it
//! ```
//! # Invariants
//! - Nothing that the controller says changes anything that the file says: names, authorities and addresses of the file are
//!   the file's. A service that would have one of them is left out, and told.
//! - What is wrong with one service costs that service: the last good that was said of it stays.
//! - The outcome depends on what is said and not on the order in which it was said, but for what was the last good.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Fault, Settings, told::ToldRules, validate};
use crate::model::{
    ClusterName, ClusterSettings, Listener, ListenerKind,
    cluster::{AppProtocol, ServiceAddress},
    controller::{Fragment, Fragments, Rejected},
    dns::ResolverSettings,
    listener::{Inbound, InterceptedInbound, Protocol},
};

/// The name under which faults of what is said of the own workload are told.
const WORKLOAD: &str = "intercept.inbound";

/// Both together.
#[derive(Debug)]
pub struct Joined {
    /// What is to be in force.
    pub settings: Settings,
    /// Services of which what is said is not in it.
    pub rejected: Vec<Rejected>,
}

/// Joins, and remembers what was read.
#[derive(Debug, Default)]
pub struct Joiner {
    services: HashMap<Arc<str>, Read<Arc<ClusterSettings>>>,
    inbound: Option<Read<Ports>>,
    rules: ToldRules,
    /// What `dns` of services was read with.
    resolver: Option<Arc<ResolverSettings>>,
}

type Ports = Vec<(u16, Protocol, AppProtocol)>;

/// What became of a text that the controller said.
#[derive(Debug)]
struct Read<T> {
    text: Arc<str>,
    revision: u64,
    faults: Vec<Fault>,
    /// What it says, or the last before it that was sound.
    good: Option<T>,
}

impl Joiner {
    /// Joins what the file says with what the controller says.
    pub fn join(&mut self, file: &Settings, fragments: &Fragments) -> Joined {
        let (mut settings, mut rejected) = (file.clone(), Vec::new());
        if self.resolver.as_ref() != Some(&file.resolver) {
            self.resolver = Some(Arc::clone(&file.resolver));
            // It is read anew, whatever it said.
            self.services.values_mut().for_each(|read| read.text = Arc::from(""));
        }
        let said: HashSet<&Arc<str>> = fragments.services.iter().map(|fragment| &fragment.name).collect();
        self.services.retain(|name, _| said.contains(name));
        let mut taken = Taken::default();
        file.clusters.iter().for_each(|cluster| taken.add(cluster));
        // Where a name leads is said for this caller: that counts before what a service says of itself.
        let names = |fragment: &Fragment| {
            let name = Arc::clone(&fragment.name);
            fragment.names.clone().into_iter().map(move |key| (key, Arc::clone(&name)))
        };
        let asked: HashMap<Box<str>, Arc<str>> = fragments.services.iter().flat_map(names).collect();
        let mut sorted: Vec<&Fragment> = fragments.services.iter().collect();
        sorted.sort_by(|one, other| one.name.cmp(&other.name));
        for fragment in sorted {
            let read = self.service(fragment, &file.resolver);
            if !read.faults.is_empty() {
                let (service, faults) = (Arc::clone(&fragment.name), read.faults.clone());
                rejected.push(Rejected { service, faults, is_conflict: false });
            }
            let Some(good) = &read.good else { continue };
            let good = without_names_of_others(good, &asked);
            if let Some(fault) = taken.conflict(&good) {
                let (service, faults) = (Arc::clone(&fragment.name), vec![fault]);
                rejected.push(Rejected { service, faults, is_conflict: true });
                continue;
            }
            let cluster = taken.named(&good, &fragment.names);
            taken.add(&cluster);
            settings.clusters.push(cluster);
        }
        self.read_inbound(fragments.inbound.as_ref());
        if let Some(read) = &self.inbound {
            if !read.faults.is_empty() {
                let faults = read.faults.clone();
                rejected.push(Rejected { service: WORKLOAD.into(), faults, is_conflict: false });
            }
            add_ports(&mut settings, read.good.as_deref().unwrap_or_default());
        }
        settings.authorization = self.rules.join(file, fragments.inbound.as_ref(), &mut rejected);
        Joined { settings, rejected }
    }

    fn service(
        &mut self,
        fragment: &Fragment,
        resolver: &Arc<ResolverSettings>,
    ) -> &Read<Arc<ClusterSettings>> {
        let Fragment { name, revision, cluster: text, has_routes, .. } = fragment;
        let before = self.services.remove(name);
        let read = match before {
            Some(read) if read.text == *text && read.revision == *revision => read,
            before => {
                let found = if *has_routes {
                    Err(vec![unknown_routes(name)])
                } else {
                    validate::fragment(name, text, *revision, resolver)
                };
                let (text, revision) = (Arc::clone(text), *revision);
                match found {
                    Ok(good) => Read { text, revision, faults: Vec::new(), good: Some(Arc::new(good)) },
                    Err(faults) => {
                        Read { text, revision, faults, good: before.and_then(|before| before.good) }
                    }
                }
            }
        };
        self.services.entry(Arc::clone(name)).or_insert(read)
    }

    fn read_inbound(&mut self, text: Option<&Arc<str>>) {
        let Some(text) = text else { return self.inbound = None };
        if self.inbound.as_ref().is_some_and(|read| read.text == *text) {
            return;
        }
        let before = self.inbound.take().and_then(|read| read.good);
        let (text, revision) = (Arc::clone(text), 0);
        self.inbound = Some(match validate::inbound(&text) {
            Ok(good) => Read { text, revision, faults: Vec::new(), good: Some(good) },
            Err(faults) => Read { text, revision, faults, good: before },
        });
    }
}

/// Rules of a service decide where its requests go: without them they would go elsewhere.
fn unknown_routes(name: &str) -> Fault {
    Fault {
        path: format!("controller.services[{name}].routes"),
        line: None,
        problem: "this version does not know routes that the controller says".to_owned(),
        remedy: "start a sidecar of the controller's version".to_owned(),
    }
}

/// A service, without the names that lead the app elsewhere.
fn without_names_of_others(
    cluster: &Arc<ClusterSettings>,
    asked: &HashMap<Box<str>, Arc<str>>,
) -> Arc<ClusterSettings> {
    let is_anothers =
        |name: &String| asked.get(name.as_str()).is_some_and(|service| **service != *cluster.name.as_str());
    if !cluster.authorities.iter().any(is_anothers) {
        return Arc::clone(cluster);
    }
    let mut rest = ClusterSettings::clone(cluster);
    rest.authorities.retain(|name| !is_anothers(name));
    Arc::new(rest)
}

/// What clusters have that only one may have.
#[derive(Debug, Default)]
struct Taken {
    names: HashSet<ClusterName>,
    authorities: HashMap<String, ClusterName>,
    addresses: HashMap<ServiceAddress, ClusterName>,
}

impl Taken {
    fn add(&mut self, cluster: &ClusterSettings) {
        self.names.insert(cluster.name.clone());
        let authorities =
            cluster.authorities.iter().map(|authority| (authority.clone(), cluster.name.clone()));
        self.authorities.extend(authorities);
        self.addresses.extend(cluster.addresses.iter().map(|address| (*address, cluster.name.clone())));
    }

    /// What of a cluster another has.
    fn conflict(&self, cluster: &ClusterSettings) -> Option<Fault> {
        let authority = || {
            cluster.authorities.iter().find_map(|authority| {
                Some((format!("authority {authority}"), self.authorities.get(authority)?))
            })
        };
        let address = || {
            cluster
                .addresses
                .iter()
                .find_map(|address| Some((format!("address {address}"), self.addresses.get(address)?)))
        };
        let name = self.names.get(&cluster.name).map(|name| ("the name".to_owned(), name));
        let (what, whose) = name.or_else(authority).or_else(address)?;
        Some(Fault {
            path: format!("controller.services[{}]", cluster.name),
            line: None,
            problem: format!("{what} is that of cluster {whose}"),
            remedy: "take it out of the file, where it is the file's, to have what the controller says"
                .to_owned(),
        })
    }

    /// The cluster, with the names by which the app has asked for it and that nobody else has.
    fn named(&self, cluster: &Arc<ClusterSettings>, names: &[Box<str>]) -> Arc<ClusterSettings> {
        let is_known = |name: &str| {
            self.authorities.contains_key(name) || cluster.authorities.iter().any(|known| known == name)
        };
        let named = names.iter().map(|name| &**name).filter(|name| !is_known(name));
        let new: Vec<String> = named.map(str::to_owned).collect();
        if new.is_empty() {
            return Arc::clone(cluster);
        }
        let mut named = ClusterSettings::clone(cluster);
        named.authorities.extend(new);
        Arc::new(named)
    }
}

/// Has intercepted ports of which the file says nothing carry what the controller says; what else holds for them is what the
/// file says of `other_ports`.
fn add_ports(settings: &mut Settings, ports: &[(u16, Protocol, AppProtocol)]) {
    let other = ClusterName::new("inbound/other");
    let Some(app) = settings.clusters.iter().find(|cluster| cluster.name == other).cloned() else { return };
    let excepted = settings.bootstrap.intercept.as_ref().map(|rules| rules.inbound.except_ports.clone());
    let is_excepted = |port: &u16| excepted.as_ref().is_some_and(|excepted| excepted.contains(port));
    let own: HashSet<u16> = settings.listeners.iter().map(|listener| listener.address.port()).collect();
    for listener in &mut settings.listeners {
        let ListenerKind::InterceptedInbound(known) = &listener.kind else { continue };
        let mut known: InterceptedInbound = known.clone();
        for (port, protocol, app_protocol) in ports {
            let name = ClusterName::new(&format!("inbound/{port}"));
            let is_taken = known.ports.contains_key(port)
                || is_excepted(port)
                || own.contains(port)
                || settings.clusters.iter().any(|cluster| cluster.name == name);
            if is_taken {
                continue;
            }
            let rules = Inbound {
                app: name.clone(),
                protocol: *protocol,
                app_protocol: *app_protocol,
                ..Inbound::clone(&known.others)
            };
            known.ports.insert(*port, Arc::new(rules));
            settings.clusters.push(Arc::new(ClusterSettings { name, ..ClusterSettings::clone(&app) }));
        }
        let kind = ListenerKind::InterceptedInbound(known);
        if kind != listener.kind {
            *listener = Arc::new(Listener { kind, ..Listener::clone(listener) });
        }
    }
}
