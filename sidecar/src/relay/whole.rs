//! Whole bodies: those that are there, and copies of those that are on their way.

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::oneshot;

/// A whole body.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    /// Whether there is nothing of it.
    pub(super) fn is_over(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }
}

/// A copy on its way: `None` comes where the body is longer than what is kept of it, and an error where it does not come to
/// its end.
pub type Coming = oneshot::Receiver<Option<Whole>>;

/// Those who want a copy of a body, once it is whole.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<oneshot::Sender<Option<Whole>>>);

impl Copies {
    /// Whether nobody wants one, or not any more.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(oneshot::Sender::is_closed)
    }

    /// One more.
    pub(super) fn add(&mut self) -> Coming {
        let (sender, receiver) = oneshot::channel();
        self.0.push(sender);
        receiver
    }

    /// The body is whole: it was these frames. Copies are of one piece of their own, for frames may hold larger buffers.
    pub(super) fn give(&mut self, frames: &[Bytes], trailers: Option<&HeaderMap>) {
        if self.is_empty() {
            return;
        }
        let whole = Whole { bytes: frames.concat().into(), trailers: trailers.cloned() };
        self.tell(&Some(whole));
    }

    /// The body is longer than what is kept of it.
    pub(super) fn refuse(&mut self) {
        self.tell(&None);
    }

    fn tell(&mut self, copy: &Option<Whole>) {
        for sender in self.0.drain(..) {
            // Whoever has left misses nothing.
            sender.send(copy.clone()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_all_of_it_or_hears_that_there_is_too_much() {
        let mut copies = Copies::default();
        let mut coming = [copies.add(), copies.add()];
        copies.give(&[Bytes::from_static(b"two "), Bytes::from_static(b"apples")], None);
        for copy in &mut coming {
            assert_eq!(copy.try_recv().unwrap().unwrap().bytes, "two apples");
        }
        let mut late = copies.add();
        copies.refuse();
        assert!(late.try_recv().unwrap().is_none());
        drop(copies.add());
        assert!(copies.is_empty(), "who has left needs nothing to be kept");
        let mut gone = copies.add();
        assert!(!copies.is_empty());
        drop(copies);
        assert!(gone.try_recv().is_err());
    }
}
