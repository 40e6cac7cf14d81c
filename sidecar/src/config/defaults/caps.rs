//! How much may be under way.

use super::{Key, key};

/// Requests under way in a cluster (as Envoy).
pub const MAX_REQUESTS: Key<u64> = key("max_requests", 1024, 1, 1_000_000);
/// Connections of a cluster (as Envoy).
pub const MAX_CONNECTIONS: Key<u64> = key("max_connections", 1024, 1, 1_000_000);
/// Requests of a cluster that wait for a connection (as Envoy).
pub const MAX_PENDING: Key<u64> = key("max_pending", 1024, 1, 1_000_000);
/// What one caller may have of `max_requests`, in percent: whoever holds requests open leaves room for others (nobody else
/// has such a bound by default).
pub const MAX_PEER_PERCENT: Key<u64> = key("max_peer_percent", 75, 1, 100);
