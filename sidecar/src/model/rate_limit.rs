//! Rate limits: what configuration says of them, and the state that outlives a reload.
//!
//! The rules are in `resilience::rate_limit`; here is what they work on. A bucket is one number, the time at which it
//! is full again, so one atomic holds all of it and a bucket that is full is as good as one that was never used.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use outrider_certs::SpiffeId;

use super::{cluster::ClusterSettings, policy::Policy};

/// Callers with a bucket of their own, per limit. Further ones share one bucket until somebody's is full again and makes
/// room: neither memory nor what is let through grows with the number of callers.
pub const MAX_CALLERS: usize = 1024;

/// Limits of one list: each costs every request a compare-and-swap.
pub const MAX_RATE_LIMITS: usize = 4;

/// How many requests (opaque streams, tunnels) may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name, unique among those of one list: what `RateLimit-Policy` and metrics call it.
    pub name: Arc<str>,
    /// So many in each [`RateLimit::per`], 1..=1,000,000.
    pub requests: u32,
    /// The time that `requests` are for, 1 s..=24 h.
    pub per: Duration,
    /// Most of them at once, after a quiet time, 1..=1,000,000.
    pub burst: u32,
    /// Who shares it.
    pub by: By,
    /// Whether answers that pass tell how much is left, too; those that are refused always do.
    pub tells_always: bool,
}

/// Who shares a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Everybody.
    All,
    /// Nobody: each caller has it for itself, by its SPIFFE ID, or by its IP address if it has proved none.
    Caller,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A verified peer.
    Id(SpiffeId),
    /// Somebody who proved nothing, at that address.
    Address(IpAddr),
}

/// What is left of a limit, as the one who asked is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The limit.
    pub limit: RateLimit,
    /// Requests that would be let through at once.
    pub left: u32,
    /// Until there is one more.
    pub wait: Duration,
}

/// A token bucket. Times are nanoseconds since the state's epoch.
#[derive(Debug, Default)]
pub struct Bucket {
    /// When it will be full again: all there is to it.
    pub full_at: AtomicU64,
    /// When it was made.
    pub made_at: u64,
    /// How much was given back to it, in nanoseconds, as a sum.
    pub given_back: AtomicU64,
}

/// What has been used of a limit, over all workers.
#[derive(Debug)]
pub struct RateLimitState {
    /// What nanoseconds are counted from.
    pub epoch: Instant,
    /// Everybody's, or that of the callers beyond [`MAX_CALLERS`].
    pub shared: Bucket,
    /// Each caller's own, for [`By::Caller`]. Replaced as a whole by whoever holds `making_room`.
    pub callers: ArcSwap<HashMap<Caller, Arc<Bucket>>>,
    /// When room was last looked for, in nanoseconds since `epoch`.
    pub making_room: Mutex<Option<u64>>,
    /// Requests refused.
    pub refused: AtomicU64,
    /// Requests of callers beyond [`MAX_CALLERS`], let through or not.
    pub beyond: AtomicU64,
}

impl RateLimitState {
    /// Nothing has been used.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            shared: Bucket::default(),
            callers: ArcSwap::default(),
            making_room: Mutex::default(),
            refused: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
        }
    }
}

/// A limit and what has been used of it.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    /// What configuration says.
    pub limit: RateLimit,
    /// What has been used.
    pub state: Arc<RateLimitState>,
}

impl RateLimiter {
    /// Whether what was used of this limit counts for `limit`, too.
    fn goes_on_as(&self, limit: &RateLimit) -> bool {
        let tells_always = limit.tells_always;
        RateLimit { tells_always, ..self.limit.clone() } == *limit
    }
}

/// The limits of one list of the configuration: of a cluster, or of a route that has its own.
#[derive(Clone, Debug)]
pub struct LimiterList {
    /// The route that it is of; `None`: the cluster's.
    pub route: Option<Arc<str>>,
    /// The list itself: whoever has it in its policy shares these limits.
    settings: Arc<[RateLimit]>,
    /// Each with its state, in the order of the list.
    pub limiters: Vec<RateLimiter>,
}

/// All limits of a cluster.
#[derive(Clone, Debug, Default)]
pub struct RateLimiters {
    /// By the address of the list, so that one is found in a few steps.
    lists: Vec<LimiterList>,
}

impl RateLimiters {
    /// The limits of these settings. What was used of one of `before` that is the same, in a list of the same place,
    /// stays used.
    #[must_use]
    pub fn new(settings: &ClusterSettings, before: Option<&Self>, now: Instant) -> Self {
        let mut lists: Vec<LimiterList> = Vec::new();
        let policies = settings.routes.iter().map(|route| (Some(&route.name), &route.policy));
        for (route, policy) in [(None, &settings.policy)].into_iter().chain(policies) {
            let list = &policy.rate_limits;
            // A route that says nothing of its own has the cluster's list, which came first.
            if list.is_empty() || lists.iter().any(|known| Arc::ptr_eq(&known.settings, list)) {
                continue;
            }
            let before =
                before.and_then(|before| before.lists.iter().find(|known| known.route.as_ref() == route));
            let limiters = list.iter().map(|limit| {
                let used =
                    before.and_then(|before| before.limiters.iter().find(|used| used.goes_on_as(limit)));
                let state = used.map(|used| Arc::clone(&used.state));
                let state = state.unwrap_or_else(|| Arc::new(RateLimitState::new(now)));
                RateLimiter { limit: limit.clone(), state }
            });
            let limiters = limiters.collect();
            lists.push(LimiterList { route: route.cloned(), settings: Arc::clone(list), limiters });
        }
        lists.sort_by_key(|list| address(&list.settings));
        Self { lists }
    }

    /// The limits that hold for a request under that policy of this cluster.
    #[must_use]
    pub fn of(&self, policy: &Policy) -> &[RateLimiter] {
        // The one way that a request without limits goes.
        if self.lists.is_empty() {
            return &[];
        }
        let sought = address(&policy.rate_limits);
        let found = self.lists.binary_search_by_key(&sought, |list| address(&list.settings));
        found.ok().and_then(|index| self.lists.get(index)).map_or(&[], |list| &list.limiters)
    }

    /// Every list, the cluster's first.
    #[must_use]
    pub fn lists(&self) -> Vec<&LimiterList> {
        let mut lists: Vec<_> = self.lists.iter().collect();
        lists.sort_by_key(|list| list.route.clone());
        lists
    }
}

/// What tells lists apart that say the same.
fn address(list: &Arc<[RateLimit]>) -> usize {
    Arc::as_ptr(list).cast::<()>().addr()
}
