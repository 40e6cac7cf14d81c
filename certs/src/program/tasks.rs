//! The tasks of connections, and how they are told to end.

use std::future::Future;
use std::time::Duration;

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of all connections of a program.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Take nothing new.
    pub stop: CancellationToken,
    /// End now.
    pub force: CancellationToken,
}

impl Tasks {
    /// None yet; they stop with `stop`.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop, force: CancellationToken::new() }
    }

    /// Starts one. It has to look at [`stop`](Self::stop) itself; it is dropped with [`force`](Self::force).
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.execute(task);
    }

    /// Waits for all of them; what takes longer than `grace` is cut off.
    pub async fn finish(self, grace: Duration) {
        self.tracker.close();
        tracing::info!(connections = self.tracker.len(), "stopping");
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::warn!(connections = self.tracker.len(), "cut off what did not finish in time");
            self.force.cancel();
            self.tracker.wait().await;
        }
    }
}

/// hyper's own tasks (one per HTTP/2 stream) are waited for like ours.
impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let force = self.force.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = force.cancelled() => {}
                _output = task => {}
            }
        });
    }
}
