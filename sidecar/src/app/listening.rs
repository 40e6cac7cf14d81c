//! Which sockets are accepted from, and for whom: brought from one generation of the configuration to the next.
//!
//! ```text
//!   bind what is new ──▶ publish ──▶ serve what is new, drain what is gone
//!        │ fails              (the swap: every request from here on)
//!        ▼
//!   nothing has changed
//! ```

use std::{net::SocketAddr, sync::Arc};

use indexmap::IndexMap;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Addresses, App, Error,
    worker::{Command, SocketKey, Wanted},
};
use crate::{
    drain::{self, Phase},
    model::Generation,
    pipeline::entrance::Entrance,
};

/// What is accepted from at the moment.
#[derive(Debug, Default)]
pub(super) struct Listening {
    workers: Vec<mpsc::Sender<Command>>,
    sockets: IndexMap<SocketKey, Socket>,
    /// The life that each listener has, by its name.
    entrances: IndexMap<Arc<str>, Arc<Entrance>>,
}

/// A socket of which every worker has its own.
#[derive(Debug)]
struct Socket {
    /// The real one.
    address: SocketAddr,
    owner: watch::Sender<Arc<Entrance>>,
}

impl Listening {
    /// Whether there are workers that can listen.
    pub(super) fn is_serving(&self) -> bool {
        !self.workers.is_empty()
    }

    pub(super) fn add_worker(&mut self, worker: mpsc::Sender<Command>) {
        self.workers.push(worker);
    }

    /// Where each listener of a configuration in force listens.
    pub(super) fn addresses(&self, config: &Generation) -> Addresses {
        let address = |(name, entry): (&Arc<str>, &crate::model::generation::ListenerEntry)| {
            let socket = self.sockets.get(&SocketKey::of(&entry.settings))?;
            Some((Arc::clone(name), socket.address))
        };
        config.listeners.iter().filter_map(address).collect()
    }

    /// Binds, on every worker, what `config` needs and is not bound yet. On a failure nothing has changed.
    pub(super) async fn bind(&self, config: &Generation) -> Result<Vec<Wanted>, Error> {
        let listeners = config.listeners.values().map(|entry| &entry.settings);
        let mut wanted: Vec<Wanted> = listeners
            .map(|listener| Wanted {
                key: SocketKey::of(listener),
                address: listener.address,
                listener: Arc::clone(&listener.name),
            })
            .filter(|wanted| !self.sockets.contains_key(&wanted.key))
            .collect();
        if wanted.is_empty() {
            return Ok(wanted);
        }
        for worker in &self.workers {
            match ask(worker, &wanted).await {
                Ok(addresses) => {
                    wanted.iter_mut().zip(addresses).for_each(|(wanted, real)| wanted.address = real);
                }
                Err(error) => {
                    self.tell(&[]).await;
                    return Err(error);
                }
            }
        }
        Ok(wanted)
    }

    /// Says to the lives that are over in `config` by what they go from now on. Before `config` is published.
    pub(super) fn end_lives(&self, app: &App, config: &Generation) {
        for entrance in self.entrances.values().filter(|entrance| !entrance.is_in(config)) {
            entrance.end(app.snapshots.load());
        }
    }

    /// Serves what was bound for `config`, and drains what it has no more. After `config` was published.
    pub(super) async fn serve(&mut self, app: &App, config: &Generation, bound: Vec<Wanted>) {
        let before = std::mem::take(&mut self.entrances);
        let mut real: IndexMap<_, _> = bound.into_iter().map(|wanted| (wanted.key, wanted.address)).collect();
        let mut sockets = IndexMap::new();
        let mut owners = Vec::new();
        for (name, entry) in &config.listeners {
            let entrance = match before.get(name).filter(|entrance| entrance.is_in(config)) {
                Some(entrance) => Arc::clone(entrance),
                None => Arc::new(Entrance::new(entry, app.drains.of(&entry.settings).child())),
            };
            let key = SocketKey::of(&entry.settings);
            if let Some(socket) = self.sockets.shift_remove(&key) {
                // Only a new owner interrupts the accepting.
                socket.owner.send_if_modified(|owner| {
                    let is_new = !Arc::ptr_eq(owner, &entrance);
                    owner.clone_from(&entrance);
                    is_new
                });
                sockets.insert(key, socket);
            } else if let Some(address) = real.shift_remove(&key) {
                let (owner, owned) = watch::channel(Arc::clone(&entrance));
                owners.push((key.clone(), owned));
                sockets.insert(key, Socket { address, owner });
            }
            self.entrances.insert(Arc::clone(name), entrance);
        }
        // The sockets that are left have no owner any more; they are closed when those whose they were are drained.
        self.sockets = sockets;
        self.tell(&owners).await;
        let over: Vec<_> = before.into_values().filter(|entrance| !entrance.is_in(config)).collect();
        drain_all(over, config);
    }

    async fn tell(&self, owners: &[(SocketKey, super::worker::Owner)]) {
        for worker in &self.workers {
            let (done, is_done) = oneshot::channel();
            // One that is gone accepts nothing: the process is stopping, or about to say that it is broken.
            drop(worker.send(Command::Serve { owners: owners.to_vec(), done }).await);
            drop(is_done.await);
        }
    }
}

/// Has one worker bind; the real addresses.
async fn ask(worker: &mpsc::Sender<Command>, wanted: &[Wanted]) -> Result<Vec<SocketAddr>, Error> {
    let (done, is_done) = oneshot::channel();
    let command = Command::Bind { wanted: wanted.to_vec(), done };
    worker.send(command).await.map_err(|_gone| Error::WorkerEnded)?;
    is_done.await.map_err(|_gone| Error::WorkerEnded)?
}

/// Stops accepting there, and closes what is idle as a drain does. What is in flight is never cut: nobody waits for it.
fn drain_all(over: Vec<Arc<Entrance>>, config: &Generation) {
    if over.is_empty() {
        return;
    }
    over.iter().for_each(|entrance| entrance.drain.advance(Phase::Draining));
    let grace = config.settings.drain.idle_grace;
    drain::spawn_background(async move {
        tokio::time::sleep(grace).await;
        over.iter().for_each(|entrance| entrance.drain.advance(Phase::Closing));
    });
}
