//! Constant load through the caller's sidecar, every request accounted for.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Full;

use super::{
    plan::{CALLED, Host},
    streams::Streams,
};
use crate::{client::Client, demo::load::Failure, effects, open_loop::Schedule};

/// Requests under way at once; past that a request has failed.
const MAX_UNDER_WAY: usize = 2000;
/// An answer that takes longer is a failure. Both proxies give up after 8 s.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Longest load of one scenario.
const LONGEST: Duration = Duration::from_secs(300);
/// Kinds of failure kept.
const MAX_KINDS: usize = 12;
/// Streams begun per second, where there are streams in place of requests; each lasts two seconds.
const STREAM_RATE: u32 = 10;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GET requests.
    Requests,
    /// Calls of a server-streaming gRPC method.
    Streams,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it was due.
    pub due: Instant,
    /// How long it took, from that moment; of a stream, to its first byte.
    pub took: Duration,
    /// Whether it was answered as it should be.
    pub is_ok: bool,
}

/// All requests so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// In the order in which they ended.
    pub samples: Vec<Sample>,
    /// What went wrong, the first few kinds, with the time since the load began.
    pub failures: Vec<Failure>,
}

/// A load that goes on until it is told to end.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    driving: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    record: Mutex<Record>,
    is_over: AtomicBool,
}

impl Load {
    /// Begins to call, through that host's sidecar.
    #[must_use]
    pub fn start(caller: &Host, kind: Kind, rate: u32) -> Self {
        let start = effects::now();
        let shared = Arc::new(Shared { start, record: Mutex::default(), is_over: AtomicBool::new(false) });
        let rate = if kind == Kind::Streams { STREAM_RATE } else { rate };
        let schedule = Schedule { start, duration: LONGEST, rate, max_under_way: MAX_UNDER_WAY };
        let target = caller.outbound.to_string();
        let driving = effects::spawn(drive(Arc::clone(&shared), schedule, kind, target));
        Self { shared, driving }
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.shared.start
    }

    /// What became of the requests that have ended.
    #[must_use]
    pub fn read(&self) -> Record {
        self.shared.record().clone()
    }

    /// Sends no more, and waits for the last answer.
    pub async fn finish(self) -> Record {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // It could only end by a panic, which has been shown.
        self.driving.await.unwrap_or_default();
        self.shared.record().clone()
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, due: Instant, outcome: Result<Duration, String>) {
        let mut record = self.record();
        let is_ok = outcome.is_ok();
        let took = match outcome {
            Ok(took) => took,
            Err(what) => {
                record.note(due.saturating_duration_since(self.start), what);
                effects::now().saturating_duration_since(due)
            }
        };
        record.samples.push(Sample { due, took, is_ok });
    }
}

impl Record {
    fn note(&mut self, at: Duration, what: String) {
        if let Some(known) = self.failures.iter_mut().find(|failure| failure.what == what) {
            known.count += 1;
        } else if self.failures.len() < MAX_KINDS {
            self.failures.push(Failure { first_at_s: at.as_secs_f64(), count: 1, what });
        }
    }
}

async fn drive(shared: Arc<Shared>, schedule: Schedule, kind: Kind, target: String) {
    let (client, streams) = (Arc::new(Client::new(target.clone())), Arc::new(Streams::new(target)));
    let request = |due: Instant| {
        let (shared, client, streams) = (Arc::clone(&shared), Arc::clone(&client), Arc::clone(&streams));
        async move {
            let outcome = tokio::time::timeout(TIMEOUT, async {
                match kind {
                    Kind::Requests => call(&client).await.map(|()| effects::now()),
                    Kind::Streams => streams.watch().await,
                }
            });
            let outcome = match outcome.await {
                Ok(Ok(answered)) => Ok(answered.saturating_duration_since(due)),
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(_elapsed) => Err(format!("no answer within {TIMEOUT:?}")),
            };
            shared.ended(due, outcome);
        }
    };
    let refused = |due| shared.ended(due, Err(format!("not sent: {MAX_UNDER_WAY} were under way")));
    schedule.drive(request, refused, || shared.is_over.load(Ordering::Relaxed)).await;
}

async fn call(client: &Client) -> anyhow::Result<()> {
    let request = Request::get("/").header(HOST, CALLED).body(Full::new(Bytes::new()))?;
    let answer = client.send(request).await.context("calling the sidecar")?;
    if answer.status() == StatusCode::OK {
        return Ok(());
    }
    let reason = answer.headers().get("x-outrider-reason").and_then(|reason| reason.to_str().ok());
    let said = String::from_utf8_lossy(answer.body());
    anyhow::bail!("{} {}", answer.status(), reason.unwrap_or(said.trim_end()))
}
