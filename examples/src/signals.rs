//! What ends a program from outside.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM and the end of the terminal.
#[derive(Debug)]
pub struct Signals {
    all: [Signal; 3],
}

impl Signals {
    /// Listens for them from here on.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn new() -> anyhow::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { all: [interrupt?, terminate?, hangup?] })
    }

    /// Waits for the next of them. Cancel-safe.
    pub async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
