//! A half-closed stream that does not move ends.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

/// A stream of which one direction has ended is reset when the other has not moved for so long (to within a
/// `CHECKS`th). Apps that forget to close their half would fill the process up with half-closed connections
/// else. Ten times as long as Linux's connection tracking (`nf_conntrack_tcp_timeout_close_wait`: 60 s) keeps such a
/// connection, so whoever works without a sidecar on the way has met a shorter limit.
pub const HALF_OPEN_LIMIT: Duration = Duration::from_secs(600);
/// So often is a half-closed stream looked at within its limit.
const CHECKS: u32 = 10;

/// Watches one stream. It costs nothing until a direction has ended.
#[derive(Debug, Default)]
pub(super) struct Stall {
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
    quiet: u32,
}

impl Stall {
    /// Ready when the stream has been half open and has not moved for [`HALF_OPEN_LIMIT`]. `moved` is how many bytes it
    /// has carried in all.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, is_half_open: bool, moved: u64) -> Poll<()> {
        if !is_half_open {
            return Poll::Pending;
        }
        let interval = HALF_OPEN_LIMIT / CHECKS;
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
