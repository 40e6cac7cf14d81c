//! Trails as they arrive at the one task that takes them in: many at a time.
//!
//! To wake a thread costs as much as to make a span. So the task rests between two looks, unless somebody waits for what
//! arrived: a person who watches or asks why something failed. Spans and records of the access log have time.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::Sleep,
};

use super::observer::Told;

/// Between two looks at what arrived.
const REST: Duration = Duration::from_millis(100);
/// Trails of one look. Where there are more, there is no rest.
const MAX_TAKEN: usize = 256;

/// Where trails arrive.
#[derive(Debug)]
pub struct Arriving {
    trails: mpsc::Receiver<Told>,
    urgent: Arc<Notify>,
    /// Nobody looks before it is over.
    rest: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    /// `urgent` ends a rest.
    pub(super) fn new(trails: mpsc::Receiver<Told>, urgent: Arc<Notify>) -> Self {
        Self { trails, urgent, rest: None }
    }

    /// Appends what arrived to a batch, as soon as there is something and it is time to look; `false`: nobody is left who
    /// could send. Cancel-safe.
    pub(super) async fn next(&mut self, batch: &mut Vec<Told>) -> bool {
        if let Some(rest) = &mut self.rest {
            tokio::select! {
                () = rest => {}
                () = self.urgent.notified() => {}
            }
            self.rest = None;
        }
        let count = self.trails.recv_many(batch, MAX_TAKEN).await;
        if count < MAX_TAKEN {
            self.rest = Some(Box::pin(tokio::time::sleep(REST)));
        }
        count > 0
    }

    /// What is there by now, without a rest: as many as may wait, at most.
    pub(super) fn left(&mut self) -> impl Iterator<Item = Told> {
        let most = self.trails.max_capacity();
        std::iter::from_fn(|| self.trails.try_recv().ok()).take(most)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        model::{edge::Direction, flag::ResponseFlag},
        telemetry::{
            observer::{Observer, Wanted},
            trail::{Caller, Traffic, Trail},
        },
    };

    const SAMPLED: Wanted =
        Wanted { is_sampled: true, is_traced_on_error: false, is_logged: false, is_logged_on_error: false };

    fn trail(flag: Option<ResponseFlag>) -> Box<Trail> {
        let now = std::time::Instant::now();
        let mut trail = Trail::new(Traffic::Http, Direction::Outbound, Arc::from("out"), Caller::App, now);
        trail.flag = flag;
        Box::new(trail)
    }

    /// How long the next look took, and how many it found.
    async fn look(arriving: &mut Arriving) -> (Duration, usize) {
        let (before, mut batch) = (Instant::now(), Vec::new());
        assert!(arriving.next(&mut batch).await);
        (before.elapsed(), batch.len())
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_time_is_taken_together_and_what_somebody_waits_for_at_once() {
        let (observer, mut arriving) = Observer::new();
        observer.tell(trail(None), SAMPLED);
        assert_eq!(look(&mut arriving).await, (Duration::ZERO, 1), "the first");
        for _ in 0..3 {
            observer.tell(trail(None), SAMPLED);
        }
        let (rest, count) = look(&mut arriving).await;
        assert_eq!((rest.as_millis() / 10, count), (10, 3), "together, after the rest");
        observer.tell(trail(None), SAMPLED);
        observer.tell(trail(Some(ResponseFlag::UC)), Wanted::default());
        assert_eq!(look(&mut arriving).await, (Duration::ZERO, 2), "a failure is asked about");
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_many_arrive_there_is_no_rest_and_nothing_is_lost() {
        let (observer, mut arriving) = Observer::new();
        observer.tell(trail(None), SAMPLED);
        look(&mut arriving).await;
        for _ in 0..MAX_TAKEN * 8 {
            observer.tell(trail(None), SAMPLED);
        }
        assert_eq!(look(&mut arriving).await, (Duration::ZERO, MAX_TAKEN), "the queue fills");
        for _ in 1..8 {
            assert_eq!(look(&mut arriving).await, (Duration::ZERO, MAX_TAKEN));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_last_who_could_send() {
        let (observer, mut arriving) = Observer::new();
        observer.tell(trail(None), SAMPLED);
        drop(observer);
        let mut batch = Vec::new();
        assert!(arriving.next(&mut batch).await && !arriving.next(&mut batch).await);
        assert_eq!(batch.len(), 1);
    }
}
