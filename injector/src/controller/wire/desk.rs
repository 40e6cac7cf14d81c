//! The [`Hub`] behind a lock, its bounds, and who is woken when there is something to be told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use outrider_certs::SpiffeId;
use tokio::sync::Notify;

use crate::controller::{
    Limits,
    gateway::{route::RouteKey, status::parents},
    metrics::End,
    model::{
        cluster::Cluster,
        objects::{Event, Name},
    },
    subscriptions::{Change, Hub, Refused, SubscriberId},
};

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

/// A status that differs from what an object says.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// Of this route.
    pub route: RouteKey,
    /// In this version.
    pub version: String,
    /// `status.parents` as it is to be.
    pub parents: Vec<serde_json::Value>,
}

/// The namespace and the service account of a workload of Kubernetes; `None` if the ID is of another form.
#[must_use]
pub fn workload(id: &SpiffeId) -> Option<(&str, &str)> {
    match *id.path().split('/').collect::<Vec<_>>().as_slice() {
        ["", "ns", namespace, "sa", account] => Some((namespace, account)),
        _ => None,
    }
}

impl Desk {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(hub: Hub, limits: Limits) -> Self {
        let inner = Inner { hub, bells: HashMap::new(), of_identity: HashMap::new() };
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

    /// The next status that is to be written. `now` as [`parents`] has it.
    #[must_use]
    pub fn next_status(&self, now: &str) -> Due {
        for _ in 0..LOOKS {
            // The lock is given back between two: streams wait for it.
            let mut inner = self.lock();
            let Some((key, route, record)) = inner.hub.book_mut().take_unsettled() else {
                return Due::Nothing;
            };
            if let Some(parents) = parents(inner.hub.cluster(), &key, (&route, &record), now) {
                return Due::Write(StatusWrite { route: key, version: record.version, parents });
            }
        }
        Due::More
    }

    /// This status could not be written.
    pub fn unsettle(&self, route: &RouteKey) {
        self.lock().hub.book_mut().unsettle(route);
    }

    /// All statuses are to be looked at.
    pub fn unsettle_all(&self) {
        self.lock().hub.book_mut().unsettle_all();
    }

    /// The epoch of all generations.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lock().hub.epoch()
    }

    /// A stream begins: of this identity, in the pod of this name.
    ///
    /// # Errors
    /// Why it may not.
    pub fn subscribe(self: &Arc<Self>, id: &SpiffeId, pod: &str) -> Result<Subscription, End> {
        let (namespace, account) = workload(id).ok_or(End::Denied)?;
        if !self.is_synced() {
            return Err(End::Starting);
        }
        let mut inner = self.lock();
        if inner.bells.len() >= self.limits.streams {
            return Err(End::Limit);
        }
        let of_identity = inner.of_identity.entry(id.clone()).or_default();
        if *of_identity >= self.limits.streams_of_identity {
            return Err(End::Limit);
        }
        *of_identity += 1;
        let number = inner.hub.subscribe(namespace, account, pod);
        let bell = Arc::new(Notify::new());
        inner.bells.insert(number, Arc::clone(&bell));
        inner.ring();
        drop(inner);
        Ok(Subscription { desk: Arc::clone(self), number, bell, id: id.clone() })
    }
}

impl Inner {
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
        Arc::new(Desk::new(Hub::new(world(), 1, 100), limits))
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    #[test]
    fn only_workloads_of_kubernetes_are_served() {
        let desk = desk();
        let orders = id("spiffe://mesh.test/ns/shop/sa/orders");
        assert_eq!(workload(&orders), Some(("shop", "orders")));
        assert_eq!(desk.subscribe(&orders, "").unwrap_err(), End::Starting);
        desk.set_synced();
        desk.subscribe(&orders, "").unwrap();
        for other in
            ["spiffe://mesh.test/orders", "spiffe://mesh.test/ns/shop/sa/orders/more", "spiffe://mesh.test"]
        {
            assert_eq!(desk.subscribe(&id(other), "").unwrap_err(), End::Denied, "{other}");
        }
    }

    #[test]
    fn streams_are_bounded_for_each_identity_and_in_all() {
        let desk = desk();
        desk.set_synced();
        let (one, two) = (id("spiffe://mesh.test/ns/shop/sa/one"), id("spiffe://mesh.test/ns/shop/sa/two"));
        let first = desk.subscribe(&one, "").unwrap();
        let _second = desk.subscribe(&one, "").unwrap();
        assert_eq!(desk.subscribe(&one, "").unwrap_err(), End::Limit);
        let _other = desk.subscribe(&two, "").unwrap();
        assert_eq!(desk.subscribe(&two, "").unwrap_err(), End::Limit);
        drop(first);
        desk.subscribe(&two, "").unwrap();
    }
}
