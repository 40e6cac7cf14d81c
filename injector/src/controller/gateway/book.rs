//! All routes and grants that are known, found by what they refer to.
//!
//! # Invariants
//! - A change touches the routes of a Service only if it can change what is told of them.
//! - A route whose status may have to be written is unsettled until somebody has looked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    grant::Grant,
    route::{Record, Route, RouteKey, RouteKind, Routed, To},
};
use crate::controller::model::{
    cluster::{Part, Touched},
    objects::{Name, ObjectKey},
    rounds::Rounds,
};

type Routes = BTreeSet<RouteKey>;

/// Routes and grants.
#[derive(Debug, Default)]
pub struct Book {
    routes: BTreeMap<RouteKey, Routed>,
    /// Routes with this Service as a parent.
    of_parent: HashMap<ObjectKey, Routes>,
    /// Routes with this Service as a backend.
    of_backend: HashMap<ObjectKey, Routes>,
    grants: HashMap<ObjectKey, Grant>,
    unsettled: Rounds<RouteKey>,
}

impl Book {
    /// A route is new, or changed, or gone.
    pub fn set_route(&mut self, key: RouteKey, new: Option<Routed>, touched: &mut Touched) {
        let old = self.routes.get(&key);
        if old == new.as_ref() {
            return;
        }
        let is_same = matches!((old, &new), (Some(old), Some(new)) if old.route == new.route);
        self.unsettled.insert(key.clone());
        if is_same {
            // Only its status, or what is not read of it: what was read is kept, that many share.
            if let (Some(known), Some(new)) = (self.routes.get_mut(&key), new) {
                known.record = new.record;
            }
            return;
        }
        if let Some(old) = self.routes.remove(&key) {
            self.unlist(&key, &old.route, touched);
        }
        match new {
            Some(new) => {
                self.list(&key, &new.route, touched);
                self.routes.insert(key, new);
            }
            None => self.unsettled.remove(&key),
        }
    }

    fn list(&mut self, key: &RouteKey, route: &Route, touched: &mut Touched) {
        for parent in &route.parents {
            self.of_parent.entry(parent.service.clone()).or_default().insert(key.clone());
            self.touch(&parent.service, touched);
        }
        for service in backends(route) {
            self.of_backend.entry(service.clone()).or_default().insert(key.clone());
        }
    }

    fn unlist(&mut self, key: &RouteKey, route: &Route, touched: &mut Touched) {
        for parent in &route.parents {
            leave(&mut self.of_parent, &parent.service, key);
            self.touch(&parent.service, touched);
        }
        for service in backends(route) {
            leave(&mut self.of_backend, service, key);
        }
    }

    /// The routes of a Service are others. Where one comes or goes, others may win or lose.
    fn touch(&mut self, service: &ObjectKey, touched: &mut Touched) {
        touched.insert(Part::Routes(service.clone()));
        self.unsettled.extend(self.of_parent.get(service).into_iter().flatten().cloned());
    }

    /// A grant is new, or changed, or gone.
    pub fn set_grant(&mut self, key: ObjectKey, new: Option<Grant>, touched: &mut Touched) {
        if self.grants.get(&key) == new.as_ref() {
            return;
        }
        // Grants are few and change rarely: all routes with a backend in this namespace are looked at.
        let is_into = |(service, _): &(&ObjectKey, &Routes)| service.namespace == key.namespace;
        let into: Routes =
            self.of_backend.iter().filter(is_into).flat_map(|(_, routes)| routes).cloned().collect();
        for route in into {
            for parent in self
                .routes
                .get(&route)
                .map(|found| Arc::clone(&found.route))
                .iter()
                .flat_map(|it| &it.parents)
            {
                touched.insert(Part::Routes(parent.service.clone()));
            }
            self.unsettled.insert(route);
        }
        match new {
            Some(new) => drop(self.grants.insert(key, new)),
            None => drop(self.grants.remove(&key)),
        }
    }

    /// A Service is new, or has other ports, or is gone: statuses say so.
    pub fn service_changed(&mut self, service: &ObjectKey) {
        for routes in [self.of_parent.get(service), self.of_backend.get(service)].into_iter().flatten() {
            self.unsettled.extend(routes.iter().cloned());
        }
    }

    /// A route.
    #[must_use]
    pub fn route(&self, key: &RouteKey) -> Option<&Routed> {
        self.routes.get(key)
    }

    /// Keys of all routes of a kind.
    pub fn keys(&self, kind: RouteKind) -> impl Iterator<Item = &ObjectKey> {
        self.routes.keys().filter(move |key| key.kind == kind).map(|key| &key.key)
    }

    /// Keys of all grants.
    pub fn grants(&self) -> impl Iterator<Item = &ObjectKey> {
        self.grants.keys()
    }

    /// Routes with this Service as a parent.
    pub fn of_parent(&self, service: &ObjectKey) -> impl Iterator<Item = (&RouteKey, &Route)> {
        let keys = self.of_parent.get(service).into_iter().flatten();
        keys.filter_map(|key| self.routes.get(key).map(|found| (key, &*found.route)))
    }

    /// Whether a route of this kind in `namespace` may refer to a Service of another one.
    #[must_use]
    pub fn permits(&self, kind: RouteKind, namespace: &Name, service: &ObjectKey) -> bool {
        let mut grants = self.grants.iter().filter(|(key, _)| key.namespace == service.namespace);
        grants.any(|(_, grant)| grant.permits(kind, namespace, &service.name))
    }

    /// All statuses are to be looked at.
    pub fn unsettle_all(&mut self) {
        self.unsettled.extend(self.routes.keys().cloned());
    }

    /// The status of this route is to be looked at again.
    pub fn unsettle(&mut self, key: &RouteKey) {
        if self.routes.contains_key(key) {
            self.unsettled.insert(key.clone());
        }
    }

    /// Whether there is a status to be looked at.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// The next route whose status is to be looked at.
    pub fn take_unsettled(&mut self) -> Option<(RouteKey, Arc<Route>, Record)> {
        while let Some(key) = self.unsettled.take() {
            if let Some(found) = self.routes.get(&key) {
                let (route, record) = (Arc::clone(&found.route), found.record.clone());
                return Some((key, route, record));
            }
        }
        None
    }
}

/// The Services that a route refers to.
fn backends(route: &Route) -> impl Iterator<Item = &ObjectKey> {
    let backends = route.rules.iter().flat_map(|rule| {
        let list = match &rule.to {
            To::Backends(list) => list.as_slice(),
            To::Elsewhere | To::Nobody => &[],
        };
        list.iter().chain(rule.mirrors.iter().map(|mirror| &mirror.backend))
    });
    backends.filter_map(|backend| backend.service.as_ref().ok().map(|(key, _)| key))
}

fn leave(from: &mut HashMap<ObjectKey, Routes>, service: &ObjectKey, key: &RouteKey) {
    if let Some(routes) = from.get_mut(service) {
        routes.remove(key);
        if routes.is_empty() {
            from.remove(service);
        }
    }
}
