//! Round-robin: one endpoint after the other, over all workers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Tried;
use crate::model::Endpoint;

/// The next endpoint whose turn it is, passing over those in `tried`; the next one at all if every one was tried.
pub(super) fn choose<'a>(
    endpoints: &'a [Arc<Endpoint>],
    tried: &Tried,
    cursor: &AtomicUsize,
) -> Option<&'a Arc<Endpoint>> {
    let turn = cursor.fetch_add(1, Ordering::Relaxed).checked_rem(endpoints.len())?;
    let in_turn = || endpoints.iter().cycle().skip(turn).take(endpoints.len());
    in_turn().find(|endpoint| !tried.contains(endpoint.address())).or_else(|| in_turn().next())
}
