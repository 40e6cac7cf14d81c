//! A half-closed stream that does not move ends.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

/// So often is a half-closed stream looked at within its limit.
const CHECKS: u32 = 10;

/// Watches one stream. It costs nothing until a direction has ended.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
    quiet: u32,
}

impl Stall {
    /// Ends a stream that has been half open and has not moved for `limit`, to within a [`CHECKS`]th; `None`: never.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None, seen: 0, quiet: 0 }
    }

    /// Ready when it has. `moved` is how many bytes the stream has carried in all.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, is_half_open: bool, moved: u64) -> Poll<()> {
        let Some(limit) = self.limit.filter(|_| is_half_open) else { return Poll::Pending };
        let interval = limit / CHECKS;
        let seen = &mut self.seen;
        let timer = self.timer.get_or_insert_with(|| {
            *seen = moved;
            Box::pin(tokio::time::sleep(interval))
        });
        while timer.as_mut().poll(cx).is_ready() {
            self.quiet = if moved == *seen { self.quiet + 1 } else { 0 };
            *seen = moved;
            if self.quiet == CHECKS {
                return Poll::Ready(());
            }
            let next = timer.deadline() + interval;
            timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}
