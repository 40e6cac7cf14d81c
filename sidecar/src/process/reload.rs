//! Reloading: what the file says now comes into force, or the log says why not.
//!
//! ```text
//!   the file changes ─┐
//!   SIGHUP ───────────┼─▶ read ─▶ check ─▶ App::reload ─▶ report: log, metrics, admin
//!   POST /reload ─────┘     invalid     refused
//! ```

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    admin::ReloadRequest,
    app::App,
    config::{self, Fault, Text, Unreadable, Watch},
    model::reload::{ConfigStatus, Outcome, Report},
};

/// Brings what the configuration file says into force, for as long as the process lives.
pub(super) struct Reloader {
    app: App,
    file: Watch,
    hangup: Signal,
    requests: mpsc::Receiver<ReloadRequest>,
    status: Arc<ConfigStatus>,
}

impl Reloader {
    /// Begins to listen for SIGHUP, which would end the process otherwise.
    pub(super) fn new(app: &App, file: &Text, requests: mpsc::Receiver<ReloadRequest>) -> io::Result<Self> {
        Ok(Self {
            app: app.clone(),
            file: Watch::new(file),
            hangup: signal(SignalKind::hangup())?,
            requests,
            status: Arc::new(ConfigStatus::new(file.sha256(), app.clock.wall())),
        })
    }

    /// How it goes.
    pub(super) fn status(&self) -> Arc<ConfigStatus> {
        Arc::clone(&self.status)
    }

    pub(super) async fn run(mut self) {
        loop {
            let (text, asked) = tokio::select! {
                biased;
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading the configuration again");
                    (self.file.read().await, None)
                }
                Some(asked) = self.requests.recv() => (self.file.read().await, Some(asked)),
                text = self.file.changed() => {
                    tracing::info!("the configuration file has changed");
                    (text, None)
                }
            };
            let report = self.take(text).await;
            let is_news = self.status.note(&report, self.app.clock.wall());
            tell(&report, is_news);
            if let Some(asked) = asked {
                // Whoever asked may have given up.
                drop(asked.send(report));
            }
        }
    }

    async fn take(&self, text: Result<Text, Unreadable>) -> Report {
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.report(Outcome::Invalid, None, vec![unreadable(&error)]),
        };
        let sha256 = text.sha256().to_owned();
        if sha256 == self.status.file().sha256 {
            return self.report(Outcome::Unchanged, Some(sha256), Vec::new());
        }
        let checked = tokio::task::spawn_blocking(move || text.settings()).await;
        let (outcome, faults) = match checked.map_err(io::Error::other) {
            Ok(Ok(settings)) => match self.app.reload(settings).await {
                Ok(_addresses) => (Outcome::Applied, Vec::new()),
                Err(refusal) => (Outcome::Refused, refusal.faults()),
            },
            Ok(Err(config::Error::Faults(faults))) => (Outcome::Invalid, faults),
            Ok(Err(config::Error::Read(error))) => (Outcome::Invalid, vec![unreadable(&error)]),
            Err(error) => (Outcome::Invalid, vec![fault(String::new(), error.to_string())]),
        };
        self.report(outcome, Some(sha256), faults)
    }

    fn report(&self, outcome: Outcome, sha256: Option<String>, faults: Vec<Fault>) -> Report {
        Report { outcome, generation: self.app.generation(), sha256, faults }
    }
}

fn unreadable(error: &Unreadable) -> Fault {
    fault(error.path.display().to_string(), format!("cannot be read: {}", error.source))
}

fn fault(path: String, problem: String) -> Fault {
    let remedy = "put a readable file there; the configuration in force stays until then".to_owned();
    Fault { path, line: None, problem, remedy }
}

/// Says what became of it: every fault of a file once, however often the same file is read.
fn tell(report: &Report, is_news: bool) {
    let (generation, outcome) = (report.generation, report.outcome.label());
    let sha256 = report.sha256.as_deref().unwrap_or("none");
    match (report.outcome.is_good(), is_news) {
        (true, _) => tracing::info!(generation, sha256, outcome, "the configuration file is in force"),
        (false, true) => {
            for fault in &report.faults {
                tracing::warn!(outcome, %fault, "the configuration file cannot come into force");
            }
            tracing::warn!(generation, sha256, outcome, "the last good configuration stays in force");
        }
        (false, false) => {
            tracing::warn!(generation, sha256, outcome, "the configuration file is as bad as before");
        }
    }
}
