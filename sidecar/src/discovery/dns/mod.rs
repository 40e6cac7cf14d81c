//! Endpoints from the DNS: addresses of a name (A, AAAA), or the targets of a service (SRV).
//!
//! ```text
//!   Resolver ──Look──▶ judge (pure) ──▶ Feed
//!      ▲                  │ what was known before
//!      ╰──── schedule ◀───╯  (pure: TTL, jitter, backoff)
//! ```
//! Asking (`resolver`, `servers`), reading answers (`answer`), deciding what they mean (`judge`) and when to ask again
//! (`schedule`) are apart, so that a simulation can answer in place of the DNS and everything else is the same.
//!
//! # Invariants
//! - A failure (no answer, SERVFAIL, nonsense) changes nothing: the last good answer stays, and its age is a metric.
//! - That there is nothing (no such name, no such records) is believed after it was said for `empty_after`, and at
//!   once if there never was anything.
//! - An answer counts as long as the smallest TTL on the way to it, within the configured bounds; nothing is cached
//!   beyond that, and nobody else's cache is in between but the server's own.
//! - The list is sorted and without duplicates: servers that rotate their answers change nothing.
//! - One line in the log per change of state, not per failure.

mod answer;
mod judge;
mod resolver;
mod runtime;
mod schedule;
mod servers;

use std::{
    future::Future,
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use self::judge::{Memory, Verdict};
use super::{EndpointList, Feed, Running, Source};
use crate::model::{EndpointSettings, dns::DnsSettings, status::LookupOutcome};

pub use resolver::{Resolver, Resolvers};

/// Longest wait after a failure while the start waits for the first answer.
const STARTING_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// One look under way.
pub type Looking<'a> = Pin<Box<dyn Future<Output = Look> + Send + 'a>>;

/// Answers for a whole cluster: the seam where simulations put their own DNS.
pub trait Lookup: Send + Sync + 'static {
    /// Asks everything that it takes to know the endpoints. Bounded in time.
    fn look<'a>(&'a self, settings: &'a DnsSettings) -> Looking<'a>;
}

/// What one look found, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Each question that gives endpoints, with its answer. Never empty.
    pub parts: Vec<Part>,
    /// The smallest TTL of all records on the way to the endpoints; `None` if there is none.
    pub ttl: Option<Duration>,
    /// Addresses that were left out because no endpoint can have them: unspecified, multicast, broadcast, link-local.
    pub dropped: usize,
}

/// One question that gives endpoints: the addresses of one family of a name, or of a service's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What was asked; the same question is called the same in every look.
    pub question: String,
    /// The answer. Endpoints may stand in it twice, and in any order.
    pub answer: Result<Vec<SocketAddr>, Failure>,
}

/// Why a question gave no endpoints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such name (NXDOMAIN).
    #[error("no such name")]
    NoSuchName,
    /// The name has no such records (NODATA).
    #[error("the name has no such records")]
    NoData,
    /// A server answered that it cannot or will not tell.
    #[error("the DNS server answered {0}")]
    Refused(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Whether it is an answer: that there is nothing.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        match self {
            Self::NoSuchName | Self::NoData => true,
            Self::Refused(_) | Self::Timeout | Self::Other(_) => false,
        }
    }

    fn outcome(&self) -> LookupOutcome {
        match self {
            Self::NoSuchName => LookupOutcome::NoSuchName,
            Self::NoData => LookupOutcome::NoData,
            Self::Refused(_) => LookupOutcome::Refused,
            Self::Timeout => LookupOutcome::Timeout,
            Self::Other(_) => LookupOutcome::Failed,
        }
    }
}

/// A cluster's name in the DNS, resolved whenever its answer has run out.
pub struct DnsSource {
    settings: DnsSettings,
    lookup: Arc<dyn Lookup>,
}

impl DnsSource {
    /// Resolves what `settings` say by asking `lookup`.
    #[must_use]
    pub fn new(settings: DnsSettings, lookup: Arc<dyn Lookup>) -> Self {
        Self { settings, lookup }
    }
}

impl Source for DnsSource {
    fn start(self: Box<Self>, feed: Feed) -> Option<Running> {
        let start_timeout = self.settings.resolver.start_timeout;
        let rng = feed.clock().fork_rng();
        let (overdue, name) = (feed.clone(), self.settings.name.clone());
        let started = feed.clock().now();
        let watched = Watched {
            source: *self,
            feed,
            rng,
            memory: Memory::default(),
            failures: 0,
            state: State::Unknown,
            starting_until: started + start_timeout,
            listed: None,
            dropped: 0,
        };
        Some(Box::pin(async move {
            let overdue = async {
                tokio::time::sleep(start_timeout).await;
                if overdue.give_up_waiting() && overdue.status().error().is_none() {
                    let cluster = overdue.cluster();
                    tracing::warn!(%cluster, name, "the start goes on without an answer from the DNS");
                    overdue.fail(Failure::Timeout.to_string());
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = watched.run() => {}
                () = overdue => {}
            }
        }))
    }
}

/// The name, and what came of the looks so far.
struct Watched {
    source: DnsSource,
    feed: Feed,
    rng: fastrand::Rng,
    memory: Memory,
    /// Looks in a row that were not wholly good.
    failures: u32,
    state: State,
    /// Until then the process may be waiting for the first answer.
    starting_until: Instant,
    listed: Option<EndpointList>,
    /// Addresses that the newest look left out.
    dropped: usize,
}

/// What was logged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    Unknown,
    /// Endpoints.
    Good,
    /// Endpoints, with a part missing.
    Incomplete,
    /// The last good list, because nothing was said to be there.
    Doubted,
    /// No endpoints, because nothing is there.
    Empty,
    /// The last good list, because of a failure.
    Failing,
}

impl Watched {
    async fn run(mut self) {
        loop {
            let look = self.source.lookup.look(&self.source.settings).await;
            let delay = self.take(look);
            tokio::time::sleep(delay).await;
        }
    }

    /// Time until the next look after one that was not wholly good.
    fn back_off(&mut self, now: Instant) -> Duration {
        let delay = schedule::after_failure(self.failures, &mut self.rng);
        let is_awaited = self.listed.is_none() && now < self.starting_until;
        if is_awaited { delay.min(STARTING_BACKOFF_MAX) } else { delay }
    }

    /// Acts on what a look found; returns the time until the next.
    fn take(&mut self, look: Look) -> Duration {
        let settings = &self.source.settings;
        let (now, ttl) = (self.feed.clock().now(), look.ttl);
        if mem::replace(&mut self.dropped, look.dropped) != look.dropped && look.dropped > 0 {
            let (cluster, name, dropped) = (self.feed.cluster(), &settings.name, look.dropped);
            tracing::warn!(%cluster, name, dropped, "addresses that no endpoint can have are left out");
        }
        let verdict = judge::judge(&mut self.memory, look, settings.empty_after, now);
        self.feed.status().lookups.count(verdict.outcome());
        self.failures = if verdict.is_good() { 0 } else { self.failures.saturating_add(1) };
        match verdict {
            Verdict::Answer { endpoints, trouble } => {
                let ttl = schedule::ttl(ttl, settings.min_ttl, settings.max_ttl);
                self.feed.status().lookups.set_ttl(ttl);
                let again = schedule::after_answer(ttl, &mut self.rng);
                self.confirm(&endpoints, trouble.as_ref());
                let Some(trouble) = trouble else { return again };
                self.feed.fail(trouble.to_string());
                again.min(self.back_off(now))
            }
            Verdict::Empty(failure) => {
                self.confirm_empty(&failure);
                self.back_off(now)
            }
            Verdict::Doubted { failure, believed_in } => {
                self.keep(State::Doubted, &failure);
                let again = self.back_off(now);
                believed_in.map_or(again, |left| again.min(left))
            }
            Verdict::Failed(failure) => {
                self.keep(State::Failing, &failure);
                self.back_off(now)
            }
        }
    }

    fn confirm(&mut self, endpoints: &[SocketAddr], trouble: Option<&Failure>) {
        let (cluster, name) = (self.feed.cluster(), &self.source.settings.name);
        let count = endpoints.len();
        match (self.state, trouble) {
            (State::Good, None) | (State::Incomplete, Some(_)) => {}
            (_, None) => {
                self.state = State::Good;
                tracing::info!(%cluster, name, count, "name resolved");
            }
            (_, Some(trouble)) => {
                self.state = State::Incomplete;
                tracing::warn!(%cluster, name, count, %trouble, "name resolved, but not wholly");
            }
        }
        self.list(endpoints);
    }

    fn confirm_empty(&mut self, failure: &Failure) {
        let (cluster, name) = (self.feed.cluster(), &self.source.settings.name);
        if self.state != State::Empty {
            self.state = State::Empty;
            tracing::warn!(%cluster, name, %failure, "the cluster has no endpoints");
        }
        self.list(&[]);
    }

    /// The last good list stays.
    fn keep(&mut self, state: State, failure: &Failure) {
        let (cluster, name) = (self.feed.cluster(), &self.source.settings.name);
        if self.state != state {
            self.state = state;
            // Without one, the count is 0.
            let count = self.listed.as_ref().map_or(0, |listed| listed.len());
            tracing::warn!(%cluster, name, %failure, count, "name not resolved; the endpoints known so far stay");
        }
        self.feed.fail(failure.to_string());
    }

    /// Confirms these endpoints. The same list object is kept as long as nothing changes.
    fn list(&mut self, endpoints: &[SocketAddr]) {
        let is_same = |listed: &EndpointList| {
            listed.iter().map(|endpoint| endpoint.address).eq(endpoints.iter().copied())
        };
        if let Some(listed) = self.listed.as_ref().filter(|listed| is_same(listed)) {
            return self.feed.confirm(Arc::clone(listed));
        }
        let spiffe_ids = &self.source.settings.spiffe_ids;
        let endpoint = |&address| EndpointSettings::new(address, Arc::clone(spiffe_ids));
        let listed: EndpointList = endpoints.iter().map(endpoint).collect();
        let (cluster, count) = (self.feed.cluster(), listed.len());
        tracing::debug!(%cluster, count, "endpoints changed");
        self.listed = Some(Arc::clone(&listed));
        self.feed.confirm(listed);
    }
}

#[cfg(test)]
mod tests;
