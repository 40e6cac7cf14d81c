//! A sidecar as a process: runtimes, signals, and the order of starting and stopping.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    app::{App, Parts, Workers, World},
    clock::Clock,
    model::Settings,
    net::TcpNet,
};

/// Threads that may block for the control side (files, name resolution); they end when idle.
const MAX_BLOCKING_THREADS: usize = 4;
/// How long the control runtime may take to end after everything is done.
const RUNTIME_GRACE: Duration = Duration::from_millis(500);

/// Runs a sidecar until it is told to stop, then drains it.
///
/// SIGTERM or SIGINT begins the drain; a second one ends the process at once.
///
/// # Errors
/// What keeps it from starting, in words for an operator.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ran = runtime.block_on(live(settings));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    ran
}

async fn live(settings: Settings) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let world = World { net: TcpNet, clock: Clock::system(), workers: Workers::Threads };
    let app = App::start(settings, &world, Parts::default())?;
    tokio::select! {
        biased;
        () = stop.requested() => return Ok(()),
        served = app.serve(&world) => {
            let addresses = served?;
            for (listener, address) in &addresses {
                tracing::info!(%listener, %address, "listening");
            }
        }
    }
    stop.requested().await;
    tokio::select! {
        biased;
        () = app.drain() => {}
        () = stop.requested() => tracing::warn!("told to stop again: stopping at once"),
    }
    Ok(())
}

/// The signals that ask a process to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn requested(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
