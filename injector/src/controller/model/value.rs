//! What is told of a target: its settings, in the words of a sidecar's file, and its endpoints.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use outrider_certs::TrustDomain;
use serde_json::{Map, Value as Json, json};

use super::{
    cluster::{Cluster, Occupant},
    objects::{Name, ObjectKey, Pod, Protocol, Reach, Service, SliceEndpoint},
    resolve::{Side, Target},
};
use crate::controller::gateway::translate::{Routing, routing};

/// The name of the cluster to which requests go that a route must not let go anywhere.
pub const REFUSAL: &str = "refuses.outrider";
/// Longest name of a cluster that a sidecar takes, in bytes.
const MAX_CLUSTER_NAME_BYTES: usize = 128;

/// What a target is, as it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The cluster's name.
    pub name: Name,
    /// One entry of `clusters[]`, without endpoints, as JSON.
    pub cluster: Arc<str>,
    /// Its endpoints, by address.
    pub endpoints: Arc<BTreeMap<SocketAddr, Endpoint>>,
    /// Its routes, and what they need.
    pub routing: Routing,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who must answer there; empty outside the mesh.
    pub spiffe_id: Name,
    /// Its zone, or empty.
    pub zone: Name,
    /// Takes new requests.
    pub is_ready: bool,
    /// The pod's name, or empty.
    pub pod: Name,
}

/// Whose cluster it is.
#[derive(Clone, Debug)]
pub struct World {
    /// The cluster's domain in the DNS.
    pub domain: Name,
    /// Of the mesh.
    pub trust_domain: TrustDomain,
    /// The addresses that pods and Services have, if that was said: one of these that nobody is known to have is not outside.
    pub ranges: Arc<[IpNet]>,
}

impl World {
    /// Whether a key is an address that a pod or a Service would have.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        let address = key.parse::<SocketAddr>().ok().filter(|_| !self.ranges.is_empty());
        address.is_some_and(|at| self.ranges.iter().any(|range| range.contains(&at.ip().to_canonical())))
    }
}

/// Whether a port of a Service, by its name, is reached by mutual TLS: a pod of it is in the mesh, and does not except its
/// port there. One without any pod goes by its namespace, so that it need not change when the first comes.
#[must_use]
pub fn is_mesh(cluster: &Cluster, service: &ObjectKey, port: &Name) -> bool {
    let mut is_known = false;
    for slice in cluster.slices_of(service) {
        let number = slice.ports.iter().find(|at| at.name == *port).map(|at| at.port);
        let is_mesh_there = |pod: &Pod| number.map_or(pod.is_in_mesh(), |number| pod.is_mesh_at(number));
        for endpoint in &slice.endpoints {
            match cluster.occupant(&service.namespace, endpoint) {
                Occupant::Pod(_, pod) if is_mesh_there(pod) => return true,
                Occupant::Pod(..) | Occupant::Outsider => is_known = true,
                Occupant::Unknown => {}
            }
        }
    }
    !is_known && cluster.is_enabled(&service.namespace)
}

/// The port of a headless Service that a caller of `port` means. Its name leads to addresses of pods, so callers name the
/// pods' port; who names the Service's is understood if no pod's port has that number.
#[must_use]
pub fn headless_port(cluster: &Cluster, key: &ObjectKey, service: &Service, port: u16) -> Option<u16> {
    let mut at = cluster.slices_of(key).flat_map(|slice| &slice.ports).filter(|at| at.port == port);
    let by_pods = at.find_map(|at| service.ports.iter().find(|port| port.name == at.name));
    by_pods.or_else(|| service.ports.iter().find(|found| found.port == port)).map(|found| found.port)
}

/// What is told of `target` as it is seen; `None` if it is not there.
#[must_use]
pub fn facts(cluster: &Cluster, world: &World, target: &Target, side: &Side) -> Option<Facts> {
    let make = Make { cluster, world, side };
    let mut facts = match target {
        Target::Service(key, port) => make.service(key, *port),
        Target::Host(key, host, port) => make.host(key, host, *port),
        Target::Pod(key, port) => make.pod(key, *port),
        Target::External(key, port) => make.external(key, *port),
        Target::Refusal => Some(refusal()),
    }?;
    if let (Target::Service(key, port), Side::Front { routes: Some(namespace), .. }) = (target, side) {
        facts.routing = routing(cluster, key, *port, namespace);
    }
    Some(facts)
}

/// What answers every request with an error: 500, and for gRPC 14 UNAVAILABLE (Gateway API, "BackendRefs").
fn refusal() -> Facts {
    let cluster = json!({
        "name": REFUSAL, "authorities": [], "protocol": "http", "tls": "none",
        "fault": {"abort": 500, "abort_grpc": 14},
    });
    Facts {
        name: REFUSAL.into(),
        cluster: cluster.to_string().into(),
        endpoints: Arc::default(),
        routing: Routing::default(),
    }
}

/// The name of the cluster of a port of a Service.
#[must_use]
pub fn service_name(key: &ObjectKey, port: u16) -> String {
    fitting(format!("{}.{}.svc:{port}", key.name, key.namespace))
}

struct Make<'a> {
    cluster: &'a Cluster,
    world: &'a World,
    side: &'a Side,
}

type Endpoints = BTreeMap<SocketAddr, Endpoint>;

impl Make<'_> {
    fn service(&self, key: &ObjectKey, number: u16) -> Option<Facts> {
        let service = self.cluster.service(key)?;
        let port = service.ports.iter().find(|port| port.port == number)?;
        let is_mesh = is_mesh(self.cluster, key, &port.name);
        let mut endpoints = Endpoints::new();
        for slice in self.cluster.slices_of(key) {
            let Some(at) = slice.ports.iter().find(|at| at.name == port.name) else { continue };
            for endpoint in &slice.endpoints {
                self.add(&mut endpoints, key, endpoint, (at.port, is_mesh));
            }
        }
        let (addresses, ports) = match &service.reach {
            Reach::Addresses(addresses) => (addresses.as_slice(), vec![number]),
            // Callers name the pods' ports, which may differ from slice to slice.
            Reach::Pods => (&[][..], self.ports_of_pods(key, service, number)),
            Reach::Name(_) => return None,
        };
        // Who comes by a route does not come by a name or an address, and who does comes by the routes.
        let addresses = if *self.side == Side::Back { &[][..] } else { addresses };
        let head = Head {
            name: service_name(key, number),
            authorities: self.authorities(key, service, &ports),
            addresses: addresses.iter().map(|ip| SocketAddr::new(*ip, number)).collect(),
            protocol: port.protocol,
            is_mesh,
            settings: self.settings(key),
        };
        Some(head.facts(None, endpoints))
    }

    fn ports_of_pods(&self, key: &ObjectKey, service: &Service, number: u16) -> Vec<u16> {
        let slices = self.cluster.slices_of(key);
        let mut ports: Vec<u16> = slices.flat_map(|slice| &slice.ports).map(|port| port.port).collect();
        ports.push(number);
        ports.sort_unstable();
        ports.dedup();
        let is_this = |port: &u16| headless_port(self.cluster, key, service, *port) == Some(number);
        ports.into_iter().filter(is_this).collect()
    }

    /// Names of the Service with each of `ports`, as callers may write them.
    fn authorities(&self, key: &ObjectKey, service: &Service, ports: &[u16]) -> Vec<String> {
        let Side::Front { is_same, .. } = self.side else { return Vec::new() };
        let (name, namespace, domain) = (&key.name, &key.namespace, &self.world.domain);
        let mut hosts = vec![
            format!("{name}.{namespace}.svc.{domain}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}"),
        ];
        if *is_same {
            hosts.push(name.to_string());
        }
        // A bare host stands for every port in a sidecar's file, so it is told only where there is no other.
        let is_bare = service.ports.len() == 1 && ports == [80];
        let with_ports = ports.iter().flat_map(|port| hosts.iter().map(move |host| format!("{host}:{port}")));
        let bare = hosts.iter().filter(|_| is_bare).cloned();
        with_ports.chain(bare).collect()
    }

    /// Adds an endpoint of a Service, if it is one to be told of. Who does not work gets nothing, as with kube-proxy;
    /// who is about to end and works is kept for when nobody else does.
    fn add(&self, to: &mut Endpoints, service: &ObjectKey, endpoint: &SliceEndpoint, at: (u16, bool)) {
        let (port, is_mesh) = at;
        if !(endpoint.is_ready || endpoint.is_serving) {
            return;
        }
        let address = SocketAddr::new(endpoint.address, port);
        let occupant = match self.cluster.occupant(&service.namespace, endpoint) {
            Occupant::Unknown => return,
            Occupant::Pod(key, pod) => Some((key, pod)),
            Occupant::Outsider => None,
        };
        let is_told = !is_mesh || occupant.is_some_and(|(_, pod)| pod.is_mesh_at(port));
        if !is_told {
            return;
        }
        let told = Endpoint {
            spiffe_id: occupant.filter(|_| is_mesh).map(|(key, pod)| self.id(key, pod)).unwrap_or_default(),
            zone: Name::clone(&endpoint.zone),
            is_ready: endpoint.is_ready,
            pod: occupant.map(|(key, _)| Name::clone(&key.name)).unwrap_or_default(),
        };
        // Slices may overlap while they are rearranged; then either will do, and a ready one is better.
        if to.get(&address).is_none_or(|known| !known.is_ready) {
            to.insert(address, told);
        }
    }

    fn host(&self, key: &ObjectKey, host: &Name, port: u16) -> Option<Facts> {
        let service = self.cluster.service(key).filter(|service| service.reach == Reach::Pods)?;
        let slices: Vec<_> = self.cluster.slices_of(key).collect();
        let with_host = slices.iter().flat_map(|slice| &slice.endpoints);
        let with_host: Vec<_> = with_host.filter(|endpoint| endpoint.host.as_ref() == Some(host)).collect();
        let occupants = with_host.iter().map(|endpoint| self.cluster.occupant(&key.namespace, endpoint));
        let is_mesh =
            occupants.into_iter().any(|found| matches!(found, Occupant::Pod(_, pod) if pod.is_mesh_at(port)));
        let mut endpoints = Endpoints::new();
        for endpoint in &with_host {
            self.add(&mut endpoints, key, endpoint, (port, is_mesh));
        }
        let mut named = slices.iter().flat_map(|slice| &slice.ports).filter(|found| found.port == port);
        let named = named.find_map(|found| service.ports.iter().find(|known| known.name == found.name));
        let below = format!("{host}.{}.{}.svc", key.name, key.namespace);
        let head = Head {
            name: format!("{below}:{port}"),
            authorities: vec![format!("{below}.{}:{port}", self.world.domain), format!("{below}:{port}")],
            addresses: Vec::new(),
            protocol: named.map_or(Protocol::Detect, |port| port.protocol),
            is_mesh,
            settings: self.settings(key),
        };
        (!with_host.is_empty()).then(|| head.facts(None, endpoints))
    }

    fn pod(&self, key: &ObjectKey, port: u16) -> Option<Facts> {
        let pod = self.cluster.pod(key)?;
        let is_mesh = pod.is_mesh_at(port);
        let spiffe_id = if is_mesh { self.id(key, pod) } else { Name::default() };
        let endpoint =
            Endpoint { spiffe_id, zone: Name::default(), is_ready: true, pod: Name::clone(&key.name) };
        let is_its = |ip: &&IpAddr| self.cluster.pod_at(**ip).is_some_and(|(found, _)| found == key);
        let own = pod.addresses.iter().filter(is_its);
        let endpoints = own.map(|ip| (SocketAddr::new(*ip, port), endpoint.clone())).collect();
        let head = Head {
            name: format!("{}.{}.pod:{port}", key.name, key.namespace),
            authorities: Vec::new(),
            addresses: Vec::new(),
            protocol: Protocol::Detect,
            is_mesh,
            settings: None,
        };
        Some(head.facts(None, endpoints))
    }

    fn external(&self, key: &ObjectKey, number: u16) -> Option<Facts> {
        let service = self.cluster.service(key)?;
        let Reach::Name(name) = &service.reach else { return None };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let port = service.ports.iter().find(|port| port.port == number);
        let head = Head {
            name: service_name(key, number),
            authorities: self.authorities(key, service, &[number]),
            addresses: Vec::new(),
            protocol: port.map_or(Protocol::Detect, |port| port.protocol),
            is_mesh: false,
            settings: self.settings(key),
        };
        // Absolute: its own search list is not what the cluster's DNS follows.
        Some(head.facts(Some(json!({"name": format!("{name}."), "port": number})), Endpoints::new()))
    }

    /// How a Service is called, as a policy says.
    fn settings(&self, key: &ObjectKey) -> Option<&Map<String, Json>> {
        self.cluster.policies().book().settings_of(key)
    }

    fn id(&self, key: &ObjectKey, pod: &Pod) -> Name {
        let domain = &self.world.trust_domain;
        format!("spiffe://{domain}/ns/{}/sa/{}", key.namespace, pod.service_account).into()
    }
}

/// What is told of a cluster beside its endpoints.
struct Head<'a> {
    name: String,
    authorities: Vec<String>,
    addresses: Vec<SocketAddr>,
    protocol: Protocol,
    is_mesh: bool,
    /// How it is called, as a policy says.
    settings: Option<&'a Map<String, Json>>,
}

impl Head<'_> {
    fn facts(self, dns: Option<Json>, endpoints: Endpoints) -> Facts {
        let name = fitting(self.name);
        let mut cluster = Map::new();
        cluster.insert("name".to_owned(), json!(name));
        cluster.insert("authorities".to_owned(), json!(self.authorities));
        if !self.addresses.is_empty() {
            cluster.insert("addresses".to_owned(), json!(self.addresses));
        }
        cluster.insert("protocol".to_owned(), json!(self.protocol.as_str()));
        cluster.insert("tls".to_owned(), json!(if self.is_mesh { "mesh" } else { "none" }));
        if !self.is_mesh && self.protocol == Protocol::Http2 {
            cluster.insert("plain_protocol".to_owned(), json!("http2"));
        }
        if let Some(dns) = dns {
            cluster.insert("dns".to_owned(), dns);
        }
        let settings = self.settings.into_iter().flatten();
        cluster.extend(settings.map(|(key, value)| (key.clone(), value.clone())));
        let cluster = Json::Object(cluster).to_string().into();
        Facts { name: name.into(), cluster, endpoints: Arc::new(endpoints), routing: Routing::default() }
    }
}

/// A name of at most [`MAX_CLUSTER_NAME_BYTES`]: a longer one is cut, and told apart by a hash of the whole.
#[must_use]
pub fn fitting(name: String) -> String {
    if name.len() <= MAX_CLUSTER_NAME_BYTES {
        return name;
    }
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let kept: String = name.chars().take(MAX_CLUSTER_NAME_BYTES - 17).collect();
    format!("{kept}~{hash:016x}")
}
