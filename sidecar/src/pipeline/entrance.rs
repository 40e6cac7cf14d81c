//! A listener's life: what the connections that it accepted have in common.

use std::{
    mem::discriminant,
    sync::{Arc, OnceLock},
};

use crate::{
    drain::Drain,
    model::{
        Generation, Listener, Snapshot, generation::ListenerEntry, runtime::ListenerRuntime,
        snapshot::Snapshots,
    },
};

/// One life of a listener, shared by all workers. It ends when a configuration comes into force that has the listener
/// no more, or with connections of another kind; those that it has accepted are drained then.
#[derive(Debug)]
pub struct Entrance {
    name: Arc<str>,
    life: u64,
    /// Whether peers come in there.
    pub is_inbound: bool,
    /// The listener's counters.
    pub counts: Arc<ListenerRuntime>,
    /// Drained with its direction, or when its life ends.
    pub drain: Drain,
    /// The last snapshot that knew it, once its life is over.
    last: OnceLock<Arc<Snapshot>>,
}

/// The listener as one connection knows it.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its life.
    pub entrance: Arc<Entrance>,
    /// The listener when the connection was accepted.
    listener: Arc<Listener>,
    /// The generation that `listener`, and the rules of then, are of.
    generation: u64,
}

impl Entrance {
    /// A life that begins. `drain` is its own.
    #[must_use]
    pub fn new(entry: &ListenerEntry, drain: Drain) -> Self {
        Self {
            name: Arc::clone(&entry.settings.name),
            life: entry.life,
            is_inbound: entry.settings.is_inbound(),
            counts: Arc::clone(&entry.runtime),
            drain,
            last: OnceLock::new(),
        }
    }

    /// Whether it goes on in that generation.
    #[must_use]
    pub fn is_in(&self, config: &Generation) -> bool {
        config.listener(&self.name, self.life).is_some()
    }

    /// Its life is about to end: what is still asked of it is answered by `last`, which knows it. To be called before
    /// the first snapshot is stored that does not.
    pub fn end(&self, last: Arc<Snapshot>) {
        // It ends only once.
        self.last.get_or_init(|| last);
    }

    /// The newest snapshot that knows this listener.
    fn load(&self, snapshots: &Snapshots) -> Arc<Snapshot> {
        let newest = snapshots.load();
        match self.last.get() {
            Some(last) if !self.is_in(&newest.config) => Arc::clone(last),
            Some(_) | None => newest,
        }
    }

    /// For a connection that was just accepted; with the snapshot that it begins with. `None` if the configuration has
    /// no such listener, which no caller brings about.
    #[must_use]
    pub fn accept(self: &Arc<Self>, snapshots: &Snapshots) -> Option<(Accepted, Arc<Snapshot>)> {
        let snapshot = self.load(snapshots);
        let listener = Arc::clone(&snapshot.config.listener(&self.name, self.life)?.settings);
        let generation = snapshot.config.rules;
        Some((Accepted { entrance: Arc::clone(self), listener, generation }, snapshot))
    }
}

impl Accepted {
    /// What a request goes by that begins now: the newest snapshot, or the last that knew the listener.
    #[must_use]
    pub fn load(&self, snapshots: &Snapshots) -> Arc<Snapshot> {
        let newest = snapshots.load();
        if self.is_of(&newest) { newest } else { self.entrance.load(snapshots) }
    }

    /// Whether it was accepted under the listeners and rules of that snapshot.
    #[must_use]
    pub fn is_of(&self, snapshot: &Snapshot) -> bool {
        snapshot.config.rules == self.generation
    }

    /// What decides whether anything more may be asked for, where that is not what [`load`](Self::load) gives: the newest
    /// snapshot, once the listener's life has ended. Where something goes may stay as it was; who may have it never does.
    #[must_use]
    pub fn successor(&self, snapshots: &Snapshots) -> Option<Arc<Snapshot>> {
        self.entrance.last.get()?;
        let newest = snapshots.load();
        (!self.entrance.is_in(&newest.config)).then_some(newest)
    }

    /// The listener as `snapshot` has it, which is one that was [loaded](Self::load) here; in a
    /// [successor](Self::successor), the one in its place. Without any, as it was.
    #[must_use]
    pub fn listener<'a>(&'a self, snapshot: &'a Snapshot) -> &'a Arc<Listener> {
        if self.is_of(snapshot) {
            return &self.listener;
        }
        let entry = snapshot.config.listener(&self.entrance.name, self.entrance.life);
        entry.map_or_else(|| self.in_its_place(snapshot).unwrap_or(&self.listener), |entry| &entry.settings)
    }

    /// The listener of its kind that has its address, else its name: one without a name is named by where it stands.
    fn in_its_place<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Listener>> {
        let before = &self.listener;
        let is_alike = |listener: &&Arc<Listener>| discriminant(&listener.kind) == discriminant(&before.kind);
        let listeners = || snapshot.config.listeners.values().map(|entry| &entry.settings).filter(is_alike);
        let is_there =
            |listener: &&Arc<Listener>| listener.address == before.address && before.address.port() != 0;
        let there = listeners().find(is_there);
        there.or_else(|| listeners().find(|listener| listener.name == before.name))
    }

    /// The generation of the rules that it was accepted under.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entrance.name
    }

    /// The same, shared.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.entrance.name)
    }
}
