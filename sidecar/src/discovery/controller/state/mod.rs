//! What is asked of the controller, and what it has said: decided here, carried out elsewhere. No clock, no network.
//!
//! ```text
//!   want(key) ──▶ asked ──Destination──▶ outside, or a service ──idle──▶ forgotten
//!                   ╰── again on each new stream, with what is known already
//! ```
//! # Invariants
//! - At most `max_wanted` keys, and no service but those they lead to, what the routes of these name, and what is being told.
//! - What was said stays until something else is said, or until nobody uses it: no stream that ends takes anything away.
//! - Nothing is forgotten while nobody could be asked for it again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use indexmap::{IndexMap, IndexSet};

use crate::discovery::controller::api::outrider_discovery_v1::{
    Forget, Want, WatchRequest, WatchResponse, Workload, watch_request, watch_response,
};
use crate::model::{
    EndpointSettings,
    controller::{Fragment, Fragments},
    wanted::{Key, Outside, Use},
};

mod routing;
mod said;

use routing::Routing;

/// What the controller may not say; the stream is ended for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A message of no kind that we know.
    #[error("a message of an unknown kind")]
    UnknownKind,
    /// A key leads to a service that was not told.
    #[error("{0} leads to a service that was not told before")]
    UnknownService(String),
    /// More than there may be.
    #[error("more {0} than there may be")]
    TooMany(&'static str),
}

/// What a message, or a look, has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// [`State::fragments`].
    pub(super) fragments: bool,
    /// [`State::outside`].
    pub(super) outside: bool,
    /// [`State::list`] of that service.
    pub(super) list: Option<Arc<str>>,
    /// These keys are answered, or forgotten.
    pub(super) settled: Vec<Key>,
    /// Services that are no more.
    pub(super) gone: Vec<Arc<str>>,
    /// This service's endpoints are what the controller says now.
    pub(super) confirmed: Option<Arc<str>>,
}

/// How much a service is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Something is under way, or connected.
    pub(super) is_busy: bool,
    /// Requests and streams that ended, ever.
    pub(super) ended: u64,
    /// What was said of it last is not in force.
    pub(super) is_rejected: bool,
}

/// Everything.
#[derive(Debug)]
pub(super) struct State {
    max_wanted: usize,
    idle: Duration,
    keys: IndexMap<Key, Wish>,
    services: BTreeMap<Arc<str>, Known>,
    inbound: Option<Arc<str>>,
    /// Given to services; never twice, so that a service that comes back is another.
    revision: u64,
    /// Of the stream that is there, if one is.
    outgoing: Option<Outgoing>,
}

#[derive(Debug)]
struct Wish {
    leads: Option<Leads>,
    used_at: Instant,
    /// The controller has said something of it on this stream.
    is_fresh: bool,
    /// When the controller said last that it has no answer, if it has none since.
    unanswered: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Leads {
    Outside(Arc<Use>),
    To(Arc<str>),
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    generation: u64,
    revision: u64,
    cluster: Arc<str>,
    routing: Routing,
    endpoints: BTreeMap<SocketAddr, EndpointSettings>,
    used_at: Instant,
    ended: u64,
    /// Its endpoints were told.
    is_told: bool,
    /// Something leads to it, or did: a key, or the routes of what a key leads to.
    is_used: bool,
}

#[derive(Debug, Default)]
struct Outgoing {
    wants: IndexSet<Key>,
    forgets: IndexSet<Key>,
}

impl State {
    pub(super) fn new(max_wanted: usize, idle: Duration) -> Self {
        Self {
            max_wanted,
            idle,
            keys: IndexMap::new(),
            services: BTreeMap::new(),
            inbound: None,
            revision: 0,
            outgoing: None,
        }
    }

    /// A stream begins: everything is asked anew.
    pub(super) fn begin(&mut self) {
        self.keys.values_mut().for_each(|wish| (wish.is_fresh, wish.unanswered) = (false, None));
        // What was half told is told again.
        self.services.retain(|_, known| known.is_used);
        self.outgoing = Some(Outgoing { wants: self.keys.keys().cloned().collect(), ..Outgoing::default() });
    }

    /// The stream has ended.
    pub(super) fn end(&mut self) {
        self.outgoing = None;
    }

    /// Whether there is something to say.
    pub(super) fn has_next(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|out| !out.wants.is_empty() || !out.forgets.is_empty())
    }

    /// What to say next.
    pub(super) fn next(&mut self) -> Option<WatchRequest> {
        let out = self.outgoing.as_mut()?;
        let message = if let Some(key) = out.forgets.shift_remove_index(0) {
            watch_request::Message::Forget(Forget { key: key.to_string() })
        } else {
            let key = out.wants.shift_remove_index(0)?;
            let known = match self.keys.get(&key).and_then(|wish| wish.leads.as_ref()) {
                Some(Leads::To(service)) => self.services.get(service),
                Some(Leads::Outside(_)) | None => None,
            };
            let (epoch, generation) = known.map_or((0, 0), |known| (known.epoch, known.generation));
            watch_request::Message::Want(Want { key: key.to_string(), epoch, generation })
        };
        Some(WatchRequest { message: Some(message) })
    }

    /// The app has tried to reach it. It is settled at once if it is known, or if there is no room.
    pub(super) fn want(&mut self, key: &Key, now: Instant) -> Changes {
        let mut changes = Changes::default();
        if let Some(wish) = self.keys.get_mut(key) {
            wish.used_at = now;
            if wish.leads.is_some() || !wish.may_ask(now) {
                changes.settled.push(key.clone());
            } else if let Some(out) = self.outgoing.as_mut().filter(|_| wish.unanswered.take().is_some()) {
                out.wants.insert(key.clone());
            }
            return changes;
        }
        if self.keys.len() >= self.max_wanted && !self.make_room(&mut changes) {
            changes.settled.push(key.clone());
            return changes;
        }
        self.keys.insert(key.clone(), Wish { leads: None, used_at: now, is_fresh: false, unanswered: None });
        if let Some(out) = &mut self.outgoing {
            out.wants.insert(key.clone());
        }
        changes
    }

    /// Forgets the key that was used least recently, of those that lead to no service; whether there was one.
    fn make_room(&mut self, changes: &mut Changes) -> bool {
        let loose = self.keys.iter().filter(|(_, wish)| !matches!(wish.leads, Some(Leads::To(_))));
        let oldest = loose.min_by_key(|(_, wish)| wish.used_at).map(|(key, _)| key.clone());
        oldest.map(|key| self.forget(&key, changes)).is_some()
    }

    fn forget(&mut self, key: &Key, changes: &mut Changes) {
        let Some(wish) = self.keys.shift_remove(key) else { return };
        if let Some(out) = &mut self.outgoing {
            // Of one that was not said yet nobody has heard.
            if !out.wants.shift_remove(key) {
                out.forgets.insert(key.clone());
            }
        }
        changes.settled.push(key.clone());
        match wish.leads {
            Some(Leads::Outside(_)) => changes.outside = true,
            Some(Leads::To(_)) => changes.fragments = true,
            None => {}
        }
    }

    /// The controller has said something.
    pub(super) fn hear(&mut self, message: WatchResponse, now: Instant) -> Result<Changes, Fault> {
        let mut changes = Changes::default();
        match message.message {
            Some(watch_response::Message::Service(service)) => self.service(service, now, &mut changes)?,
            Some(watch_response::Message::Endpoints(said)) => self.endpoints(&said, &mut changes),
            Some(watch_response::Message::Destination(said)) => self.destination(said, now, &mut changes)?,
            Some(watch_response::Message::Workload(Workload { inbound, .. })) => {
                let inbound = (!inbound.is_empty()).then(|| Arc::from(inbound));
                changes.fragments = self.inbound != inbound;
                self.inbound = inbound;
            }
            Some(watch_response::Message::Refused(said)) => self.refused(&said, now, &mut changes),
            Some(watch_response::Message::Heartbeat(_)) => {}
            None => return Err(Fault::UnknownKind),
        }
        Ok(changes)
    }

    /// Looks what is used, and forgets what was not for so long; nothing while there is no stream. `usage` is asked of each
    /// service.
    pub(super) fn look(&mut self, usage: impl Fn(&str) -> Usage, now: Instant) -> Changes {
        let mut changes = Changes::default();
        for (name, known) in &mut self.services {
            let Usage { mut is_busy, mut ended, is_rejected } = usage(name);
            // What its routes send elsewhere is counted there.
            for need in known.routing.needs() {
                let other = usage(need);
                is_busy |= other.is_busy;
                ended = ended.wrapping_add(other.ended);
            }
            if is_busy || ended != known.ended {
                (known.used_at, known.ended) = (now, ended);
            }
            known.routing.age(is_rejected);
        }
        let (mut over, mut again) = (Vec::new(), Vec::new());
        for (key, wish) in &mut self.keys {
            // What is known of it is not kept up to date.
            if wish.leads.is_some() && wish.unanswered.take().is_some() {
                again.push(key.clone());
            }
            let service = match &wish.leads {
                Some(Leads::Outside(used)) => {
                    if used.look() {
                        wish.used_at = now;
                    }
                    None
                }
                Some(Leads::To(service)) => self.services.get(service),
                None => None,
            };
            let used_at = service.map_or(wish.used_at, |known| known.used_at.max(wish.used_at));
            if now.saturating_duration_since(used_at) >= self.idle {
                over.push(key.clone());
            }
        }
        if let Some(out) = &mut self.outgoing {
            out.wants.extend(again);
            over.iter().for_each(|key| self.forget(key, &mut changes));
            self.sweep_services(&mut changes);
        }
        changes
    }

    /// Drops services that nothing leads to any more; those that nothing has led to yet are being told.
    fn sweep_services(&mut self, changes: &mut Changes) {
        let used = self.used(&self.led());
        let is_over = |(name, known): &(&Arc<str>, &Known)| known.is_used && !used.contains(*name);
        let gone: Vec<_> = self.services.iter().filter(is_over).map(|(name, _)| Arc::clone(name)).collect();
        gone.iter().for_each(|name| drop(self.services.remove(name)));
        changes.fragments |= !gone.is_empty();
        changes.gone.extend(gone);
    }

    /// Notes what is in use; whether that is more than before.
    fn note_use(&mut self) -> bool {
        let mut is_more = false;
        for name in self.used(&self.led()) {
            if let Some(known) = self.services.get_mut(&name) {
                is_more |= !known.is_used;
                known.is_used = true;
            }
        }
        is_more
    }

    /// Those of which `led` are some, and what the routes of these name and is told: now, or as long as what was said before
    /// may still be in force.
    fn used(&self, led: &HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        let mut used = led.clone();
        for known in led.iter().filter_map(|name| self.services.get(name)) {
            let needs = known.routing.all().filter_map(|need| self.services.get_key_value(need));
            used.extend(needs.filter(|(_, need)| need.is_told).map(|(name, _)| Arc::clone(name)));
        }
        used
    }

    /// Services that a key leads to.
    fn led(&self) -> HashSet<Arc<str>> {
        let leads = self.keys.values().filter_map(|wish| match &wish.leads {
            Some(Leads::To(service)) => Some(Arc::clone(service)),
            Some(Leads::Outside(_)) | None => None,
        });
        leads.collect()
    }

    /// What is to be joined with the file.
    pub(super) fn fragments(&self) -> Fragments {
        let mut names: HashMap<&Arc<str>, Vec<Box<str>>> = HashMap::new();
        for (key, wish) in &self.keys {
            if let Some(Leads::To(service)) = &wish.leads {
                let names = names.entry(service).or_default();
                if let Key::Name(name) = key {
                    names.push(name.clone());
                }
            }
        }
        let used = self.used(&names.keys().map(|name| Arc::clone(name)).collect());
        let fragment = |(name, known): (&Arc<str>, &Known)| {
            let asked_for = names.get(name);
            let is_asked_for = asked_for.is_some();
            let mut names = asked_for.cloned().unwrap_or_default();
            names.sort();
            Fragment {
                name: Arc::clone(name),
                revision: known.revision,
                cluster: Arc::clone(&known.cluster),
                // A backend's own routes are not asked.
                routes: if is_asked_for { known.routing.routes() } else { Some(Arc::default()) },
                is_asked_for,
                names,
            }
        };
        let in_use = self.services.iter().filter(|(name, _)| used.contains(*name));
        Fragments { services: in_use.map(fragment).collect(), inbound: self.inbound.clone() }
    }

    /// What leads outside.
    pub(super) fn outside(&self) -> Outside {
        let all = self.keys.iter().filter_map(|(key, wish)| match &wish.leads {
            Some(Leads::Outside(used)) => Some((key.clone(), Arc::clone(used))),
            Some(Leads::To(_)) | None => None,
        });
        Outside::new(all)
    }

    /// A service's endpoints, and the revision of it that they are of.
    pub(super) fn list(&self, service: &str) -> Option<(u64, Arc<[EndpointSettings]>)> {
        let known = self.services.get(service)?;
        Some((known.revision, known.endpoints.values().cloned().collect()))
    }

    /// Services of which the controller has said something on this stream.
    pub(super) fn fresh(&self) -> HashSet<Arc<str>> {
        let fresh = self.keys.values().filter(|wish| wish.is_fresh).filter_map(|wish| match &wish.leads {
            Some(Leads::To(service)) => Some(Arc::clone(service)),
            Some(Leads::Outside(_)) | None => None,
        });
        self.used(&fresh.collect())
    }

    /// Addresses and names that are asked after.
    pub(super) fn wanted(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests;
