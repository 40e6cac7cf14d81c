//! What a key leads to for somebody in a namespace.

use std::net::{IpAddr, SocketAddr};

use super::{
    cluster::{Cluster, Occupant, Part},
    names::{Asked, Meant, candidates, meant},
    objects::{Name, ObjectKey, Reach, Service},
    value::{headless_port, is_mesh},
};
use crate::controller::gateway::attached;

/// How many names may stand for each other in a row.
const MAX_ALIASES: usize = 4;

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A port of a Service: any of its endpoints.
    Service(ObjectKey, u16),
    /// One endpoint of a Service, by its host name, at a port.
    Host(ObjectKey, Name, u16),
    /// One pod, at a port.
    Pod(ObjectKey, u16),
    /// A name outside, that an ExternalName Service stands for, at a port.
    External(ObjectKey, u16),
    /// Nobody: for requests of a route that must not go anywhere. No key leads to it.
    Refusal,
}

impl Target {
    /// What has to be looked at again when it is touched.
    #[must_use]
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::Service(key, _) | Self::Host(key, ..) | Self::External(key, _) => {
                Some(Part::Service(key.clone()))
            }
            Self::Pod(key, _) => Some(Part::Pod(key.clone())),
            Self::Refusal => None,
        }
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Service(key, _) | Self::Host(key, ..) | Self::Pod(key, _) | Self::External(key, _) => {
                Some(&key.namespace)
            }
            Self::Refusal => None,
        }
    }

    /// How callers in `namespace` see it, and what has to be looked at again for that.
    #[must_use]
    pub fn side(&self, cluster: &Cluster, namespace: &Name) -> (Side, Option<Part>) {
        let is_same = self.namespace() == Some(namespace);
        let Self::Service(key, port) = self else {
            return (Side::Front { is_same, routes: None }, None);
        };
        let routes = attached::whose(cluster, key, *port, namespace);
        (Side::Front { is_same, routes }, Some(Part::Routes(key.clone())))
    }
}

/// How a target is seen: what is told of it differs (Gateway API, "Service facets").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// By those who call it.
    Front {
        /// They are of its own namespace.
        is_same: bool,
        /// The routes of this namespace hold for them.
        routes: Option<Name>,
    },
    /// As what a route sends requests to: no name and no address leads there, and no routes hold.
    Back,
}

/// A target as somebody sees it.
pub type Seen = (Target, Side);

/// An answer, and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None`: nothing in the cluster has this address or name.
    pub target: Option<Target>,
    /// What to look at again for when the answer changes.
    pub parts: Vec<Part>,
}

/// What `key` leads to for a caller in `namespace`; `None` if it is no key.
#[must_use]
pub fn resolve(cluster: &Cluster, domain: &str, namespace: &str, key: &str) -> Option<Answer> {
    let mut search = Search { cluster, domain, parts: Vec::new() };
    let target = match Asked::parse(key)? {
        Asked::Address(address) => search.address(address),
        Asked::Name { host, port } => search.name(&host, namespace, port),
    };
    let mut parts = search.parts;
    parts.sort();
    parts.dedup();
    Some(Answer { target, parts })
}

struct Search<'a> {
    cluster: &'a Cluster,
    domain: &'a str,
    parts: Vec<Part>,
}

impl Search<'_> {
    fn address(&mut self, address: SocketAddr) -> Option<Target> {
        self.parts.push(Part::Address(address.ip()));
        if let Some((key, service)) = self.cluster.service_at(address.ip()) {
            let is_port = service.ports.iter().any(|port| port.port == address.port());
            return is_port.then(|| Target::Service(key.clone(), address.port()));
        }
        let (pod, _) = self.cluster.pod_at(address.ip())?;
        let service = self.service_of(pod, address);
        Some(service.unwrap_or_else(|| Target::Pod(pod.clone(), address.port())))
    }

    /// The Service that has this pod as an endpoint at this address: what holds for the Service holds for it. Only one of
    /// the pod's own namespace, and only if the endpoint is told.
    fn service_of(&mut self, pod: &ObjectKey, address: SocketAddr) -> Option<Target> {
        let listed = self.cluster.listed_at(address.ip());
        let mut services: Vec<&ObjectKey> =
            listed.filter(|service| service.namespace == pod.namespace).collect();
        services.sort();
        for key in services {
            self.parts.push(Part::Service(key.clone()));
            let service = self.cluster.service(key);
            let Some(service) = service.filter(|found| !matches!(found.reach, Reach::Name(_))) else {
                continue;
            };
            if let Some(port) = self.port_with(key, service, pod, address) {
                return Some(Target::Service(key.clone(), port));
            }
        }
        None
    }

    /// The Service's port for which the pod is told as an endpoint at `address`.
    fn port_with(
        &self,
        key: &ObjectKey,
        service: &Service,
        pod: &ObjectKey,
        address: SocketAddr,
    ) -> Option<u16> {
        for slice in self.cluster.slices_of(key) {
            let mut names = slice.ports.iter().filter(|port| port.port == address.port());
            let named = names.find_map(|found| service.ports.iter().find(|port| port.name == found.name));
            let Some(named) = named else { continue };
            let is_mesh = is_mesh(self.cluster, key, &named.name);
            let is_told = slice.endpoints.iter().any(|endpoint| {
                endpoint.address == address.ip()
                    && endpoint.pod.is_some()
                    && (endpoint.is_ready || endpoint.is_serving)
                    && matches!(self.cluster.occupant(&key.namespace, endpoint),
                        Occupant::Pod(found, facts) if found == pod && (facts.is_mesh_at(address.port()) || !is_mesh))
            });
            if is_told {
                return Some(named.port);
            }
        }
        None
    }

    fn name(&mut self, host: &str, namespace: &str, port: u16) -> Option<Target> {
        for name in candidates(host, namespace, self.domain) {
            if let Some(found) = self.absolute(&name, port, MAX_ALIASES) {
                return found;
            }
        }
        None
    }

    /// `Some(None)`: the name exists, and leads nowhere at this port.
    fn absolute(&mut self, name: &str, port: u16, aliases: usize) -> Option<Option<Target>> {
        match meant(name, self.domain)? {
            Meant::Service { namespace, name } => {
                self.service(ObjectKey::new(namespace, name), port, aliases)
            }
            Meant::Host { namespace, name, host } => self.host(ObjectKey::new(namespace, name), host, port),
            Meant::Pod(address) => self.pod(address, port),
        }
    }

    fn service(&mut self, key: ObjectKey, port: u16, aliases: usize) -> Option<Option<Target>> {
        self.parts.push(Part::Service(key.clone()));
        let service = self.cluster.service(&key)?;
        match &service.reach {
            Reach::Name(name) => Some(self.alias(key, name, port, aliases)),
            Reach::Addresses(_) => {
                let found = service.ports.iter().find(|found| found.port == port);
                Some(found.map(|found| Target::Service(key, found.port)))
            }
            Reach::Pods => {
                let found = headless_port(self.cluster, &key, service, port);
                Some(found.map(|found| Target::Service(key, found)))
            }
        }
    }

    /// An ExternalName: another name of a Service, or a name outside.
    fn alias(&mut self, key: ObjectKey, name: &str, port: u16, aliases: usize) -> Option<Target> {
        let absolute = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if absolute.strip_suffix(self.domain).is_some_and(|rest| rest.ends_with('.')) {
            // In the cluster: never by its address in plaintext, but as what it is.
            let left = aliases.checked_sub(1)?;
            return self.absolute(&absolute, port, left).flatten();
        }
        Asked::parse(&format!("{absolute}:{port}"))
            .filter(|asked| matches!(asked, Asked::Name { .. }))
            .map(|_| Target::External(key, port))
    }

    fn host(&mut self, key: ObjectKey, host: &str, port: u16) -> Option<Option<Target>> {
        self.parts.push(Part::Service(key.clone()));
        self.cluster.service(&key).filter(|service| service.reach == Reach::Pods)?;
        let mut endpoints = self.cluster.slices_of(&key).flat_map(|slice| &slice.endpoints);
        let is_it = |name: &&Name| &***name == host;
        let found = endpoints.find_map(|endpoint| endpoint.host.as_ref().filter(is_it)).cloned()?;
        drop(endpoints);
        Some(Some(Target::Host(key, found, port)))
    }

    fn pod(&mut self, address: IpAddr, port: u16) -> Option<Option<Target>> {
        self.parts.push(Part::Address(address));
        self.cluster.pod_at(address)?;
        Some(self.address(SocketAddr::new(address, port)))
    }
}
