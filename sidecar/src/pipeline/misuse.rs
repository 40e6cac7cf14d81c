//! What ended a downstream HTTP connection: which of it counts as misuse, and when resets become too many.

use std::{
    future::poll_fn,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use crate::model::closed::Misuse;

/// What resets are counted over.
const WINDOW: Duration = Duration::from_secs(1);

/// What the other end did that ended a connection; `None` if it just left. Its answer, where there is one, was the HTTP
/// library's.
#[must_use]
pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Misuse> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<hyper::Error>() {
            if http.is_parse_too_large() {
                return Some(Misuse::HeadTooLarge);
            }
            if http.is_parse() {
                return Some(Misuse::Malformed);
            }
            // With a cause it is a ping that nobody answered.
            if http.is_timeout() && error.source().is_none() {
                return Some(Misuse::HeadTimeout);
            }
        }
        if let Some(http2) = error.downcast_ref::<h2::Error>() {
            // What we said to the other end, not what it said to us.
            let said = http2.reason().filter(|_| http2.is_go_away() && http2.is_library());
            return said.and_then(|reason| match reason {
                h2::Reason::NO_ERROR => None,
                h2::Reason::ENHANCE_YOUR_CALM => Some(Misuse::Flood),
                _ => Some(Misuse::Http2),
            });
        }
        next = error.source();
    }
    None
}

/// Streams of one HTTP/2 connection that were reset before their answers.
///
/// A stream opened and reset costs its sender two small frames, and us a request to an upstream (CVE-2023-44487). The
/// streams open at a time are bounded, so streams opened per second are those answered, which the other end has to read,
/// and those reset, which are counted here.
#[derive(Debug, Default)]
pub struct Resets {
    window: Mutex<Window>,
    strikes: AtomicU32,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

impl Resets {
    /// Counts one. More than `max` within a second are a strike.
    pub fn count(&self, now: Instant, max: u32) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        if window.since.is_none_or(is_over) {
            *window = Window { since: Some(now), count: 0 };
        }
        window.count += 1;
        if window.count > max {
            *window = Window::default();
            self.strikes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Completes when there were more strikes than `seen`. Must be polled in the connection's own task and wakes
    /// nobody: resets come in by the connection, whose next frames wake it, and before those nothing is lost.
    pub async fn struck(&self, seen: u32) {
        poll_fn(
            |_cx| {
                if self.strikes.load(Ordering::Relaxed) > seen { Poll::Ready(()) } else { Poll::Pending }
            },
        )
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn strikes(resets: &Resets) -> u32 {
        (0..).find(|seen| resets.struck(*seen).now_or_never().is_none()).unwrap()
    }

    #[test]
    fn more_than_the_bound_within_a_second_is_a_strike() {
        let (resets, start) = (Resets::default(), Instant::now());
        for step in 0..100 {
            resets.count(start + step * WINDOW / 10, 10);
        }
        assert_eq!(strikes(&resets), 0, "ten a second");
        let late = start + 20 * WINDOW;
        for _ in 0..10 {
            resets.count(late, 10);
        }
        assert_eq!(strikes(&resets), 0);
        resets.count(late, 10);
        assert_eq!(strikes(&resets), 1);
        for _ in 0..11 {
            resets.count(late, 10);
        }
        assert_eq!(strikes(&resets), 2);
    }
}
