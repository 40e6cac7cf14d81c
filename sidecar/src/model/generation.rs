//! Generations: the configurations of a process as they come into force, one after the other.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{listener::Listener, runtime::ListenerRuntime, settings::Settings};

/// A configuration in force, and what of its listeners is older than it.
#[derive(Debug)]
pub struct Generation {
    /// Raised by one with every configuration that comes into force; the first is 1.
    pub number: u64,
    /// What the configuration says.
    pub settings: Arc<Settings>,
    /// Its listeners, by name, in the order of the configuration.
    pub listeners: IndexMap<Arc<str>, ListenerEntry>,
}

/// A listener of one generation.
#[derive(Clone, Debug)]
pub struct ListenerEntry {
    /// What the configuration says.
    pub settings: Arc<Listener>,
    /// Counters, carried over from generation to generation by name.
    pub runtime: Arc<ListenerRuntime>,
    /// The generation in which its present life began. A life ends when the listener goes, or when what makes its
    /// connections changes ([`Listener::carries_on`]); connections of a life that is over are drained.
    pub life: u64,
}

impl Generation {
    /// The configuration that a process starts with.
    #[must_use]
    pub fn first(settings: Arc<Settings>) -> Self {
        Self::make(1, settings, &IndexMap::new())
    }

    /// The generation after this one.
    #[must_use]
    pub fn next(&self, settings: Arc<Settings>) -> Self {
        Self::make(self.number + 1, settings, &self.listeners)
    }

    fn make(number: u64, settings: Arc<Settings>, before: &IndexMap<Arc<str>, ListenerEntry>) -> Self {
        let entry = |listener: &Arc<Listener>| {
            let before = before.get(&listener.name);
            let goes_on = before.filter(|before| listener.carries_on(&before.settings));
            ListenerEntry {
                settings: Arc::clone(listener),
                runtime: before.map(|before| Arc::clone(&before.runtime)).unwrap_or_default(),
                life: goes_on.map_or(number, |before| before.life),
            }
        };
        let listeners =
            settings.listeners.iter().map(|listener| (Arc::clone(&listener.name), entry(listener))).collect();
        Self { number, listeners, settings }
    }

    /// The listener of that name, if it still has that life.
    #[must_use]
    pub fn listener(&self, name: &str, life: u64) -> Option<&ListenerEntry> {
        self.listeners.get(name).filter(|entry| entry.life == life)
    }
}
