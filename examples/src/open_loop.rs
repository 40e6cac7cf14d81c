//! Open loop: each request has its moment, whether or not earlier ones were answered.
//!
//! What is called can't slow the load down, and so look better than it is, by stalling. A request's time counts from
//! its moment.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

/// When requests are due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first is.
    pub start: Instant,
    /// From the first to the last.
    pub duration: Duration,
    /// Requests per second; at least 1.
    pub rate: u32,
    /// Requests under way at once; one more is refused.
    pub max_under_way: usize,
}

impl Schedule {
    /// Requests that will be made.
    #[must_use]
    pub fn planned(&self) -> u64 {
        (self.duration.as_secs_f64() * f64::from(self.rate)).round() as u64
    }

    /// Makes each request at its moment, until all are made or it `is_over`, and waits for the last to end. `refused`
    /// hears of those for which there was no room.
    pub async fn drive<F>(
        self,
        mut request: impl FnMut(Instant) -> F,
        mut refused: impl FnMut(Instant),
        is_over: impl Fn() -> bool,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.max_under_way));
        let mut requests = JoinSet::new();
        for number in 0..self.planned() {
            let due = self.start + Duration::from_secs_f64(number as f64 / f64::from(self.rate));
            tokio::time::sleep_until(due.into()).await;
            if is_over() {
                break;
            }
            while requests.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                refused(due);
                continue;
            };
            let request = request(due);
            requests.spawn(async move {
                request.await;
                drop(slot);
            });
        }
        while requests.join_next().await.is_some() {}
    }
}
