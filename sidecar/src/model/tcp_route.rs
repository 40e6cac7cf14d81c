//! Where opaque streams go.

use std::{fmt, sync::Arc};

use super::{cluster::ClusterName, weighted::WeightedClusters};

/// All routes of opaque streams, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpRoutes(pub Vec<TcpRoute>);

/// Where opaque streams go that fit all kinds of conditions that are given; at least one is (checked by `config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRoute {
    /// Its name, unique among these routes.
    pub name: Arc<str>,
    /// They would go to one of these clusters otherwise; empty: wherever they would go.
    pub services: Vec<ClusterName>,
    /// They were made to one of these ports; empty: to any.
    pub ports: Vec<u16>,
    /// They are TLS for one of these names; empty: whatever they are.
    pub snis: Vec<Sni>,
    /// Where they go.
    pub clusters: WeightedClusters,
}

/// Names of TLS servers (RFC 6066 §3), in lower case and without the root's dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sni {
    /// This one.
    Exact(Box<str>),
    /// Every name that ends so, with at least one label before it; it begins with the dot.
    Under(Box<str>),
}

impl fmt::Display for Sni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Under(suffix) => write!(f, "*{suffix}"),
        }
    }
}
