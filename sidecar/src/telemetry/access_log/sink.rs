//! Where records go: into a bounded buffer, and from there by a thread of its own, which may block as long as it likes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{RecordCounts, file::Outlet};
use crate::clock::Clock;

/// Bytes that wait to be written, beside as many that are being written; what is more is dropped. Two thousand records.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// So many bytes are written without waiting for more.
const ENOUGH_BYTES: usize = 64 * 1024;
/// How long a record waits for others, so that a busy sidecar writes many at once.
const LINGER: Duration = Duration::from_millis(100);
/// Time between two tries where writing fails.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two tries where nothing can be taken just now.
const BUSY: Duration = Duration::from_millis(20);
/// At the end, a reader that takes nothing is waited for so often.
const MAX_STUCK: u32 = 50;
/// Dropped records are told of so often at most.
const TELL: Duration = Duration::from_secs(10);

/// One place that records go to.
#[derive(Debug)]
pub(super) struct Sink {
    path: Option<PathBuf>,
    shared: Arc<Shared>,
    /// Ends when the thread does.
    ended: oneshot::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    counts: Arc<RecordCounts>,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    is_closing: bool,
    /// Whether the file is to be looked at before the next record.
    must_look: bool,
}

impl Sink {
    /// Begins to write; `None` is standard output. A file is opened with the first record.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        path: Option<PathBuf>,
        clock: &Clock,
        counts: &Arc<RecordCounts>,
    ) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), counts: Arc::clone(counts) });
        let (end, ended) = oneshot::channel::<()>();
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            outlet: Outlet::new(path.clone(), clock),
            clock: clock.clone(),
            is_failing: false,
            told: (0, None),
        };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run();
            drop(end);
        })?;
        Ok(Self { path, shared, ended })
    }

    /// Where to; `None` is standard output.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Looks before the next record whether the file is still in its place.
    pub(super) fn look_again(&self) {
        self.shared.lock().must_look = true;
    }

    /// Takes one line in, or drops it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        let before = state.waiting.len();
        let after = before + line.len();
        if after > MAX_WAITING_BYTES {
            self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        if before == 0 || (before < ENOUGH_BYTES && after >= ENOUGH_BYTES) {
            self.shared.changed.notify_one();
        }
    }

    /// Ends when all is written, or after that time.
    pub(super) async fn finish(mut self, limit: Duration) {
        self.shared.close();
        if tokio::time::timeout(limit, &mut self.ended).await.is_err() {
            tracing::warn!(?limit, "the access log could not be written to its end");
        }
    }
}

impl Drop for Sink {
    /// The thread writes what is there and ends.
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closing = true;
        self.changed.notify_one();
    }

    /// Waits for lines and moves them to `batch`; false when there will be none any more.
    fn next(&self, batch: &mut Vec<u8>) -> bool {
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_closing;
        let is_little = |state: &mut State| state.waiting.len() < ENOUGH_BYTES && !state.is_closing;
        let state = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) =
            self.changed.wait_timeout_while(state, LINGER, is_little).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(batch, &mut state.waiting);
        !batch.is_empty()
    }

    /// Waits so long, or until the end is near; returns whether it is.
    fn pause(&self, limit: Duration) -> bool {
        let is_open = |state: &mut State| !state.is_closing;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closing
    }

    fn takes_look(&self) -> bool {
        std::mem::take(&mut self.lock().must_look)
    }
}

/// What the thread has.
struct Writer {
    shared: Arc<Shared>,
    outlet: Outlet,
    clock: Clock,
    is_failing: bool,
    /// How many dropped records were told of, and when.
    told: (u64, Option<Instant>),
}

impl Writer {
    fn run(&mut self) {
        let mut batch = Vec::new();
        while self.shared.next(&mut batch) {
            self.write(&batch);
            batch.clear();
            batch.shrink_to(ENOUGH_BYTES);
            self.tell(TELL);
        }
        self.tell(Duration::ZERO);
    }

    /// Writes whole lines, however long it takes; gives up only when the sink is closing.
    fn write(&mut self, batch: &[u8]) {
        let (mut done, mut lost, mut stuck) = (0, 0, 0);
        while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
            let is_new = self.outlet.renew(self.shared.takes_look());
            let is_between = done == 0 || batch.get(done - 1) == Some(&b'\n');
            if is_new && !is_between {
                // The half of a line is in the file before; its other half is none.
                done += rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
                lost += 1;
                continue;
            }
            match self.outlet.write(rest) {
                Ok(written) if written > 0 => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reader that takes nothing holds up the log, and not its end.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.shared.pause(BUSY) {
                        thread::sleep(BUSY);
                        stuck += 1;
                    }
                    if stuck >= MAX_STUCK {
                        lost += lines(rest);
                        break;
                    }
                }
                failed => {
                    self.failed(&failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                    if self.shared.pause(RETRY) {
                        lost += lines(rest);
                        break;
                    }
                    self.tell(TELL);
                }
            }
        }
        self.shared.counts.dropped.fetch_add(lost, Ordering::Relaxed);
        self.shared.counts.written.fetch_add(lines(batch).saturating_sub(lost), Ordering::Relaxed);
        if done == batch.len() && std::mem::take(&mut self.is_failing) {
            tracing::info!(to = self.outlet.name(), "the access log is written again");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                to = self.outlet.name(), %error,
                "the access log cannot be written: tried again every second, records are dropped once the buffer is full"
            );
        }
    }

    /// Says how many records were dropped, if there were more and the last time is so long ago.
    fn tell(&mut self, pause: Duration) {
        let (told, at) = self.told;
        let now = self.clock.now();
        let dropped = self.shared.counts.dropped.load(Ordering::Relaxed);
        if dropped > told && at.is_none_or(|at| now.saturating_duration_since(at) >= pause) {
            self.told = (dropped, Some(now));
            tracing::warn!(
                to = self.outlet.name(),
                dropped = dropped - told,
                "access log records were dropped: more came than could be written"
            );
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
    u64::try_from(ends).unwrap_or(u64::MAX)
}
