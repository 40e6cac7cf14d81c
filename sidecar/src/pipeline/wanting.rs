//! The wait for the first word about a destination that nobody knows, where a controller is asked.
//!
//! What is known never comes here. Whoever waits holds nothing but its place, and goes by the newer snapshot as a whole.
//!
//! # Invariants
//! - A destination is asked after once, however many wait, and nobody waits longer for it than the first: once that was in
//!   vain, others are told so at once, until there is an answer.
//! - Without an answer nothing goes anywhere.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use super::{error::ProxyError, worker::Worker};
use crate::{
    model::{Snapshot, wanted::Key},
    net::Net,
    route::{self, AtAddress},
};

/// Asks for it and waits. `load` gives what a request goes by that begins now.
///
/// # Errors
/// [`ProxyError::NotDiscovered`].
pub(super) async fn wait<N: Net>(
    worker: &Worker<N>,
    key: Key,
    load: impl Fn() -> Arc<Snapshot>,
) -> Result<Arc<Snapshot>, ProxyError> {
    let (wanted, now) = (&worker.wanted, worker.now());
    let settings = load().config.settings.bootstrap.controller.clone();
    let in_vain = |key| {
        wanted.in_vain.fetch_add(1, Ordering::Relaxed);
        Err(ProxyError::NotDiscovered(key))
    };
    let Some(settings) = settings else { return in_vain(key) };
    let Some(_place) = wanted.place(settings.max_waiting) else {
        return Err(ProxyError::NotDiscovered(key));
    };
    let Some(since) = wanted.ask(&key, settings.max_wanted, now) else { return in_vain(key) };
    let until = since + settings.wait;
    loop {
        // Before it is looked at: one that is stored meanwhile is not missed.
        let seen = worker.snapshots.load().version;
        let snapshot = load();
        if is_known(&snapshot, &key) {
            wanted.found.fetch_add(1, Ordering::Relaxed);
            return Ok(snapshot);
        }
        drop(snapshot);
        if worker.now() >= until {
            return in_vain(key);
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until.into()) => {}
            _newer = worker.snapshots.until(|newest| newest.version != seen) => {}
        }
    }
}

/// What is to be asked after, before a connection to that address goes anywhere: nobody is known there.
pub(super) fn of_address(snapshot: &Snapshot, address: SocketAddr) -> Option<Key> {
    snapshot.config.settings.bootstrap.controller.as_ref()?;
    let key = Key::address(address);
    (!snapshot.outside.has(&key)).then_some(key)
}

/// The same of a request for that authority, which no cluster has.
pub(super) fn of_authority(snapshot: &Snapshot, authority: &str) -> Option<Key> {
    snapshot.config.settings.bootstrap.controller.as_ref()?;
    let key = Key::name(authority)?;
    (!snapshot.outside.has(&key)).then_some(key)
}

fn is_known(snapshot: &Snapshot, key: &Key) -> bool {
    let has_cluster = match key {
        Key::Address(address) => !matches!(route::at_address(snapshot, *address), AtAddress::Unknown),
        Key::Name(name) => route::find(snapshot, name, None).is_some(),
    };
    has_cluster || snapshot.outside.has(key)
}
