//! Keys of `probes[]`.

use std::time::Duration;

use super::{Choice, HOUR, Key, key, millis, secs};

/// For the whole of a probe of the own app.
pub const PROBE_TIMEOUT: Key<Duration> = key("timeout", secs(1), millis(1), secs(HOUR));
/// What probes by HTTP ask for.
pub const PROBE_PATH: &str = "/";
/// Whether they ask by TLS.
pub const PROBE_SCHEME: Choice<bool> =
    Choice { name: "scheme", default: ("http", false), others: &[("https", true)] };
