//! Keys of discovery by the controller.

use std::time::Duration;

use super::{HOUR, Key, key, millis, secs};

/// For the first word about where something goes: longer than a controller takes to start again behind its Service, shorter
/// than most callers wait.
pub const CONTROLLER_WAIT: Key<Duration> = key("wait", secs(5), millis(10), secs(60));
/// After which what is not used is asked after no more. Short ones are for tests.
pub const CONTROLLER_IDLE: Key<Duration> = key("idle", secs(HOUR), secs(1), secs(24 * HOUR));
/// Addresses and names asked after at a time: as many as the controller takes on a stream.
pub const MAX_WANTED: Key<u64> = key("max_wanted", 4096, 1, 4096);
/// Connections and requests that wait at a time.
pub const MAX_WAITING: Key<u64> = key("max_waiting", 1024, 1, 100_000);
