//! Finds the endpoints of each cluster and keeps looking.
//!
//! ```text
//!   source (fixed | file | dns | controller | programmable) ──Feed──▶ Lists ──▶ publish ──▶ snapshot
//! ```
//! One source per cluster. What it finds replaces what it found before: the latest list per cluster, never a queue.
//!
//! # Invariants
//! - A source that fails leaves the last good list in place; its age is visible in [`DiscoveryStatus`].
//! - A cluster whose source is replaced keeps its list until the new source has an answer.
//! - A source that was stopped cannot change anything any more.

pub mod controller;
pub mod dns;
pub mod file;
pub mod fixed;
pub mod programmable;

use std::{future::Future, pin::Pin, sync::Arc};

use indexmap::IndexMap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    dns::{DnsSource, Resolvers},
    file::FileSource,
    fixed::FixedSource,
};
use crate::{
    clock::Clock,
    drain,
    model::{
        ClusterName, ClusterSettings, EndpointSettings, cluster::EndpointSource, status::DiscoveryStatus,
        transport::ExpectedIds,
    },
};

/// The endpoints of one cluster at one time.
pub type EndpointList = Arc<[EndpointSettings]>;

/// The rest of a source's life.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads an endpoints file; who must answer at endpoints that name no ID is told with it. Fails with what is wrong, for people.
pub type Parse = fn(&str, &ExpectedIds) -> Result<Vec<EndpointSettings>, String>;

/// Finds the endpoints of one cluster.
pub trait Source: Send + 'static {
    /// Starts looking. What is known at once goes to `feed` before this returns; what takes time, or repeats, is the
    /// future's job. It is dropped when the cluster goes or gets another source.
    fn start(self: Box<Self>, feed: Feed) -> Option<Running>;
}

/// Makes the source of a cluster: the seam where tests and simulations put their own.
pub trait Sources: Send + Sync + 'static {
    /// The source for a cluster with these settings.
    fn source(&self, cluster: &ClusterSettings) -> Box<dyn Source>;
}

/// The sources that a configuration can name.
#[derive(Debug)]
pub struct Configured {
    parse: Parse,
    resolvers: Resolvers,
}

impl Configured {
    /// Endpoint files are read by `parse`; who is asked in the DNS, each cluster's settings say.
    #[must_use]
    pub fn new(parse: Parse) -> Self {
        Self { parse, resolvers: Resolvers::default() }
    }
}

impl Sources for Configured {
    fn source(&self, cluster: &ClusterSettings) -> Box<dyn Source> {
        match &cluster.source {
            EndpointSource::Static(endpoints) => Box::new(FixedSource::new(endpoints)),
            EndpointSource::File { path, default_spiffe_ids } => {
                Box::new(FileSource::new(path.clone(), cluster.expected(default_spiffe_ids), self.parse))
            }
            EndpointSource::Dns(settings) => {
                Box::new(DnsSource::new(settings.clone(), self.resolvers.of(&settings.resolver)))
            }
            // `controller::WithController` has these.
            EndpointSource::Controller(_) => Box::new(FixedSource::new(&[])),
        }
    }
}

/// The newest list of every cluster.
#[derive(Debug, Default)]
pub struct Lists {
    slots: IndexMap<ClusterName, Slot>,
}

#[derive(Debug)]
struct Slot {
    /// The feed that may write here.
    feed: u64,
    endpoints: Option<EndpointList>,
    /// There is no answer, and nothing waits for it any more.
    is_overdue: bool,
    status: Arc<DiscoveryStatus>,
}

impl Lists {
    /// The list of a cluster; `None` until its source has answered.
    #[must_use]
    pub fn endpoints(&self, cluster: &ClusterName) -> Option<&EndpointList> {
        self.slots.get(cluster)?.endpoints.as_ref()
    }

    /// Whether the cluster's source has answered, or had its time.
    #[must_use]
    pub fn has_answered(&self, cluster: &ClusterName) -> bool {
        self.slots.get(cluster).is_some_and(Slot::has_answered)
    }

    /// How finding a cluster's endpoints goes.
    #[must_use]
    pub fn status(&self, cluster: &ClusterName) -> Option<&Arc<DiscoveryStatus>> {
        self.slots.get(cluster).map(|slot| &slot.status)
    }

    /// Whether every cluster's source has answered, or had its time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.slots.values().all(Slot::has_answered)
    }
}

impl Slot {
    fn has_answered(&self) -> bool {
        self.endpoints.is_some() || self.is_overdue
    }
}

/// Where one source puts what it finds.
#[derive(Clone, Debug)]
pub struct Feed {
    cluster: ClusterName,
    number: u64,
    to: watch::Sender<Lists>,
    status: Arc<DiscoveryStatus>,
    clock: Clock,
}

impl Feed {
    /// Whose endpoints these are.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The source has looked: this is the list. Whoever waits for lists is woken only if it changed.
    pub fn confirm(&self, endpoints: EndpointList) {
        self.replace(endpoints, false);
    }

    /// The list is part of the configuration: it has no age.
    pub fn confirm_constant(&self, endpoints: EndpointList) {
        self.replace(endpoints, true);
    }

    /// The source has looked and found nothing usable: the last good list stays and ages.
    pub fn fail(&self, error: String) {
        self.to.send_if_modified(|lists| {
            if self.slot(lists).is_some() {
                self.status.fail(error);
            }
            false
        });
    }

    /// The source has looked long enough for a start: nothing waits for its first answer any more. Until there is one
    /// the cluster has no endpoints. Whether something did wait.
    pub fn give_up_waiting(&self) -> bool {
        self.to.send_if_modified(|lists| {
            let Some(slot) = self.slot(lists).filter(|slot| slot.endpoints.is_none()) else { return false };
            !std::mem::replace(&mut slot.is_overdue, true)
        })
    }

    /// How finding the endpoints goes.
    #[must_use]
    pub fn status(&self) -> &DiscoveryStatus {
        &self.status
    }

    /// The source's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn replace(&self, endpoints: EndpointList, is_constant: bool) {
        self.to.send_if_modified(|lists| {
            let Some(slot) = self.slot(lists) else { return false };
            self.status.set_constant(is_constant);
            self.status.confirm(self.clock.now());
            let is_new = slot.endpoints.as_ref() != Some(&endpoints);
            if is_new {
                slot.endpoints = Some(endpoints);
            }
            is_new
        });
    }

    /// Where the cluster's list stands, if this feed is still the cluster's.
    fn slot<'a>(&self, lists: &'a mut Lists) -> Option<&'a mut Slot> {
        lists.slots.get_mut(&self.cluster).filter(|slot| slot.feed == self.number)
    }
}

/// The sources of all clusters, and what they found.
pub struct Discovery {
    sources: Arc<dyn Sources>,
    lists: watch::Sender<Lists>,
    running: IndexMap<ClusterName, RunningSource>,
    feeds: u64,
    clock: Clock,
}

/// A source at work; it ends when this is dropped.
struct RunningSource {
    of: EndpointSource,
    /// Its endpoints name no SPIFFE IDs.
    is_outside: bool,
    _stop: DropGuard,
}

impl Discovery {
    /// Finds nothing until [`reconcile`](Self::reconcile) says for whom.
    #[must_use]
    pub fn new(sources: Arc<dyn Sources>, clock: &Clock) -> Self {
        let lists = watch::Sender::new(Lists::default());
        Self { sources, lists, running: IndexMap::new(), feeds: 0, clock: clock.clone() }
    }

    /// The newest lists, to wait on.
    #[must_use]
    pub fn lists(&self) -> watch::Receiver<Lists> {
        self.lists.subscribe()
    }

    /// Starts sources for clusters that are new or have another source, on the runtime of the caller, and stops those
    /// of clusters that are gone.
    pub fn reconcile(&mut self, clusters: &[Arc<ClusterSettings>]) {
        let is_wanted = |name: &ClusterName| clusters.iter().any(|cluster| cluster.name == *name);
        self.running.retain(|name, _| is_wanted(name));
        self.lists.send_if_modified(|lists| {
            let before = lists.slots.len();
            lists.slots.retain(|name, _| is_wanted(name));
            lists.slots.len() != before
        });
        for cluster in clusters {
            let is_same = |running: &RunningSource| {
                running.of == cluster.source && running.is_outside == cluster.transport.is_outside()
            };
            if !self.running.get(&cluster.name).is_some_and(is_same) {
                self.start(cluster);
            }
        }
    }

    fn start(&mut self, cluster: &ClusterSettings) {
        let stop = CancellationToken::new();
        let running = self.sources.source(cluster).start(self.feed(&cluster.name));
        if let Some(rest) = running {
            let stop = stop.clone();
            drain::spawn_background(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = rest => {}
                }
            });
        }
        let running = RunningSource {
            of: cluster.source.clone(),
            is_outside: cluster.transport.is_outside(),
            _stop: stop.drop_guard(),
        };
        self.running.insert(cluster.name.clone(), running);
    }

    /// A feed for the cluster, in place of any it had.
    fn feed(&mut self, cluster: &ClusterName) -> Feed {
        self.feeds += 1;
        let number = self.feeds;
        let mut status = None;
        self.lists.send_if_modified(|lists| {
            let slot = lists.slots.entry(cluster.clone()).or_insert_with(|| Slot {
                feed: number,
                endpoints: None,
                is_overdue: false,
                status: Arc::new(DiscoveryStatus::new(self.clock.now())),
            });
            slot.feed = number;
            status = Some(Arc::clone(&slot.status));
            false
        });
        let status = status.expect("the closure above always runs");
        Feed { cluster: cluster.clone(), number, to: self.lists.clone(), status, clock: self.clock.clone() }
    }
}

#[cfg(test)]
mod tests;
