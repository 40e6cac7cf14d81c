//! Endpoints that the controller has said, on their way to the clusters they are of.
//!
//! A list is of one revision of its service, and so is a cluster's source: a cluster that is still in force as it was before
//! never gets endpoints that were said of what it becomes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    discovery::{EndpointList, Feed, Running, Source, Sources},
    model::{ClusterName, ClusterSettings, EndpointSettings, cluster::EndpointSource},
};

/// The newest list of every service, and who takes it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<HashMap<ClusterName, Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    list: Option<(u64, Arc<[EndpointSettings]>)>,
    taker: Option<Taker>,
}

#[derive(Debug)]
struct Taker {
    revision: u64,
    /// The cluster is outside the mesh: nobody has an ID there.
    is_outside: bool,
    feed: Feed,
}

impl Taker {
    fn take(&self, (revision, list): &(u64, Arc<[EndpointSettings]>)) {
        if *revision == self.revision {
            self.feed.confirm(fitting(list, self.is_outside));
        }
    }
}

/// What can be used of a list: in the mesh nobody is called who could not prove to be expected.
fn fitting(list: &Arc<[EndpointSettings]>, is_outside: bool) -> EndpointList {
    if is_outside {
        let bare =
            |endpoint: &EndpointSettings| EndpointSettings { spiffe_ids: Arc::from([]), ..endpoint.clone() };
        list.iter().map(bare).collect()
    } else if list.iter().all(|endpoint| !endpoint.spiffe_ids.is_empty()) {
        Arc::clone(list)
    } else {
        list.iter().filter(|endpoint| !endpoint.spiffe_ids.is_empty()).cloned().collect()
    }
}

impl Told {
    /// These are the endpoints of a service, in that revision of it.
    pub(super) fn set(&self, service: &str, revision: u64, endpoints: Arc<[EndpointSettings]>) {
        let mut entries = self.lock();
        let entry = entries.entry(ClusterName::new(service)).or_default();
        let list = (revision, endpoints);
        if let Some(taker) = &entry.taker {
            taker.take(&list);
        }
        entry.list = Some(list);
    }

    /// What is known of a service stands, as far as the controller is asked.
    pub(super) fn confirm(&self, service: &str) {
        if let Some(Entry { list: Some(list), taker: Some(taker) }) =
            self.lock().get(&ClusterName::new(service))
        {
            taker.take(list);
        }
    }

    /// Nobody can be asked whether the lists stand.
    pub(super) fn fail(&self, error: &str) {
        for taker in self.lock().values().filter_map(|entry| entry.taker.as_ref()) {
            taker.feed.fail(error.to_owned());
        }
    }

    /// A service is not asked after any more.
    pub(super) fn remove(&self, service: &str) {
        self.lock().remove(&ClusterName::new(service));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClusterName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sources of a configuration, and those of what the controller says.
pub struct WithController {
    /// Those of all other clusters.
    pub others: Arc<dyn Sources>,
    /// What the controller says.
    pub told: Told,
}

impl Sources for WithController {
    fn source(&self, cluster: &ClusterSettings) -> Box<dyn Source> {
        match cluster.source {
            EndpointSource::Controller(revision) => {
                let is_outside = cluster.transport.is_outside();
                Box::new(ToldSource { told: self.told.clone(), revision, is_outside })
            }
            EndpointSource::Static(_) | EndpointSource::File { .. } | EndpointSource::Dns(_) => {
                self.others.source(cluster)
            }
        }
    }
}

struct ToldSource {
    told: Told,
    revision: u64,
    is_outside: bool,
}

impl Source for ToldSource {
    /// Nothing runs: whoever hears the controller writes to the feed.
    fn start(self: Box<Self>, feed: Feed) -> Option<Running> {
        let Self { told, revision, is_outside } = *self;
        let mut entries = told.lock();
        let entry = entries.entry(feed.cluster().clone()).or_default();
        let taker = Taker { revision, is_outside, feed };
        if let Some(list) = &entry.list {
            taker.take(list);
        }
        entry.taker = Some(taker);
        None
    }
}

#[cfg(test)]
mod tests {
    use outrider_certs::SpiffeId;

    use super::*;
    use crate::{
        clock::Clock,
        discovery::Discovery,
        identity::testing::epoch,
        model::{
            cluster::AppProtocol,
            fixture,
            transport::{HttpVersion, PeerKind, Transport},
        },
    };

    const MESH: Transport = Transport::Mesh(PeerKind::Outrider, HttpVersion::Http2);
    const PLAIN: Transport = Transport::Plain(AppProtocol::Auto);

    fn endpoint(port: u16, id: Option<&str>) -> EndpointSettings {
        let ids = id.map(|id| SpiffeId::parse(id).unwrap());
        EndpointSettings::new(([10, 0, 0, 1], port).into(), ids.into_iter().collect())
    }

    fn cluster(revision: u64, transport: Transport) -> Arc<ClusterSettings> {
        let source = EndpointSource::Controller(revision);
        Arc::new(ClusterSettings { source, transport, ..fixture::settings("orders") })
    }

    fn start() -> (Told, Discovery) {
        let told = Told::default();
        let others = Arc::new(crate::discovery::programmable::Programmable::new());
        let sources = WithController { others, told: told.clone() };
        (told, Discovery::new(Arc::new(sources), &Clock::simulated(epoch(), 7)))
    }

    fn known(discovery: &Discovery) -> Option<Vec<(u16, usize)>> {
        let lists = discovery.lists();
        let lists = lists.borrow();
        let list = lists.endpoints(&ClusterName::new("orders"))?;
        Some(list.iter().map(|endpoint| (endpoint.address.port(), endpoint.spiffe_ids.len())).collect())
    }

    #[test]
    fn a_list_reaches_its_cluster_whichever_comes_first() {
        let (told, mut discovery) = start();
        told.set("orders", 1, [endpoint(1, Some("spiffe://t/o"))].into());
        discovery.reconcile(&[cluster(1, MESH)]);
        assert_eq!(known(&discovery), Some(vec![(1, 1)]), "before reconcile returns");
        told.set("orders", 1, [endpoint(2, Some("spiffe://t/o"))].into());
        assert_eq!(known(&discovery), Some(vec![(2, 1)]));
    }

    #[test]
    fn endpoints_of_what_a_service_becomes_are_not_for_what_it_was() {
        let (told, mut discovery) = start();
        told.set("orders", 1, [endpoint(1, None)].into());
        discovery.reconcile(&[cluster(1, PLAIN)]);
        told.set("orders", 2, [endpoint(2, Some("spiffe://t/o"))].into());
        assert_eq!(known(&discovery), Some(vec![(1, 0)]), "it is plaintext as yet");
        discovery.reconcile(&[cluster(2, MESH)]);
        assert_eq!(known(&discovery), Some(vec![(2, 1)]));
    }

    #[test]
    fn in_the_mesh_nobody_is_called_without_a_name_and_outside_nobody_has_one() {
        let (told, mut discovery) = start();
        told.set("orders", 1, [endpoint(1, None), endpoint(2, Some("spiffe://t/o"))].into());
        discovery.reconcile(&[cluster(1, MESH)]);
        assert_eq!(known(&discovery), Some(vec![(2, 1)]));
        discovery.reconcile(&[cluster(1, PLAIN)]);
        assert_eq!(known(&discovery), Some(vec![(1, 0), (2, 0)]));
    }

    #[test]
    fn a_list_ages_until_it_is_confirmed() {
        let (told, mut discovery) = start();
        told.set("orders", 1, [endpoint(1, Some("spiffe://t/o"))].into());
        discovery.reconcile(&[cluster(1, MESH)]);
        let status = Arc::clone(discovery.lists().borrow().status(&ClusterName::new("orders")).unwrap());
        told.fail("away");
        assert_eq!(status.error().as_deref(), Some("away"));
        told.confirm("orders");
        assert_eq!(status.error(), None);
        assert_eq!(known(&discovery), Some(vec![(1, 1)]));
    }
}
