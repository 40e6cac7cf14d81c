//! Keys of `routes`.

use super::{Key, key};
use crate::config::units::Percent;

/// A cluster's share of what a rule matches, beside the others' (as the Gateway API).
pub const SHARE: Key<u64> = key("weight", 1, 0, 1_000_000);
/// Which share of a rule's requests is copied (as the Gateway API).
pub const MIRRORED: Key<Percent> =
    key("percent", Percent::whole(100), Percent::whole(0), Percent::whole(100));
