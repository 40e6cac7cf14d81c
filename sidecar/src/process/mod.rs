//! A sidecar as a process: runtimes, signals, and the order of starting and stopping.

mod marks;
mod reload;

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use self::{marks::marks, reload::Reloader};
use crate::{
    admin::{self, DrainRequest, DrainRequests, ReloadRequests},
    app::{App, Parts, Workers, World},
    clock::Clock,
    config::{self, Text},
    drain, intercept,
    model::{Settings, reload::ConfigStatus},
    net::{self, Bound, HandoverNet, Offers, TcpNet},
    telemetry::{Finisher, Metrics, ProcessFacts, export::Dialing, log, metrics},
};

/// Threads that may block for the control side (files, name resolution); they end when idle.
const MAX_BLOCKING_THREADS: usize = 4;
/// How long the control runtime may take to end after everything is done.
const RUNTIME_GRACE: Duration = Duration::from_millis(500);
/// How long metrics may take to be sent a last time.
const LAST_METRICS: Duration = Duration::from_secs(1);

/// Runs a sidecar with the configuration file at `config` until it is told to stop, then drains it.
///
/// SIGTERM or SIGINT begins the drain; a second one ends the process at once. SIGHUP has the file read again.
///
/// # Errors
/// What keeps it from starting, in words for an operator: every fault of the file, for one.
pub fn run(config: &Path, log: log::Control) -> anyhow::Result<()> {
    let text = config::read(config)?;
    let settings = text.settings()?;
    warn(&settings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ran = runtime.block_on(live(text, settings, log));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    ran
}

/// Says what of the environment has no effect.
fn warn(settings: &Settings) {
    for warning in &settings.telemetry.warnings {
        tracing::warn!("{warning}");
    }
}

async fn live(text: Text, settings: Settings, log: log::Control) -> anyhow::Result<()> {
    if let Err(error) = net::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let bootstrap = &settings.bootstrap;
    let handover = admin::handover_path(&bootstrap.admin.socket);
    let net = HandoverNet::new(handover.clone(), bootstrap.workers, marks(bootstrap.intercept.as_ref())?);
    let world = World { net, clock: Clock::system(), workers: Workers::Threads };
    let app = App::start(settings, &world, Parts::default())?;
    let (drains, (reloads, arriving)) = (DrainRequests::default(), ReloadRequests::new());
    let mut stop = Stop::new(&drains)?;
    let reloader = Reloader::new(&app, &text, arriving)?;
    let operators = Operators { drains, reloads, config: reloader.status(), log };
    let (mut admin, read_only) =
        start_admin(&app, operators, (&Dialing::by(&world.net), &admin::Prober::by(&world.net)))?;
    drain::spawn_background(reloader.run());
    tokio::select! {
        biased;
        () = stop.requested(&app) => return Ok(()),
        served = app.serve(&world) => {
            for (listener, address) in &served? {
                tracing::info!(%listener, %address, "listening");
            }
            world.net.finish();
            if let Some(successor) = read_only {
                successor.serve()?;
            }
            admin.offer(&handover, world.net.offers());
        }
    }
    tokio::select! {
        biased;
        () = stop.requested(&app) => {}
        () = app.broken.cancelled() => anyhow::bail!("a worker ended unexpectedly; start the sidecar again"),
    }
    tokio::select! {
        biased;
        () = async {
            app.drain().await;
            admin.sending.finish(LAST_METRICS).await;
        } => {}
        () = stop.signalled() => tracing::warn!("told to stop again: stopping at once"),
    }
    admin.stop().await;
    Ok(())
}

/// The running admin server; it answers until the drain is over.
struct Admin {
    stop: watch::Sender<bool>,
    socket: drain::Drain,
    sending: Finisher,
}

impl Admin {
    /// Offers our listening sockets to a successor.
    fn offer(&mut self, path: &Path, offers: &Offers) {
        match admin::bind_socket(path) {
            Ok(socket) => {
                let ended = ended(self.stop.subscribe());
                self.socket.spawn(admin::serve_handover(socket, offers.clone(), ended));
            }
            Err(error) => tracing::warn!(
                %error,
                path = %path.display(),
                "listening sockets cannot be offered to a successor: it will bind its own"
            ),
        }
    }

    /// Ends it: the socket's file goes, if it is still ours.
    async fn stop(self) {
        self.stop.send_replace(true);
        self.socket.finished().await;
    }
}

/// Completes when admin is to stop.
async fn ended(mut stopped: watch::Receiver<bool>) {
    // An error means that the process is ending without a word.
    drop(stopped.wait_for(|is_over| *is_over).await);
}

/// The read-only listener before it listens.
struct ReadOnly {
    bound: Bound,
    state: Arc<admin::State>,
    stopped: watch::Receiver<bool>,
}

impl ReadOnly {
    fn serve(self) -> anyhow::Result<()> {
        let listener = self.bound.listen().context("admin.listen: cannot listen")?;
        drain::spawn_background(admin::serve_read_only(listener, self.state, ended(self.stopped)));
        Ok(())
    }
}

/// What operators can ask for and change.
struct Operators {
    drains: DrainRequests,
    reloads: ReloadRequests,
    config: Arc<ConfigStatus>,
    log: log::Control,
}

/// Starts what operators see. The read-only listener is handed back where another process has its address: that one is
/// asked until we are ready as well, else probes would find out about either by chance.
fn start_admin(
    app: &App,
    operators: Operators,
    (dialing, prober): (&Dialing, &admin::Prober),
) -> anyhow::Result<(Admin, Option<ReadOnly>)> {
    let settings = app.settings();
    let bootstrap = &settings.bootstrap;
    let facts = ProcessFacts {
        service: bootstrap.service.clone(),
        trust_domain: bootstrap.trust_domain.to_string(),
        started: app.clock.wall(),
        identity: Arc::clone(&app.identity),
        readiness: app.readiness.clone(),
        drain: app.drains.clone(),
        config: Arc::clone(&operators.config),
        clock: app.clock.clone(),
        load: Arc::clone(&app.load),
        passed: Arc::default(),
        observer: Arc::clone(&app.observer),
        controller: Arc::clone(&app.controller),
        wanted: Arc::clone(&app.wanted),
    };
    intercept::watch(app.snapshots.clone(), Arc::clone(&facts.passed));
    let metrics = Metrics::new(app.snapshots.clone(), facts);
    let sending = metrics::send(metrics.clone(), app.snapshots.clone(), dialing, &app.observer.exports);
    let state = Arc::new(admin::State {
        snapshots: app.snapshots.clone(),
        identity: Arc::clone(&app.identity),
        readiness: app.readiness.clone(),
        drain: app.drains.clone(),
        drain_requests: operators.drains,
        reload_requests: operators.reloads,
        config: operators.config,
        metrics,
        observer: Arc::clone(&app.observer),
        insight: Arc::clone(&app.insight),
        controller: Arc::clone(&app.controller),
        wanted: Arc::clone(&app.wanted),
        log: Some(operators.log),
        prober: prober.clone(),
        clock: app.clock.clone(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut waiting = None;
    if let Some(address) = bootstrap.admin.listen {
        let reserve = || Ok::<_, io::Error>((TcpNet.is_in_use(address)?, TcpNet.reserve(address)?));
        let (is_in_use, bound) = reserve().with_context(|| {
            format!("admin.listen: cannot listen on {address}; choose another address, or `none`")
        })?;
        let read_only = ReadOnly { bound, state: Arc::clone(&state), stopped: stopped.clone() };
        if is_in_use {
            waiting = Some(read_only);
        } else {
            read_only.serve()?;
        }
    }
    let path = &bootstrap.admin.socket;
    let socket = admin::bind_socket(path)
        .with_context(|| format!("admin.socket: cannot listen on {}; choose another path", path.display()))?;
    let serving = drain::Drain::new();
    serving.spawn(admin::serve_socket(socket, state, ended(stopped)));
    Ok((Admin { stop, socket: serving, sending }, waiting))
}

/// What asks a process to stop: signals, and operators.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    operators: watch::Receiver<Option<DrainRequest>>,
}

impl Stop {
    fn new(requests: &DrainRequests) -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, operators: requests.subscribe() })
    }

    async fn signalled(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the request to stop as a whole; a request to drain inbound is done in passing.
    async fn requested(&mut self, app: &App) {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                changed = self.operators.changed() => {
                    let request = *self.operators.borrow_and_update();
                    match request.filter(|_| changed.is_ok()) {
                        Some(DrainRequest { inbound_only: true }) => app.drain_inbound(),
                        Some(DrainRequest { inbound_only: false }) => return,
                        None => {}
                    }
                }
            }
        }
    }
}
