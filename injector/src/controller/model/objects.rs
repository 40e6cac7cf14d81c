//! What is kept of the cluster's objects: a few words of each, never the object.

use std::{net::IpAddr, sync::Arc};

use crate::{
    controller::gateway::{
        grant::Grant,
        route::{RouteKey, Routed},
    },
    names::ADMIN_PORT,
    policy::kept::{Policy, PolicyKey, Record},
};

/// A name, shared by all that mention it.
pub type Name = Arc<str>;

/// An object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

impl ObjectKey {
    /// A namespace's own key: it is in none.
    pub(super) fn of_namespace(name: &Name) -> Self {
        Self { namespace: Name::from(""), name: Name::clone(name) }
    }

    /// The key of these names.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A kind of objects that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Namespaces; their key has no namespace.
    Namespace,
    /// Services.
    Service,
    /// EndpointSlices.
    Slice,
    /// Pods.
    Pod,
    /// HTTPRoutes of the Gateway API.
    HttpRoute,
    /// GRPCRoutes of the Gateway API.
    GrpcRoute,
    /// ReferenceGrants of the Gateway API.
    Grant,
    /// Our own TrafficPolicies.
    TrafficPolicy,
    /// Our own AuthorizationPolicies.
    AuthorizationPolicy,
}

impl Kind {
    /// Whether it is one of our own.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(self, Self::TrafficPolicy | Self::AuthorizationPolicy)
    }

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Namespace,
        Self::Service,
        Self::Slice,
        Self::Pod,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::Grant,
        Self::TrafficPolicy,
        Self::AuthorizationPolicy,
    ];

    /// Whether a cluster may do without it: where nobody defined it, there are none.
    #[must_use]
    pub fn is_optional(self) -> bool {
        match self {
            Self::HttpRoute | Self::GrpcRoute | Self::Grant => true,
            Self::TrafficPolicy | Self::AuthorizationPolicy => true,
            Self::Namespace | Self::Service | Self::Slice | Self::Pod => false,
        }
    }

    /// The kind's name in metrics and logs: the resource's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Service => "services",
            Self::Slice => "endpointslices",
            Self::Pod => "pods",
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::Grant => "referencegrants",
            Self::TrafficPolicy => "trafficpolicies",
            Self::AuthorizationPolicy => "authorizationpolicies",
        }
    }
}

/// What came of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Namespace.
    Namespace(Name, Namespace),
    /// A Service.
    Service(ObjectKey, Service),
    /// An EndpointSlice.
    Slice(ObjectKey, Slice),
    /// A Pod.
    Pod(ObjectKey, Pod),
    /// An HTTPRoute or a GRPCRoute.
    Route(RouteKey, Box<Routed>),
    /// A ReferenceGrant.
    Grant(ObjectKey, Grant),
    /// A policy of our own, and what its object says beside what it means.
    Policy(PolicyKey, Box<(Policy, Record)>),
    /// One that is of no use here, such as a finished pod: as if it were not there.
    Nothing(Kind, ObjectKey),
}

/// A change of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A list of all objects of a kind begins: until its end, objects come as `Set`.
    ListBegins(Kind),
    /// The list is complete: what was not in it is gone.
    ListEnds(Kind),
    /// The object is new, or changed.
    Set(Object),
    /// The object is gone.
    Gone(Kind, ObjectKey),
}

/// What is kept of a Namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its pods get a sidecar, by its label.
    pub is_enabled: bool,
    /// It is being deleted: nothing can be made in it.
    pub is_terminating: bool,
}

/// What a port carries, by `appProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Not said, or not known to us.
    Detect,
    /// HTTP of any version.
    Http,
    /// HTTP/2 with prior knowledge, gRPC.
    Http2,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// By `appProtocol`: IANA's names, and those of Kubernetes (KEP 3726).
    #[must_use]
    pub fn of(app_protocol: Option<&str>) -> Self {
        match app_protocol.map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "kubernetes.io/ws") => Self::Http,
            Some("grpc" | "h2c" | "http2" | "kubernetes.io/h2c") => Self::Http2,
            // The app's own TLS is nothing that can be looked into.
            Some("https" | "kubernetes.io/wss" | "tls" | "tcp") => Self::Tcp,
            Some(_) | None => Self::Detect,
        }
    }

    /// As `clusters[].protocol` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http | Self::Http2 => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// How it is reached.
    pub reach: Reach,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By addresses of its own, at most one of each family.
    Addresses(Vec<IpAddr>),
    /// Headless: by those of its pods.
    Pods,
    /// It is another name for this one (ExternalName).
    Name(Name),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty if it is the only one.
    pub name: Name,
    /// Where the Service is called.
    pub port: u16,
    /// What it carries.
    pub protocol: Protocol,
}

/// What is kept of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service that it is of, in its own namespace.
    pub service: Name,
    /// Its TCP ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

impl Slice {
    /// The Service of this slice, which has that key.
    pub(super) fn service_key(&self, key: &ObjectKey) -> ObjectKey {
        ObjectKey { namespace: Name::clone(&key.namespace), name: Name::clone(&self.service) }
    }
}

/// Where the pods of a slice listen for one port of the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Name,
    /// The pods' port.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// The pod that is there, if it is one of the slice's namespace.
    pub pod: Option<PodRef>,
    /// Its host name below the Service's.
    pub host: Option<Name>,
    /// Its zone; empty if none is told.
    pub zone: Name,
    /// Takes new connections.
    pub is_ready: bool,
    /// Works, whether it is about to end or not.
    pub is_serving: bool,
    /// Is about to end.
    pub is_terminating: bool,
}

/// Which pod: a name alone may be another one's by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its name.
    pub name: Name,
    /// Its UID.
    pub uid: Uid,
}

/// A UID, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    /// Of its text: a UUID's 128 bits, or a hash of anything else.
    #[must_use]
    pub fn of(text: &str) -> Self {
        // 128-bit FNV-1a: the API server's UIDs are UUIDs, so this is for others, who need no strength of it.
        let hash = || {
            text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
            })
        };
        let digits = text.replace('-', "");
        let uuid = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
        Self(uuid.unwrap_or_else(hash))
    }
}

/// What is kept of a Pod that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Which one of its name.
    pub uid: Uid,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its service account.
    pub service_account: Name,
    /// Its labels, if it has a sidecar: policies select it by them.
    pub labels: Box<[(Name, Name)]>,
    /// It has a sidecar.
    pub is_injected: bool,
    /// Ports that connections of others come to past the sidecar.
    pub plain_ports: Box<[u16]>,
    /// Its addresses are the node's.
    pub is_on_host_network: bool,
    /// When it was made, in seconds since the Unix epoch: of two with one address, the newer has it.
    pub created: i64,
}

impl Pod {
    /// Whether connections to it are the mesh's.
    #[must_use]
    pub fn is_in_mesh(&self) -> bool {
        self.is_injected && !self.is_on_host_network
    }

    /// Whether connections to this port of it are the mesh's: not those that the kernel does not bring to the sidecar, its
    /// listener of metrics and probes among them.
    #[must_use]
    pub fn is_mesh_at(&self, port: u16) -> bool {
        self.is_in_mesh() && port != ADMIN_PORT && !self.plain_ports.contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocols_are_words_of_the_configuration() {
        for (told, protocol) in [
            (Some("http"), Protocol::Http),
            (Some("HTTP"), Protocol::Http),
            (Some("grpc"), Protocol::Http2),
            (Some("h2c"), Protocol::Http2),
            (Some("kubernetes.io/h2c"), Protocol::Http2),
            (Some("kubernetes.io/ws"), Protocol::Http),
            (Some("https"), Protocol::Tcp),
            (Some("tcp"), Protocol::Tcp),
            (Some("example.com/own"), Protocol::Detect),
            (None, Protocol::Detect),
        ] {
            assert_eq!(Protocol::of(told), protocol, "{told:?}");
        }
    }

    #[test]
    fn uids_are_told_apart() {
        let uid = Uid::of("0b9e7f0a-5f3c-4a1e-9d55-0c1f3a2b4c5d");
        assert_eq!(uid, Uid::of("0B9E7F0A-5F3C-4A1E-9D55-0C1F3A2B4C5D"));
        assert_ne!(uid, Uid::of("0b9e7f0a-5f3c-4a1e-9d55-0c1f3a2b4c5e"));
        assert_ne!(Uid::of("pod-1"), Uid::of("pod-2"));
    }
}
