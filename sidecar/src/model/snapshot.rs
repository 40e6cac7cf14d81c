//! The snapshot: one immutable, consistent version of everything the data side may know.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use tokio::sync::watch;

use super::{
    cluster::{Cluster, ClusterName, Endpoint, ServiceAddress},
    generation::Generation,
    identity::Identity,
    wanted::Outside,
};

/// One version of everything. A request loads it once and passes it down; a later version never mixes in.
#[derive(Debug)]
pub struct Snapshot {
    /// Raised by one with every publication; 0 is the snapshot before the first, without clusters.
    pub version: u64,
    /// The configuration that everything in it is of.
    pub config: Arc<Generation>,
    /// Who we are; `None` until the first certificate is there.
    pub identity: Option<Arc<Identity>>,
    /// Every cluster, the `inbound/…` ones included.
    pub clusters: IndexMap<ClusterName, Arc<Cluster>>,
    /// Authority (lower case, with or without port) to cluster; every value is a key of `clusters`.
    pub routes: HashMap<Box<str>, ClusterName>,
    /// Who is at which address. Empty unless connections are intercepted.
    pub addresses: Addresses,
    /// What leads out of the cluster, as the controller has said.
    pub outside: Arc<Outside>,
}

/// Who is at which address; every cluster is one of the snapshot's.
#[derive(Debug, Default)]
pub struct Addresses {
    /// By service address.
    pub services: HashMap<ServiceAddress, ClusterName>,
    /// By the address of one endpoint; of several clusters that have it, the first of the configuration.
    pub endpoints: HashMap<SocketAddr, (ClusterName, Arc<Endpoint>)>,
}

impl Snapshot {
    /// The snapshot before the first: nothing is known but the configuration.
    #[must_use]
    pub fn empty(config: Arc<Generation>) -> Self {
        Self {
            version: 0,
            config,
            identity: None,
            clusters: IndexMap::new(),
            routes: HashMap::new(),
            addresses: Addresses::default(),
            outside: Arc::default(),
        }
    }

    /// The cluster of that name.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }
}

/// Where the newest snapshot is found. Only `publish` stores one. Clones share it.
#[derive(Clone, Debug)]
pub struct Snapshots {
    current: Arc<ArcSwap<Snapshot>>,
    version: Arc<watch::Sender<u64>>,
}

impl Snapshots {
    /// Begins with `first`.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        let version = Arc::new(watch::Sender::new(first.version));
        Self { current: Arc::new(ArcSwap::from_pointee(first)), version }
    }

    /// The newest snapshot. Wait-free.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces it. For `publish` only.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        let version = snapshot.version;
        self.current.store(snapshot);
        self.version.send_replace(version);
    }

    /// Waits for a snapshot of which `is_it` holds; for the control side, and for a request that has nobody to go to.
    pub async fn until(&self, is_it: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut version = self.version.subscribe();
        loop {
            version.borrow_and_update();
            let snapshot = self.load();
            if is_it(&snapshot) {
                return snapshot;
            }
            if version.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
