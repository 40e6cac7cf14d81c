//! The cluster, as far as sidecars ask of it: objects, and where each is found.
//!
//! Every change says what it touched, and nothing else needs to be looked at again.

mod changes;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use super::objects::{Kind, Name, Namespace, ObjectKey, Pod, Service, Slice, SliceEndpoint};
use crate::{
    controller::gateway::{book::Book, route::RouteKind},
    policy::kept::{Policies, PolicyKind},
};

/// What an answer was made of: when it is touched, the answer is looked at again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// A Service, its slices, and what is known of the pods in them.
    Service(ObjectKey),
    /// A pod, and which Services have it.
    Pod(ObjectKey),
    /// Who is at an address.
    Address(IpAddr),
    /// Whether a Service is there, and its ports: nothing that slices say.
    Ports(ObjectKey),
    /// The routes of a Service, and what they may refer to.
    Routes(ObjectKey),
    /// Who may call pods of a namespace.
    Callers(Name),
}

/// Parts that were touched.
pub type Touched = HashSet<Part>;

/// Who is at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant<'a> {
    /// This pod.
    Pod(&'a ObjectKey, &'a Pod),
    /// A pod of which nothing is known yet, or nothing that fits: nobody is sent there.
    Unknown,
    /// No pod of the cluster.
    Outsider,
}

/// The cluster's state.
#[derive(Debug, Default)]
pub struct Cluster {
    namespaces: HashMap<Name, Namespace>,
    services: HashMap<ObjectKey, Service>,
    slices: HashMap<ObjectKey, Slice>,
    pods: HashMap<ObjectKey, Pod>,
    /// Names of the slices of each Service, whether it is there or not.
    slices_of: HashMap<ObjectKey, BTreeSet<Name>>,
    /// Pods with an address of their own, and Services with theirs: one each, but while an address changes hands.
    pods_at: HashMap<IpAddr, Vec<ObjectKey>>,
    services_at: HashMap<IpAddr, Vec<ObjectKey>>,
    /// Services with an endpoint there, and how many of their slices say so.
    listed_at: HashMap<IpAddr, Vec<(ObjectKey, u32)>>,
    /// How many pods in the mesh each namespace has.
    injected: HashMap<Name, usize>,
    /// Raised whenever [`meshed_namespaces`](Self::meshed_namespaces) may be others.
    meshes: u64,
    /// Routes and grants of the Gateway API.
    book: Book,
    policies: Policies,
    /// What was in the list that is under way, by kind.
    listing: HashMap<Kind, HashSet<ObjectKey>>,
    /// One copy of each name that many objects mention.
    names: HashSet<Name>,
}

impl Cluster {
    /// A Service.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// A pod that is not finished.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// Whether the namespace's pods get a sidecar.
    #[must_use]
    pub fn is_enabled(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|namespace| namespace.is_enabled)
    }

    /// The slices of a Service, in the order of their names.
    pub fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &Slice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        let namespace = &service.namespace;
        names.filter_map(move |name| {
            let key = ObjectKey { namespace: Name::clone(namespace), name: Name::clone(name) };
            self.slices.get(&key)
        })
    }

    /// The Service that has this address for its own. Of two, while the address changes hands, the first by name.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<(&ObjectKey, &Service)> {
        let key = self.services_at.get(&address)?.iter().min()?;
        self.services.get_key_value(key)
    }

    /// The pod that has this address for its own. Of two, while the address changes hands, the newer.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<(&ObjectKey, &Pod)> {
        let keys = self.pods_at.get(&address)?.iter();
        keys.filter_map(|key| self.pods.get_key_value(key)).max_by_key(|(key, pod)| (pod.created, *key))
    }

    /// The Services with an endpoint at this address.
    pub fn listed_at(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.listed_at.get(&address).into_iter().flatten().map(|(service, _)| service)
    }

    /// Who is at an endpoint of a Service in `namespace`. A pod is believed to be there only if it is the one that the
    /// slice means, by UID, and says so itself: who must answer there follows from it.
    #[must_use]
    pub fn occupant(&self, namespace: &Name, endpoint: &SliceEndpoint) -> Occupant<'_> {
        let Some(told) = &endpoint.pod else {
            return self
                .pod_at(endpoint.address)
                .map_or(Occupant::Outsider, |(key, pod)| Occupant::Pod(key, pod));
        };
        let key = ObjectKey { namespace: Name::clone(namespace), name: Name::clone(&told.name) };
        match self.pods.get_key_value(&key) {
            Some((key, pod)) if pod.uid == told.uid && pod.addresses.contains(&endpoint.address) => {
                Occupant::Pod(key, pod)
            }
            Some(_) | None => Occupant::Unknown,
        }
    }

    /// The namespaces where pods need the trust bundle: those that are enabled or have pods in the mesh, and in which
    /// something can be made.
    #[must_use]
    pub fn meshed_namespaces(&self) -> BTreeSet<Name> {
        let is_meshed =
            |name: &Name, namespace: &Namespace| namespace.is_enabled || self.injected.contains_key(name);
        let alive = self.namespaces.iter().filter(|(_, namespace)| !namespace.is_terminating);
        alive
            .filter(|(name, namespace)| is_meshed(name, namespace))
            .map(|(name, _)| Name::clone(name))
            .collect()
    }

    /// Another number whenever [`meshed_namespaces`](Self::meshed_namespaces) may be others.
    #[must_use]
    pub fn meshes(&self) -> u64 {
        self.meshes
    }

    /// How many objects of a kind are known.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces.len(),
            Kind::Service => self.services.len(),
            Kind::Slice => self.slices.len(),
            Kind::Pod => self.pods.len(),
            Kind::HttpRoute => self.book.keys(RouteKind::Http).count(),
            Kind::GrpcRoute => self.book.keys(RouteKind::Grpc).count(),
            Kind::Grant => self.book.grants().count(),
            Kind::TrafficPolicy => self.policies.keys(PolicyKind::Traffic).count(),
            Kind::AuthorizationPolicy => self.policies.keys(PolicyKind::Authorization).count(),
        }
    }

    /// Our own policies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The same, to settle statuses.
    pub fn policies_mut(&mut self) -> &mut Policies {
        &mut self.policies
    }

    /// Routes and grants of the Gateway API.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The same, to settle statuses.
    pub fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }
}
