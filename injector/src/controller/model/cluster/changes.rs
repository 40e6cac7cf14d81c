//! Changes of the cluster: each says what it touched, and nothing else needs to be looked at again.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{Cluster, Part, Touched};
use crate::{
    controller::{
        gateway::route::{RouteKey, RouteKind},
        model::objects::{
            Event, Kind, Name, Namespace, Object, ObjectKey, Pod, Reach, Service, Slice, SliceEndpoint,
        },
    },
    policy::kept::{Effect, Policy, PolicyKey, PolicyKind, Record},
};

impl Cluster {
    /// Takes a change in, and adds what it touched.
    pub fn apply(&mut self, event: Event, touched: &mut Touched) {
        match event {
            Event::ListBegins(kind) => drop(self.listing.insert(kind, HashSet::new())),
            Event::ListEnds(kind) => self.end_list(kind, touched),
            Event::Set(object) => self.set(object, touched),
            Event::Gone(kind, key) => self.remove(kind, &key, touched),
        }
    }

    fn end_list(&mut self, kind: Kind, touched: &mut Touched) {
        let Some(listed) = self.listing.remove(&kind) else { return };
        for key in self.keys(kind) {
            if !listed.contains(&key) {
                self.remove(kind, &key, touched);
            }
        }
        // Lists are rare: a good time to forget names that nobody has any more.
        self.names.retain(|name| Name::strong_count(name) > 1);
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        match kind {
            Kind::Namespace => self.namespaces.keys().map(ObjectKey::of_namespace).collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Slice => self.slices.keys().cloned().collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::HttpRoute => self.book.keys(RouteKind::Http).cloned().collect(),
            Kind::GrpcRoute => self.book.keys(RouteKind::Grpc).cloned().collect(),
            Kind::Grant => self.book.grants().cloned().collect(),
            Kind::TrafficPolicy => self.policies.keys(PolicyKind::Traffic).cloned().collect(),
            Kind::AuthorizationPolicy => self.policies.keys(PolicyKind::Authorization).cloned().collect(),
        }
    }

    fn set(&mut self, object: Object, touched: &mut Touched) {
        let (kind, key) = match &object {
            Object::Namespace(name, _) => (Kind::Namespace, ObjectKey::of_namespace(name)),
            Object::Service(key, _) => (Kind::Service, key.clone()),
            Object::Slice(key, _) => (Kind::Slice, key.clone()),
            Object::Pod(key, _) => (Kind::Pod, key.clone()),
            Object::Route(route, _) => (route.kind.kind(), route.key.clone()),
            Object::Grant(key, _) => (Kind::Grant, key.clone()),
            Object::Policy(policy, _) => (policy.kind.kind(), policy.key.clone()),
            Object::Nothing(kind, key) => return self.remove(*kind, key, touched),
        };
        if let Some(listed) = self.listing.get_mut(&kind) {
            listed.insert(key.clone());
        }
        let key = ObjectKey { namespace: self.shared(key.namespace), name: key.name };
        match object {
            Object::Namespace(name, new) => self.set_namespace(&name, Some(new), touched),
            Object::Service(_, new) => self.set_service(key, Some(new), touched),
            Object::Slice(_, mut new) => {
                for endpoint in &mut new.endpoints {
                    endpoint.zone = self.shared(Name::clone(&endpoint.zone));
                }
                self.set_slice(key, Some(new), touched);
            }
            Object::Pod(_, mut new) => {
                new.service_account = self.shared(new.service_account);
                for (name, value) in &mut new.labels {
                    (*name, *value) = (self.shared(Name::clone(name)), self.shared(Name::clone(value)));
                }
                self.set_pod(key, Some(new), touched);
            }
            Object::Route(route, new) => {
                self.book.set_route(RouteKey { key, ..route }, Some(*new), touched);
            }
            Object::Grant(_, new) => self.book.set_grant(key, Some(new), touched),
            Object::Policy(policy, new) => {
                self.set_policy(&PolicyKey { key, ..policy }, Some(*new), touched);
            }
            Object::Nothing(..) => {}
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey, touched: &mut Touched) {
        let route = |kind| RouteKey { kind, key: key.clone() };
        let policy = |kind| PolicyKey { kind, key: key.clone() };
        match kind {
            Kind::Namespace => self.set_namespace(&key.name, None, touched),
            Kind::Service => self.set_service(key.clone(), None, touched),
            Kind::Slice => self.set_slice(key.clone(), None, touched),
            Kind::Pod => self.set_pod(key.clone(), None, touched),
            Kind::HttpRoute => self.book.set_route(route(RouteKind::Http), None, touched),
            Kind::GrpcRoute => self.book.set_route(route(RouteKind::Grpc), None, touched),
            Kind::Grant => self.book.set_grant(key.clone(), None, touched),
            Kind::TrafficPolicy => self.set_policy(&policy(PolicyKind::Traffic), None, touched),
            Kind::AuthorizationPolicy => self.set_policy(&policy(PolicyKind::Authorization), None, touched),
        }
    }

    fn set_policy(&mut self, key: &PolicyKey, new: Option<(Policy, Record)>, touched: &mut Touched) {
        match self.policies.set(key, new) {
            Effect::None => {}
            Effect::Services(services) => touched.extend(services.into_iter().map(Part::Service)),
            Effect::Pods(namespace) => drop(touched.insert(Part::Callers(namespace))),
        }
    }

    fn shared(&mut self, name: Name) -> Name {
        if let Some(known) = self.names.get(&name) {
            return Name::clone(known);
        }
        self.names.insert(Name::clone(&name));
        name
    }

    fn set_namespace(&mut self, name: &Name, new: Option<Namespace>, touched: &mut Touched) {
        let old = match new {
            Some(new) => self.namespaces.insert(Name::clone(name), new),
            None => self.namespaces.remove(name),
        };
        if old != new {
            self.meshes += 1;
        }
        let is_enabled = |namespace: Option<Namespace>| namespace.is_some_and(|found| found.is_enabled);
        if is_enabled(old) != is_enabled(new) {
            // Rare, and it decides how Services without pods are reached.
            let services = self.services.keys().filter(|key| key.namespace == *name);
            touched.extend(services.map(|key| Part::Service(key.clone())));
        }
    }

    fn set_service(&mut self, key: ObjectKey, new: Option<Service>, touched: &mut Touched) {
        if self.services.get(&key) == new.as_ref() {
            return;
        }
        let addresses = |service: &Service| match &service.reach {
            Reach::Addresses(addresses) => addresses.clone(),
            Reach::Pods | Reach::Name(_) => Vec::new(),
        };
        let after = new.as_ref().map(addresses).unwrap_or_default();
        let old = match new {
            Some(new) => self.services.insert(key.clone(), new),
            None => self.services.remove(&key),
        };
        let before = old.as_ref().map(addresses).unwrap_or_default();
        for address in before.iter().filter(|address| !after.contains(address)) {
            leave(&mut self.services_at, *address, &key);
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            self.services_at.entry(*address).or_default().push(key.clone());
        }
        touched.extend(before.into_iter().chain(after).map(Part::Address));
        // Ports decide which Service an address of a pod is of, and what the pod's ports carry.
        self.touch_listed(&key, touched);
        self.book.service_changed(&key);
        self.policies.service_changed(&key);
        touched.insert(Part::Ports(key.clone()));
        touched.insert(Part::Service(key));
    }

    /// Everybody that the slices of a Service name.
    fn touch_listed(&self, service: &ObjectKey, touched: &mut Touched) {
        for slice in self.slices_of(service) {
            for endpoint in &slice.endpoints {
                touch_endpoint(&service.namespace, endpoint, touched);
            }
        }
    }

    fn set_slice(&mut self, key: ObjectKey, new: Option<Slice>, touched: &mut Touched) {
        let old = self.slices.get(&key);
        if old == new.as_ref() {
            return;
        }
        let is_alike = matches!((old, &new), (Some(old), Some(new)) if old.service == new.service && old.ports == new.ports);
        let old = self.slices.remove(&key);
        for (side, other) in [(&old, &new), (&new, &old)] {
            let Some(side) = side else { continue };
            touched.insert(Part::Service(side.service_key(&key)));
            for (place, endpoint) in side.endpoints.iter().enumerate() {
                // Mostly it stands where it stood.
                let is_there = |other: &Slice| {
                    other.endpoints.get(place) == Some(endpoint) || other.endpoints.contains(endpoint)
                };
                if !(is_alike && other.as_ref().is_some_and(is_there)) {
                    touch_endpoint(&key.namespace, endpoint, touched);
                }
            }
        }
        if let Some(old) = &old {
            self.unlist(&key, old);
        }
        if let Some(new) = new {
            self.list(&key, &new);
            self.slices.insert(key, new);
        }
    }

    fn unlist(&mut self, key: &ObjectKey, slice: &Slice) {
        let service = slice.service_key(key);
        for endpoint in &slice.endpoints {
            let Some(listed) = self.listed_at.get_mut(&endpoint.address) else { continue };
            for (found, count) in listed.iter_mut().filter(|(found, _)| *found == service) {
                debug_assert!(*count > 0, "{found} is counted");
                *count = count.saturating_sub(1);
            }
            listed.retain(|(_, count)| *count > 0);
            if listed.is_empty() {
                self.listed_at.remove(&endpoint.address);
            }
        }
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
    }

    fn list(&mut self, key: &ObjectKey, slice: &Slice) {
        let service = slice.service_key(key);
        for endpoint in &slice.endpoints {
            let listed = self.listed_at.entry(endpoint.address).or_default();
            match listed.iter_mut().find(|(found, _)| *found == service) {
                Some((_, count)) => *count += 1,
                None => listed.push((service.clone(), 1)),
            }
        }
        self.slices_of.entry(service).or_default().insert(Name::clone(&key.name));
    }

    fn set_pod(&mut self, key: ObjectKey, new: Option<Pod>, touched: &mut Touched) {
        if self.pods.get(&key) == new.as_ref() {
            return;
        }
        let own = |pod: &Pod| if pod.is_on_host_network { Vec::new() } else { pod.addresses.clone() };
        let all = |pod: Option<&Pod>| pod.map(|pod| pod.addresses.clone()).unwrap_or_default();
        let (after, added) = (new.as_ref().map(own).unwrap_or_default(), all(new.as_ref()));
        let joins = new.as_ref().is_some_and(Pod::is_in_mesh);
        let old = match new {
            Some(new) => self.pods.insert(key.clone(), new),
            None => self.pods.remove(&key),
        };
        let before = old.as_ref().map(own).unwrap_or_default();
        for address in before.iter().filter(|address| !after.contains(address)) {
            leave(&mut self.pods_at, *address, &key);
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            self.pods_at.entry(*address).or_default().push(key.clone());
        }
        for address in all(old.as_ref()).into_iter().chain(added) {
            let services = self.listed_at.get(&address).into_iter().flatten();
            touched.extend(services.map(|(service, _)| Part::Service(service.clone())));
            touched.insert(Part::Address(address));
        }
        self.count_injected(&key.namespace, old.as_ref().is_some_and(Pod::is_in_mesh), joins);
        touched.insert(Part::Pod(key));
    }

    fn count_injected(&mut self, namespace: &Name, was: bool, is: bool) {
        if was == is {
            return;
        }
        let count = self.injected.entry(Name::clone(namespace)).or_default();
        *count = if is { *count + 1 } else { count.saturating_sub(1) };
        self.meshes += u64::from(*count <= 1);
        if *count == 0 {
            self.injected.remove(namespace);
        }
    }
}

fn touch_endpoint(namespace: &Name, endpoint: &SliceEndpoint, touched: &mut Touched) {
    touched.insert(Part::Address(endpoint.address));
    let name = endpoint.pod.as_ref().map(|pod| Name::clone(&pod.name));
    touched.extend(name.map(|name| Part::Pod(ObjectKey { namespace: Name::clone(namespace), name })));
}

fn leave(at: &mut HashMap<IpAddr, Vec<ObjectKey>>, address: IpAddr, key: &ObjectKey) {
    let Some(keys) = at.get_mut(&address) else { return };
    keys.retain(|found| found != key);
    if keys.is_empty() {
        at.remove(&address);
    }
}
