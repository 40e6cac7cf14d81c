//! Where requests go by what they are: the rules of `routes`, found by host or by service.
//!
//! What holds for the requests of a rule is kept with the clusters that they go to: each of them has a [`Route`] without
//! matches of its own for it, so that policy, rate limits and counters are found as for any other route of the cluster.
//!
//! [`Route`]: super::policy::Route

use std::{collections::HashMap, sync::Arc};

use http::HeaderName;

use super::{cluster::ClusterName, policy::RouteMatch, weighted::WeightedClusters};

/// Every rule of a configuration.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// By canonical authority, with or without a port.
    pub hosts: HashMap<Box<str>, RuleList>,
    /// By what an authority ends with, behind the first label or labels: `shop.example` of `*.shop.example`.
    pub wildcards: HashMap<Box<str>, RuleList>,
    /// By the cluster that requests would go to without rules.
    pub services: HashMap<ClusterName, RuleList>,
    /// All of them as the configuration has them.
    pub routes: Vec<HttpRoute>,
}

/// What is looked at for the requests of one host or service, the most specific first.
pub type RuleList = Vec<Candidate>;

/// One match of a rule.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What a request must be.
    pub matches: Arc<RouteMatch>,
    /// Whose it is then.
    pub rule: Arc<Rule>,
}

/// Rules, and whose requests go by them.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// Its name, unique in the configuration.
    pub name: String,
    /// Canonical authorities, and wildcards as `*.shop.example`.
    pub hosts: Vec<String>,
    /// Clusters whose requests go by it.
    pub services: Vec<ClusterName>,
    /// Its rules.
    pub rules: Vec<Arc<Rule>>,
}

/// Requests of a certain kind, and where they go.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `route/rule`, unique in the configuration: the name of its [`Route`](super::policy::Route) in each of its clusters.
    pub name: Arc<str>,
    /// Which requests these are: any one of them.
    pub matches: Vec<Arc<RouteMatch>>,
    /// Where they go.
    pub clusters: WeightedClusters,
    /// The place of its route in each of the clusters, in their order.
    pub places: Vec<usize>,
    /// What keeps a caller's requests with one of the clusters; `None`: each goes by chance.
    pub sticky: Option<Sticky>,
}

/// What a cluster is chosen by: the same value, the same cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// The value of that field.
    Header(HeaderName),
    /// The value of that cookie.
    Cookie(Box<str>),
}

impl RouteTable {
    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}
