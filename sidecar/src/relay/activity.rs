//! When a stream last moved: what idle timeouts are measured from.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::{clock::Clock, telemetry::Moved};

/// Shared by both directions of one stream: a byte either way counts for both.
#[derive(Clone, Debug)]
pub struct Activity {
    clock: Clock,
    start: Instant,
    moved: Arc<Moved>,
}

impl Activity {
    /// A stream that moves just now; what moves of it is counted there.
    #[must_use]
    pub fn new(clock: &Clock, moved: &Arc<Moved>) -> Self {
        Self { clock: clock.clone(), start: clock.now(), moved: Arc::clone(moved) }
    }

    /// Bytes from the caller have moved.
    pub fn from_caller(&self, bytes: usize) {
        self.moved.from_caller(bytes);
    }

    /// Bytes to the caller have moved.
    pub fn to_caller(&self, bytes: usize) {
        self.moved.to_caller(bytes);
    }

    /// The stream moves now.
    pub fn touch(&self) {
        let micros = self.clock.now().saturating_duration_since(self.start).as_micros();
        self.moved.last_us.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it will have been idle for `limit`, if nothing moves.
    #[must_use]
    pub fn idle_at(&self, limit: Duration) -> Instant {
        self.start + Duration::from_micros(self.moved.last_us.load(Ordering::Relaxed)) + limit
    }
}

/// Ends when a stream has not moved for a time. It sleeps to the earliest possible end and looks again there, so a busy
/// stream costs one store per frame and no timer work.
#[derive(Debug)]
pub struct IdleTimer {
    activity: Activity,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl IdleTimer {
    /// A timer on `activity` that ends after `limit` without movement.
    #[must_use]
    pub fn new(activity: Activity, limit: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep_until(activity.idle_at(limit).into()));
        Self { activity, limit, sleep }
    }
}

impl Future for IdleTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let idle_at = self.activity.idle_at(self.limit);
            if idle_at <= self.activity.clock.now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(idle_at.into());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_moves_is_not_idle() {
        let clock = Clock::system();
        let activity = Activity::new(&clock, &Arc::default());
        let begin = clock.now();
        let timer = IdleTimer::new(activity.clone(), Duration::from_secs(10));
        let mover = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            activity.touch();
            std::future::pending::<()>().await;
        };
        tokio::select! { biased; () = timer => {}, () = mover => {} }
        assert_eq!(clock.now().duration_since(begin).as_secs(), 18);
    }
}
