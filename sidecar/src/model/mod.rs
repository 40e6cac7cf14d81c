//! The nouns: what the data side may know, as types that can only hold valid values.
//!
//! Settings (`listener`, `cluster`) come from configuration and never change; runtimes (`runtime`) are counters that
//! outlive a reload; a [`Generation`] is a configuration in force; a [`Snapshot`] binds one consistent version of everything together.

pub mod closed;
pub mod cluster;
pub mod detection;
pub mod dns;
pub mod exceptions;
pub mod file;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flag;
pub mod generation;
pub mod habit;
pub mod handshake;
pub mod histogram;
pub mod identity;
pub mod intercept;
pub mod listener;
pub mod load;
pub mod pool_counts;
pub mod reload;
pub mod runtime;
pub mod settings;
pub mod snapshot;
pub mod status;
pub mod transport;
pub mod wire;

pub use cluster::{Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings};
pub use generation::Generation;
pub use identity::Identity;
pub use listener::{Listener, ListenerKind};
pub use settings::Settings;
pub use snapshot::Snapshot;
