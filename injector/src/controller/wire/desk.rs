//! The [`Hub`] behind a lock, its bounds, and who is woken when there is something to be told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use outrider_certs::{SpiffeId, TrustDomain};
use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use crate::controller::{
    Limits,
    gateway::{
        self,
        route::{Route, RouteKey},
        status::parents,
    },
    metrics::End,
    model::{
        cluster::Cluster,
        objects::{Event, Name, ObjectKey},
    },
    subscriptions::{Change, Hub, Refused, SubscriberId},
};
use crate::policy::kept::{PolicyKey, Record};

/// What all streams share.
#[derive(Debug)]
pub struct Desk {
    inner: Mutex<Inner>,
    is_synced: AtomicBool,
    limits: Limits,
}

#[derive(Debug)]
struct Inner {
    hub: Hub,
    bells: HashMap<SubscriberId, Arc<Notify>>,
    of_identity: HashMap<SpiffeId, usize>,
    is_policys_turn: bool,
}

/// Statuses that are looked at in one go.
const LOOKS: usize = 50;

/// What there is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// This one.
    Write(StatusWrite),
    /// Perhaps: there are more to be looked at.
    More,
    /// Nothing: all are as they should be.
    Nothing,
}

/// Whose status.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A route's.
    Route(RouteKey),
    /// A policy's.
    Policy(PolicyKey),
}

/// A status that differs from what an object says.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// Of this object.
    pub subject: Subject,
    /// In this version.
    pub version: String,
    /// As it is to be: the keys of `status` that are ours.
    pub status: Json,
}

/// The namespace and the service account of a workload of Kubernetes; `None` if the ID is of another form or trust domain.
#[must_use]
pub fn workload<'a>(id: &'a SpiffeId, ours: &TrustDomain) -> Option<(&'a str, &'a str)> {
    if id.trust_domain() != ours {
        return None;
    }
    match *id.path().split('/').collect::<Vec<_>>().as_slice() {
        ["", "ns", namespace, "sa", account] => Some((namespace, account)),
        _ => None,
    }
}

impl Desk {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(hub: Hub, limits: Limits) -> Self {
        let inner = Inner { hub, bells: HashMap::new(), of_identity: HashMap::new(), is_policys_turn: false };
        Self { inner: Mutex::new(inner), is_synced: AtomicBool::new(false), limits }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes of the cluster; wakes whom they concern.
    pub fn apply(&self, events: impl IntoIterator<Item = Event>) {
        let mut inner = self.lock();
        inner.hub.apply(events);
        inner.ring();
    }

    /// All objects were listed once: from now on there are answers.
    pub fn set_synced(&self) {
        self.is_synced.store(true, Ordering::Release);
    }

    /// Whether all objects were listed once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.is_synced.load(Ordering::Acquire)
    }

    /// The namespaces with the mesh.
    #[must_use]
    pub fn meshed_namespaces(&self) -> BTreeSet<Name> {
        self.lock().hub.cluster().meshed_namespaces()
    }

    /// Looks at the cluster and the counts of the hub.
    pub fn look<T>(&self, at: impl FnOnce(&Cluster, (usize, usize, usize)) -> T) -> T {
        let inner = self.lock();
        at(inner.hub.cluster(), inner.hub.counts())
    }

    /// The next status that is to be written. `now`: RFC 3339.
    #[must_use]
    pub fn next_status(&self, now: &str) -> Due {
        for _ in 0..LOOKS {
            // The lock is given back between two: streams wait for it.
            let mut inner = self.lock();
            let Some(subject) = inner.next_subject() else { return Due::Nothing };
            let write = match subject {
                Unsettled::Route(key, route, record) => {
                    let parents = parents(inner.hub.cluster(), &key, (&route, &record), now);
                    parents.map(|parents| StatusWrite {
                        subject: Subject::Route(key),
                        version: record.version,
                        status: json!({ "parents": parents }),
                    })
                }
                Unsettled::Policy(key, Record { version, status }) => {
                    let cluster = inner.hub.cluster();
                    let is_there = |service: &ObjectKey| cluster.service(service).is_some();
                    let status = cluster.policies().status(&key, &status, is_there, now);
                    status.map(|status| StatusWrite { subject: Subject::Policy(key), version, status })
                }
            };
            if let Some(write) = write {
                return Due::Write(write);
            }
        }
        Due::More
    }

    /// This status could not be written.
    pub fn unsettle(&self, subject: &Subject) {
        match subject {
            Subject::Route(route) => self.lock().hub.book_mut().unsettle(route),
            Subject::Policy(policy) => self.lock().hub.policies_mut().unsettle(policy),
        }
    }

    /// All statuses are to be looked at.
    pub fn unsettle_all(&self) {
        let mut inner = self.lock();
        inner.hub.book_mut().unsettle_all();
        inner.hub.policies_mut().unsettle_all();
    }

    /// Whether a status is to be looked at.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.look(|cluster, _| cluster.book().is_unsettled() || cluster.policies().is_unsettled())
    }

    /// The epoch of all generations.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lock().hub.epoch()
    }

    /// A stream begins: of this identity, in the pod of this name and UID.
    ///
    /// # Errors
    /// Why it may not.
    pub fn subscribe(self: &Arc<Self>, id: &SpiffeId, pod: (&str, &str)) -> Result<Subscription, End> {
        let mut inner = self.lock();
        let account = workload(id, inner.hub.trust_domain()).ok_or(End::Denied)?;
        if !self.is_synced() {
            return Err(End::Starting);
        }
        if inner.bells.len() >= self.limits.streams {
            return Err(End::Limit);
        }
        let of_identity = inner.of_identity.entry(id.clone()).or_default();
        if *of_identity >= self.limits.streams_of_identity {
            return Err(End::Limit);
        }
        *of_identity += 1;
        let number = inner.hub.subscribe(account, pod);
        let bell = Arc::new(Notify::new());
        inner.bells.insert(number, Arc::clone(&bell));
        inner.ring();
        drop(inner);
        Ok(Subscription { desk: Arc::clone(self), number, bell, id: id.clone() })
    }
}

/// Whose status is to be looked at, with what it is made of.
enum Unsettled {
    Route(RouteKey, Arc<Route>, gateway::route::Record),
    Policy(PolicyKey, Record),
}

impl Inner {
    /// Routes and policies take turns: what cannot be written of one kind is tried again, and must not hold up the other.
    fn next_subject(&mut self) -> Option<Unsettled> {
        self.is_policys_turn = !self.is_policys_turn;
        if self.is_policys_turn {
            self.policy().or_else(|| self.route())
        } else {
            self.route().or_else(|| self.policy())
        }
    }

    fn route(&mut self) -> Option<Unsettled> {
        let (key, route, record) = self.hub.book_mut().take_unsettled()?;
        Some(Unsettled::Route(key, route, record))
    }

    fn policy(&mut self) -> Option<Unsettled> {
        let (key, record) = self.hub.policies_mut().take_unsettled()?;
        Some(Unsettled::Policy(key, record))
    }

    fn ring(&mut self) {
        for number in self.hub.take_woken() {
            if let Some(bell) = self.bells.get(&number) {
                bell.notify_one();
            }
        }
    }
}

/// One stream's place at the desk; given up when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    desk: Arc<Desk>,
    number: SubscriberId,
    bell: Arc<Notify>,
    id: SpiffeId,
}

impl Subscription {
    /// Waits until there may be something to be told.
    pub async fn woken(&self) {
        self.bell.notified().await;
    }

    /// The next thing to be told, as it is now.
    #[must_use]
    pub fn next_change(&self) -> Option<Change> {
        self.desk.lock().hub.next_change(self.number)
    }

    /// As [`Hub::want`].
    ///
    /// # Errors
    /// As [`Hub::want`].
    pub fn want(&self, key: &str) -> Result<(), Refused> {
        let mut inner = self.desk.lock();
        let wanted = inner.hub.want(self.number, key);
        inner.ring();
        wanted
    }

    /// As [`Hub::forget`].
    pub fn forget(&self, key: &str) {
        self.desk.lock().hub.forget(self.number, key);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.desk.lock();
        inner.hub.unsubscribe(self.number);
        inner.bells.remove(&self.number);
        if let Some(count) = inner.of_identity.get_mut(&self.id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.of_identity.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::model::testing::world;

    fn desk() -> Arc<Desk> {
        let limits = Limits { streams: 3, streams_of_identity: 2, ..Limits::default() };
        Arc::new(Desk::new(Hub::new(world(), 1, limits.wants), limits))
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    #[test]
    fn only_workloads_of_kubernetes_are_served() {
        let desk = desk();
        let orders = id("spiffe://mesh.test/ns/shop/sa/orders");
        let ours = TrustDomain::parse("mesh.test").unwrap();
        assert_eq!(workload(&orders, &ours), Some(("shop", "orders")));
        assert_eq!(desk.subscribe(&orders, ("", "")).unwrap_err(), End::Starting);
        desk.set_synced();
        desk.subscribe(&orders, ("", "")).unwrap();
        for other in [
            "spiffe://other.test/ns/shop/sa/orders",
            "spiffe://mesh.test/orders",
            "spiffe://mesh.test/ns/shop/sa/orders/more",
            "spiffe://mesh.test",
        ] {
            assert_eq!(desk.subscribe(&id(other), ("", "")).unwrap_err(), End::Denied, "{other}");
        }
    }

    #[test]
    fn streams_are_bounded_for_each_identity_and_in_all() {
        let desk = desk();
        desk.set_synced();
        let (one, two) = (id("spiffe://mesh.test/ns/shop/sa/one"), id("spiffe://mesh.test/ns/shop/sa/two"));
        let first = desk.subscribe(&one, ("", "")).unwrap();
        let _second = desk.subscribe(&one, ("", "")).unwrap();
        assert_eq!(desk.subscribe(&one, ("", "")).unwrap_err(), End::Limit);
        let _other = desk.subscribe(&two, ("", "")).unwrap();
        assert_eq!(desk.subscribe(&two, ("", "")).unwrap_err(), End::Limit);
        drop(first);
        desk.subscribe(&two, ("", "")).unwrap();
    }
}
