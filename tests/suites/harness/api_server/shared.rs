//! What all connections share, and what a test may turn.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use tokio::sync::watch;

use super::{accounts::Accounts, failure::Failure, request::Call, store::Store};

/// Which calls a test wants refused, with which status and after how many seconds another attempt is welcome.
/// `None` as the call: one for no resource, as `/version`.
pub(super) type Refusal = Arc<dyn Fn(Option<&Call>) -> Option<(u16, Option<u32>)> + Send + Sync>;

/// What a test may turn.
#[derive(Clone)]
pub(super) struct Controls {
    /// How often all watches were dropped.
    pub(super) drops: u64,
    /// How often bookmarks were asked for.
    pub(super) bookmarks: u64,
    /// Watches say nothing.
    pub(super) is_stalled: bool,
    /// Before every answer.
    pub(super) delay: Duration,
    pub(super) refusal: Option<Refusal>,
    pub(super) version: String,
}

/// What all connections share. Locks are taken in this order: accounts, store.
pub(super) struct Shared {
    pub(super) accounts: Mutex<Accounts>,
    pub(super) store: Mutex<Store>,
    pub(super) controls: watch::Sender<Controls>,
    pub(super) calls: Mutex<Vec<Call>>,
    /// Requests that have come in, answered or not.
    pub(super) begun: AtomicUsize,
    /// Where webhooks' Services lead, by namespace and name.
    pub(super) services: Mutex<BTreeMap<(String, String), SocketAddr>>,
    /// One [`Arc`] beyond the first for each watch under way, by resource.
    pub(super) watches: Mutex<BTreeMap<String, Arc<String>>>,
}

impl Shared {
    pub(super) fn count(&self, call: &Call) {
        self.calls.lock().unwrap().push(call.clone());
    }

    pub(super) fn count_watch(&self, resource: &str) -> Arc<String> {
        let mut watches = self.watches.lock().unwrap();
        Arc::clone(watches.entry(resource.to_owned()).or_insert_with(|| Arc::new(resource.to_owned())))
    }

    pub(super) fn refused(&self, call: Option<&Call>) -> Result<(), Failure> {
        let refusal = self.controls.borrow().refusal.clone();
        match refusal.and_then(|refusal| refusal(call)) {
            Some((code, retry_after)) => Err(Failure::wanted(code, retry_after)),
            None => Ok(()),
        }
    }
}
