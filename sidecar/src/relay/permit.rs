//! Leave to go on, which somebody else may take away.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// The leave of one connection, request or stream to go on. Whoever carries it asks, or waits for its end; clones are of
/// the same leave.
#[derive(Clone, Debug, Default)]
pub struct Permit(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_revoked: AtomicBool,
    /// One is enough: at any time, one task carries it.
    owner: AtomicWaker,
}

/// Resolves when the leave is taken away. To be awaited in one task at a time.
#[derive(Debug)]
pub struct Revoked<'a>(&'a Permit);

impl Permit {
    /// Takes it away.
    pub fn revoke(&self) {
        self.0.is_revoked.store(true, Ordering::Release);
        self.0.owner.wake();
    }

    /// Gives it again.
    pub fn renew(&self) {
        self.0.is_revoked.store(false, Ordering::Release);
    }

    /// Whether it was taken away.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.0.is_revoked.load(Ordering::Acquire)
    }

    /// Whether it was; if not, the task of `cx` is woken when it is.
    #[must_use]
    pub fn poll_revoked(&self, cx: &Context<'_>) -> bool {
        self.0.owner.register(cx.waker());
        self.is_revoked()
    }

    /// Waits for that.
    #[must_use]
    pub fn revoked(&self) -> Revoked<'_> {
        Revoked(self)
    }
}

impl Future for Revoked<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.poll_revoked(cx) { Poll::Ready(()) } else { Poll::Pending }
    }
}
