//! Which keys of a sidecar's file policies have: those of how a cluster is called, and none that says where it is or who is
//! expected there.

/// Beside the settings: what a `TrafficPolicy` is about.
pub const TARGETS: &str = "targetRefs";
/// Beside the rules: what an `AuthorizationPolicy` is about.
pub const SELECTOR: &str = "selector";
/// Of `clusters[]`, in the order in which the schema has them.
pub const TRAFFIC: [&str; 19] = [
    "balance",
    "affinity",
    "panic_percent",
    "slow_start",
    "zones",
    "health_check",
    "connect_timeout",
    "queue_timeout",
    "request_timeout",
    "stream_idle_timeout",
    "half_open_timeout",
    "pool_idle_timeout",
    "max_connection_age",
    "retry",
    "outlier_detection",
    "max_requests",
    "max_connections",
    "max_pending",
    "rate_limits",
];
/// Of `authorization`.
pub const AUTHORIZATION: [&str; 2] = ["mode", "rules"];

/// Services that one `TrafficPolicy` is for (GEP-713: 16).
pub const MAX_TARGETS: usize = 16;
/// Labels of one selector.
pub const MAX_LABELS: usize = 16;
/// Rules of one `AuthorizationPolicy`.
pub const MAX_RULES: usize = 64;
/// Entries of one list of a rule.
pub const MAX_ENTRIES: usize = 64;
/// Longest name of an `AuthorizationPolicy` and of a rule, in bytes: together they name the rule at a sidecar.
pub const MAX_NAME_BYTES: usize = 63;
/// Rules of all `AuthorizationPolicies` of a namespace: as many as a sidecar takes.
pub const MAX_RULES_OF_NAMESPACE: usize = 500;
/// Their text in bytes, so that what a sidecar is told of its pod stays below the 64 KiB that it takes.
pub const MAX_BYTES_OF_NAMESPACE: usize = 40 * 1024;
/// The settings of one `TrafficPolicy` as text, in bytes.
pub const MAX_BYTES_OF_SETTINGS: usize = 16 * 1024;
/// Longest explanation in a status, in bytes (Kubernetes: 32768).
pub const MAX_MESSAGE_BYTES: usize = 1024;
