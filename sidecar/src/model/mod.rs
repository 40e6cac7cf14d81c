//! The nouns: what the data side may know, as types that can only hold valid values.
//!
//! Settings (`listener`, `cluster`) come from configuration and never change; runtimes (`runtime`) are counters that
//! outlive a reload; a [`Generation`] is a configuration in force; a [`Snapshot`] binds one consistent version of everything together.

pub mod authorization;
pub mod balance;
pub mod closed;
pub mod cluster;
pub mod controller;
pub mod detection;
pub mod dns;
pub mod edge;
pub mod edge_cells;
pub mod edits;
pub mod endpoint;
pub mod exceptions;
pub mod fault;
pub mod federation;
pub mod file;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flag;
pub mod forwarded;
pub mod generation;
pub mod grpc_health;
pub mod habit;
pub mod handshake;
pub mod health;
pub mod health_check;
pub mod histogram;
pub mod identity;
pub mod intercept;
pub mod latency_window;
pub mod lineup;
pub mod listener;
pub mod load;
pub mod log_histogram;
pub mod maglev;
pub mod mirror;
pub mod outlier;
pub mod pending;
pub mod policy;
pub mod pool_counts;
pub mod probe;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod reload;
pub mod retries;
pub mod route_table;
pub mod runtime;
pub mod settings;
pub mod snapshot;
pub mod starvation;
pub mod status;
pub mod statuses;
pub mod tcp_route;
pub mod telemetry;
pub mod trace;
pub mod transport;
pub mod wanted;
pub mod weighted;
pub mod wire;

pub use cluster::{Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings};
pub use generation::Generation;
pub use identity::Identity;
pub use listener::{Listener, ListenerKind};
pub use settings::Settings;
pub use snapshot::Snapshot;
