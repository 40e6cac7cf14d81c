//! Keys of `routes`.

use super::{Key, key};

/// A cluster's share of what a rule matches, beside the others' (as the Gateway API).
pub const SHARE: Key<u64> = key("weight", 1, 0, 1_000_000);
