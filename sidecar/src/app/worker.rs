//! One worker's life: it binds what it is told to, accepts, and stays until everything it carries has ended.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use indexmap::IndexMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{App, Error, Workers, World};
use crate::{
    accept::{self, Admission},
    connect::{connector::Connector, dial::Dialer},
    drain::{self, Phase},
    health,
    model::Listener,
    net::{Listener as _, Net},
    pipeline::{
        entrance::Entrance,
        serve,
        worker::{Shared, Worker},
    },
    tls::trust,
};

/// Commands that wait for a worker: a change binds and then serves, and there is one change at a time.
const MAX_COMMANDS: usize = 2;

/// What a listening socket is known by: a listener with another name at the same address is given the same socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SocketKey {
    address: SocketAddr,
    /// Where port 0 lets the operating system choose, every listener has a socket of its own.
    listener: Option<Arc<str>>,
}

impl SocketKey {
    pub(super) fn of(listener: &Listener) -> Self {
        let is_any = listener.address.port() == 0;
        Self { address: listener.address, listener: is_any.then(|| Arc::clone(&listener.name)) }
    }
}

/// A socket to be bound.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: SocketKey,
    /// Where; the first worker that binds it finds out the port if it is 0.
    pub(super) address: SocketAddr,
    /// For whom, in messages.
    pub(super) listener: Arc<str>,
}

/// Whose connections a socket accepts just now.
pub(super) type Owner = watch::Receiver<Arc<Entrance>>;

/// What a worker is told.
pub(super) enum Command {
    /// Bind these, in place of what was bound and is not served. Answered with the real addresses.
    Bind { wanted: Vec<Wanted>, done: oneshot::Sender<Result<Vec<SocketAddr>, Error>> },
    /// Serve what was bound of these; the rest of it is closed. Answered when that is so.
    Serve { owners: Vec<(SocketKey, Owner)>, done: oneshot::Sender<()> },
}

impl App {
    /// Starts one worker, which waits for commands.
    pub(super) fn start_worker<N: Net>(
        &self,
        world: &World<N>,
        index: usize,
    ) -> Result<mpsc::Sender<Command>, Error> {
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let work = self.clone().work(world.net.clone(), index, commands);
        match world.workers {
            Workers::Tasks => drain::spawn_background(work),
            Workers::Threads => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(Error::Worker)?;
                std::thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || runtime.block_on(work))
                    .map_err(Error::Worker)?;
            }
        }
        Ok(sender)
    }

    async fn work<N: Net>(self, net: N, index: usize, mut commands: mpsc::Receiver<Command>) {
        // A panic of ours in here ends the thread; the process must not go on without it.
        let broken = self.broken.clone().drop_guard();
        let trust = trust::Registry::new(self.clock.clone(), Arc::clone(&self.identity));
        let connector = Connector::new(Dialer { net: net.clone(), trust }, &self.hub, &self.clock);
        let shared = Shared {
            snapshots: self.snapshots.clone(),
            clock: self.clock.clone(),
            drains: self.drains.clone(),
            load: Arc::clone(&self.load),
            observer: Arc::clone(&self.observer),
            wanted: Arc::clone(&self.wanted),
        };
        let worker = Worker::start(connector, shared);
        if index == 0 {
            let (connector, watcher) = (Arc::clone(&worker.connector), self.drains.outbound.watcher());
            let checking = health::run(connector, self.snapshots.clone(), self.clock.clone(), watcher);
            drain::spawn_background(guarded(self.broken.clone(), checking));
        }
        let mut bound = IndexMap::new();
        let mut stopping = std::pin::pin!(self.stopping());
        loop {
            let command = tokio::select! {
                biased;
                () = &mut stopping => break,
                Some(command) = commands.recv() => command,
            };
            match command {
                Command::Bind { wanted, done } => {
                    bound.clear();
                    // Whoever asked may have given up.
                    drop(done.send(bind(&net, &wanted, &mut bound)));
                }
                Command::Serve { owners, done } => {
                    for (key, owner) in owners {
                        if let Some(socket) = bound.shift_remove(&key) {
                            let max_connections = Arc::clone(&self.max_connections);
                            let accepting = accept(Arc::clone(&worker), socket, owner, max_connections);
                            drain::spawn_background(guarded(self.broken.clone(), accepting));
                        }
                    }
                    bound.clear();
                    let _asked_in_vain = done.send(());
                }
            }
        }
        drop((bound, commands));
        self.drains.finished().await;
        worker.connector.clear();
        broken.disarm();
    }

    /// Waits until nothing new is taken in either direction.
    async fn stopping(&self) {
        for drain in [&self.drains.inbound, &self.drains.outbound] {
            drain.watcher().reached(Phase::Draining).await;
        }
    }
}

/// A part of the worker in a task of its own, which must not end by a panic either.
async fn guarded(broken: CancellationToken, part: impl Future<Output = ()>) {
    let broken = broken.drop_guard();
    part.await;
    broken.disarm();
}

fn bind<N: Net>(
    net: &N,
    wanted: &[Wanted],
    bound: &mut IndexMap<SocketKey, N::Listener>,
) -> Result<Vec<SocketAddr>, Error> {
    let bind_one = |Wanted { key, address, listener }: &Wanted| {
        let failed =
            |source: io::Error| Error::Bind { listener: Arc::clone(listener), address: *address, source };
        let socket = net.bind(*address).map_err(failed)?;
        let real = socket.local_addr().map_err(failed)?;
        bound.insert(key.clone(), socket);
        Ok(real)
    };
    wanted.iter().map(bind_one).collect()
}

/// Accepts at one socket for whoever owns it, until the last owner is drained. A change of owner loses no connection.
async fn accept<N: Net>(
    worker: Arc<Worker<N>>,
    socket: N::Listener,
    mut owner: Owner,
    max_connections: Arc<AtomicUsize>,
) {
    // Over a change of owner as well, so that no drain takes it for the end; and until the socket is closed, which is
    // dropped first.
    let _source = owner.borrow().drain.source();
    let socket = socket;
    loop {
        let entrance = Arc::clone(&owner.borrow_and_update());
        let admission = Admission {
            max_connections: Arc::clone(&max_connections),
            counts: Arc::clone(&entrance.counts),
            load: Arc::clone(&worker.load),
            sheds_on_memory: entrance.is_inbound,
        };
        let accepting = accept::run(&socket, admission, entrance.drain.clone(), |stream, peer| {
            serve::serve(Arc::clone(&worker), Arc::clone(&entrance), stream, peer)
        });
        tokio::select! {
            biased;
            // No more changes, once the socket is given up: it ends with the drain of its last owner.
            Ok(()) = owner.changed() => {}
            () = accepting => return,
        }
    }
}
