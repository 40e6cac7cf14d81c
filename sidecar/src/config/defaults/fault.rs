//! Keys of injected faults.

use std::time::Duration;

use super::{HOUR, Key, key, millis, or_none, secs};

/// How long a request that is delayed on purpose waits.
pub const FAULT_DELAY: Key<Duration> = or_none("delay", None, millis(1), secs(HOUR));
/// How many requests are delayed.
pub const FAULT_DELAY_PERCENT: Key<u64> = key("delay_percent", 100, 0, 100);
/// The HTTP status of a request that is aborted on purpose. A success would not be an abort.
pub const FAULT_ABORT: Key<u64> = or_none("abort", None, 400, 599);
/// The gRPC status of one.
pub const FAULT_ABORT_GRPC: Key<u64> = or_none("abort_grpc", None, 1, 16);
/// How many requests are aborted.
pub const FAULT_ABORT_PERCENT: Key<u64> = key("abort_percent", 100, 0, 100);
