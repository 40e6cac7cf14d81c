//! Whole bodies: those that are there, and copies of those that are on their way.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
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
    /// Takes the next frame out.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.bytes.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.bytes)))
    }

    /// Whether nothing is left.
    pub(super) fn is_over(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }

    /// What is left. Exact only where no trailers follow: a length that was told leaves no room for them in HTTP/1.
    pub(super) fn size(&self) -> SizeHint {
        let length = self.bytes.len() as u64;
        if self.trailers.is_none() {
            return SizeHint::with_exact(length);
        }
        let mut size = SizeHint::new();
        size.set_lower(length);
        size
    }
}

/// A copy on its way: `None` comes where the body is longer than what is kept of it, and an error where it does not come to
/// its end.
pub type Coming = oneshot::Receiver<Option<Whole>>;

/// Those who want a copy of a body, once it is whole.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<oneshot::Sender<Option<Whole>>>);

impl Copies {
    /// Whether nobody wants one.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    fn a_body_that_is_there_comes_with_its_trailers_and_then_no_more() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("a"))]);
        let mut body = Whole { bytes: Bytes::from_static(b"two apples"), trailers: Some(trailers.clone()) };
        assert_eq!((body.size().lower(), body.size().exact()), (10, None));
        assert_eq!(body.next().unwrap().into_data().unwrap(), "two apples");
        assert!(!body.is_over());
        assert_eq!(body.next().unwrap().into_trailers().unwrap(), trailers);
        assert!(body.is_over() && body.next().is_none());
        assert_eq!(Whole { bytes: Bytes::from_static(b"x"), trailers: None }.size().exact(), Some(1));
    }

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
        let mut gone = copies.add();
        drop(copies);
        assert!(gone.try_recv().is_err());
    }
}
