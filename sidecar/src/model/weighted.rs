//! Clusters that share what comes, each by its weight.

use super::cluster::ClusterName;

/// Clusters of one list (Gateway API: 16 `backendRefs`).
pub const MAX_WEIGHTED: usize = 16;

/// A cluster with its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Its name.
    pub name: ClusterName,
    /// Its share beside the others', 0..=1,000,000; with 0 it gets nothing.
    pub weight: u32,
}

/// One to [`MAX_WEIGHTED`] clusters, at least one of them with a weight over 0. Which one something goes to says
/// [`crate::route::weighted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedClusters {
    list: Vec<WeightedCluster>,
    total: u64,
}

impl WeightedClusters {
    /// These clusters, in this order. `None` if none of them gets anything, or there are too many.
    #[must_use]
    pub fn new(list: Vec<WeightedCluster>) -> Option<Self> {
        let total = list.iter().map(|cluster| u64::from(cluster.weight)).sum();
        (total > 0 && list.len() <= MAX_WEIGHTED).then_some(Self { list, total })
    }

    /// Every cluster, in the order of the configuration.
    #[must_use]
    pub fn list(&self) -> &[WeightedCluster] {
        &self.list
    }

    /// The sum of all weights, over 0.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}
