//! The end of a task: it is asked to bring what it has to its end, and says when it has.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Asks a task to end.
#[derive(Clone, Debug)]
pub struct Finisher(mpsc::Sender<Finish>);

/// What the task is asked.
#[derive(Debug)]
pub(super) struct Finish {
    limit: Duration,
    done: oneshot::Sender<()>,
}

/// Both ends.
pub(super) fn finisher() -> (Finisher, mpsc::Receiver<Finish>) {
    let (sender, asked) = mpsc::channel(1);
    (Finisher(sender), asked)
}

impl Finisher {
    /// Has what the task got so far sent on, for so long at most.
    pub async fn finish(&self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        if self.0.send(Finish { limit, done }).await.is_ok() {
            // Whether it ended in time or not, it is over.
            drop(tokio::time::timeout(limit, finished).await);
        }
    }
}

impl Finish {
    /// For so long at most.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// It is over.
    pub(super) fn done(self) {
        // Whoever asked may have given up.
        self.done.send(()).ok();
    }
}
