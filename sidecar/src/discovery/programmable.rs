//! Endpoints that a test or a simulation sets while everything runs.

use std::collections::HashMap;

use tokio::sync::watch;

use super::{EndpointList, Feed, Running, Source, Sources, fixed::FixedSource};
use crate::model::{ClusterName, ClusterSettings, EndpointSettings, cluster::EndpointSource};

/// Sources for all clusters, set by hand. Clones share the lists.
///
/// A cluster that was never set has the endpoints of its configuration if those are static, and no answer otherwise.
#[derive(Clone, Debug, Default)]
pub struct Programmable {
    lists: watch::Sender<HashMap<ClusterName, EndpointList>>,
}

impl Programmable {
    /// Nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the endpoints of a cluster, now or when it appears.
    pub fn set(&self, cluster: &ClusterName, endpoints: &[EndpointSettings]) {
        self.lists.send_modify(|lists| {
            lists.insert(cluster.clone(), endpoints.into());
        });
    }
}

impl Sources for Programmable {
    fn source(&self, cluster: &ClusterSettings) -> Box<dyn Source> {
        let otherwise = match &cluster.source {
            EndpointSource::Static(endpoints) => Some(FixedSource::new(endpoints)),
            EndpointSource::File { .. } | EndpointSource::Dns(_) | EndpointSource::Controller(_) => None,
        };
        Box::new(ProgrammableSource { lists: self.lists.subscribe(), otherwise })
    }
}

struct ProgrammableSource {
    lists: watch::Receiver<HashMap<ClusterName, EndpointList>>,
    otherwise: Option<FixedSource>,
}

impl Source for ProgrammableSource {
    fn start(self: Box<Self>, feed: Feed) -> Option<Running> {
        let Self { mut lists, otherwise } = *self;
        let set = lists.borrow_and_update().get(feed.cluster()).cloned();
        match (set, otherwise) {
            (Some(endpoints), _) => feed.confirm(endpoints),
            (None, Some(fixed)) => drop(Box::new(fixed).start(feed.clone())),
            (None, None) => {}
        }
        Some(Box::pin(async move {
            while lists.changed().await.is_ok() {
                let set = lists.borrow_and_update().get(feed.cluster()).cloned();
                if let Some(endpoints) = set {
                    feed.confirm(endpoints);
                }
            }
        }))
    }
}
