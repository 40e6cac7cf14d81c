//! Unused connections, each for one request or stream at a time: which is lent next, and which must go.
//!
//! Pure: time is an argument, and what a connection is comes by [`Pooled`].
//!
//! # Invariants
//! - A connection is lent under the key it was put under, at most once between two puts, and not past its terms.
//! - The newest is lent first: the oldest are the likeliest to be closed by the peer, and may run into their timeout.
//! - There are never more than the bounds allow; the oldest go for newer ones.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use indexmap::IndexMap;

use super::{
    dial::Speak,
    place::{KeyHash, Place, PoolKey, Terms},
};
use crate::model::{ClusterName, pool_counts::Closed, runtime::ClusterRuntime};

/// Connections looked at for one that is ready; those whose last message is just ending are passed over.
const LOOK_BACK: usize = 8;
/// A connection whose last message does not end within this is closed.
const MAX_BUSY: Duration = Duration::from_secs(1);
/// Room for so many connections is kept for each key, be they there or not.
const MIN_ROOM: usize = 32;

/// An unused connection.
pub(super) trait Pooled {
    /// What it occupies.
    fn place(&self) -> &Arc<Place>;

    /// How long its peer lets it be unused, if it said so.
    fn peer_idle(&self) -> Option<Duration>;

    /// What is known of it without asking the operating system.
    fn state(&mut self) -> State;

    /// Asks the operating system whether the peer has said anything.
    fn probe(&mut self) -> Said;
}

/// What a peer has said on an unused connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// Something that whoever reads the connection has yet to make sense of.
    Unread,
    /// What ends the connection.
    End(Closed),
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It can carry the next message.
    Ready,
    /// Its last message has not quite ended.
    Busy,
    /// It is gone.
    Ended,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Taken<C> {
    /// A connection to use.
    Ready(C),
    /// None, but there are some whose last message is just ending.
    Busy,
    /// None.
    None,
}

/// How many are kept; over it, the oldest are closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// HTTP/1 connections to one endpoint.
    pub(super) http1: usize,
    /// Framed connections to one endpoint.
    pub(super) framed: usize,
    /// Connections in all.
    pub(super) total: usize,
}

/// The unused connections of one worker.
#[derive(Debug)]
pub(super) struct Idles<C> {
    // In order of first use, not of a hash: what the sweeper closes, it closes in the same order in every run.
    stacks: IndexMap<PoolKey, Stack<C>, KeyHash>,
    total: usize,
    bounds: Bounds,
}

#[derive(Debug)]
struct Stack<C> {
    /// Of one of its connections: they are all of the same cluster and endpoint.
    home: Arc<Place>,
    /// Oldest first.
    idle: VecDeque<Idle<C>>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

impl<C: Pooled> Idle<C> {
    /// Why its time is over, if it is.
    fn expired(&self, terms: Terms, now: Instant) -> Option<Closed> {
        let limit = self.connection.peer_idle().map_or(terms.idle, |said| said.min(terms.idle));
        if now.saturating_duration_since(self.since) >= limit {
            return Some(Closed::Idle);
        }
        self.connection.place().life.is_over(terms.age, now).then_some(Closed::Age)
    }

    fn close(self, why: Closed) {
        self.connection.place().closing(why);
    }
}

impl<C: Pooled> Idles<C> {
    /// None yet.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { stacks: IndexMap::default(), total: 0, bounds }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.total
    }

    /// Takes the newest connection that is good for the next message. Those found not to be are closed.
    pub(super) fn take(&mut self, key: &PoolKey, terms: Terms, now: Instant) -> Taken<C> {
        let Some(stack) = self.stacks.get_mut(key) else { return Taken::None };
        let mut busy = 0;
        while busy < LOOK_BACK
            && let Some(index) = stack.idle.len().checked_sub(1 + busy)
            && let Some(idle) = stack.idle.get_mut(index)
        {
            let why = match idle.expired(terms, now) {
                Some(why) => why,
                None => match idle.connection.state() {
                    State::Busy => {
                        busy += 1;
                        continue;
                    }
                    State::Ended => Closed::Peer,
                    State::Ready => match idle.connection.probe() {
                        Said::End(why) => why,
                        Said::Unread => {
                            busy += 1;
                            continue;
                        }
                        Said::Nothing => {
                            self.total -= 1;
                            return stack
                                .remove(index)
                                .map_or(Taken::None, |idle| Taken::Ready(idle.connection));
                        }
                    },
                },
            };
            if let Some(idle) = stack.remove(index) {
                self.total -= 1;
                idle.close(why);
            }
        }
        if busy > 0 { Taken::Busy } else { Taken::None }
    }

    /// Keeps a connection. Where there are too many, the oldest makes room.
    pub(super) fn put(&mut self, connection: C, now: Instant) {
        let place = Arc::clone(connection.place());
        let bound = match place.key.speak() {
            Speak::Http1 => self.bounds.http1,
            Speak::Tcp => self.bounds.framed,
            // Those are shared and not kept here; or not known, and then not kept at all; or good for one stream.
            Speak::Http2 | Speak::Either | Speak::OwnTls => 0,
        };
        if bound == 0 || self.bounds.total == 0 {
            place.closing(Closed::Full);
            return;
        }
        let stack =
            self.stacks.entry(place.key).or_insert_with(|| Stack { home: place, idle: VecDeque::new() });
        if stack.idle.len() >= bound {
            if let Some(oldest) = stack.idle.pop_front() {
                self.total -= 1;
                oldest.close(Closed::Full);
            }
        } else if self.total >= self.bounds.total {
            self.drop_oldest();
        }
        if let Some(stack) = self.stacks.get_mut(&connection.place().key) {
            stack.idle.push_back(Idle { connection, since: now });
            self.total += 1;
        }
    }

    /// Looks at every key, which only a worker with thousands of unused connections pays for.
    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.oldest(|_home| true) {
            oldest.close(Closed::Full);
        }
    }

    /// Takes the connection of a cluster that has been unused for longest, whatever its state, to be closed.
    pub(super) fn reclaim(&mut self, cluster: &Arc<ClusterRuntime>) -> Option<C> {
        self.oldest(|home| Arc::ptr_eq(&home.counts, cluster)).map(|idle| idle.connection)
    }

    fn oldest(&mut self, is_of: impl Fn(&Place) -> bool) -> Option<Idle<C>> {
        let stacks = self.stacks.values_mut().filter(|stack| is_of(&stack.home));
        let stack = stacks.filter_map(|stack| Some((stack.idle.front()?.since, stack)));
        let (_since, stack) = stack.min_by_key(|(since, _stack)| *since)?;
        let oldest = stack.idle.pop_front()?;
        self.total -= 1;
        Some(oldest)
    }

    /// Closes every connection of that key.
    pub(super) fn forget(&mut self, key: &PoolKey, why: Closed) {
        let Some(stack) = self.stacks.get_mut(key) else { return };
        self.total -= stack.idle.len();
        stack.close_all(why);
    }

    /// Closes what is over its time, gone, of removed endpoints, or of clusters for which there are no terms any more.
    pub(super) fn sweep(&mut self, now: Instant, terms: impl Fn(&ClusterName) -> Option<Terms>) {
        let mut total = 0;
        self.stacks.retain(|_key, stack| {
            let terms = terms(&stack.home.cluster).filter(|_| !stack.home.is_removed());
            match terms {
                Some(terms) => stack.sweep(terms, now),
                None => stack.close_all(Closed::Removed),
            }
            total += stack.idle.len();
            terms.is_some()
        });
        self.total = total;
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.stacks.clear();
        self.total = 0;
    }
}

impl<C: Pooled> Stack<C> {
    fn remove(&mut self, index: usize) -> Option<Idle<C>> {
        self.idle.remove(index)
    }

    fn close_all(&mut self, why: Closed) {
        self.idle.drain(..).for_each(|idle| idle.close(why));
    }

    fn sweep(&mut self, terms: Terms, now: Instant) {
        self.idle.retain_mut(|idle| {
            let is_fresh = now.saturating_duration_since(idle.since) < MAX_BUSY;
            let why = match (idle.expired(terms, now), idle.connection.state()) {
                (Some(why), _) => why,
                (None, State::Ended) => Closed::Peer,
                (None, State::Busy) if !is_fresh => Closed::InUse,
                (None, State::Ready | State::Busy) => return true,
            };
            idle.connection.place().closing(why);
            false
        });
        if self.idle.capacity() > MIN_ROOM && self.idle.len() < self.idle.capacity() / 4 {
            self.idle.shrink_to(MIN_ROOM.max(self.idle.len() * 2));
        }
    }
}

#[cfg(test)]
mod tests;
