//! The buffers of a thread.

use std::{cell::RefCell, ops::Range};

/// Bytes of one buffer: four TLS records. Larger ones gained nothing over loopback, smaller ones cost system calls.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that a thread keeps for the next who asks; more are freed.
const MAX_KEPT: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer on loan; it goes back on drop. What it holds at first is somebody else's old bytes: read only what was written
/// since ([`Held`] keeps account).
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// One of the thread's buffers, or a new one of [`BUFFER_BYTES`].
    #[must_use]
    pub fn take() -> Self {
        let kept = KEPT.with(|kept| kept.borrow_mut().pop());
        Self(kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }

    /// All of it.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// A part of it; empty where it does not exist.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // While the thread ends there may be no place to return it to: it is freed then.
        let _ended = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT {
                kept.push(buffer);
            }
        });
    }
}

/// A buffer with bytes in it: written at the end, taken from the beginning.
#[derive(Debug)]
pub struct Held {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Held {
    /// A buffer of which the first `end` bytes have been written.
    #[must_use]
    pub fn new(buffer: Buffer, end: usize) -> Self {
        Self { buffer, start: 0, end }
    }

    /// The bytes not yet taken.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.bytes(self.start..self.end)
    }

    /// Bytes are gone from the beginning.
    pub fn consume(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes);
    }

    /// The room at the end; what is written there counts once it is [`Held::added`].
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut().get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes of the room have been written.
    pub fn added(&mut self, bytes: usize) {
        self.end = BUFFER_BYTES.min(self.end + bytes);
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Adds what there is room for; returns how many bytes that were.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let count = room.len().min(bytes.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..count), bytes.get(..count)) {
            room.copy_from_slice(bytes);
        }
        self.end += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let mut buffer = Buffer::take();
        buffer.bytes_mut().fill(b'x');
        drop(buffer);
        let mut held = Held::new(Buffer::take(), 0);
        assert_eq!(held.bytes(), b"");
        assert_eq!(held.put(b"hello"), 5);
        held.consume(2);
        assert_eq!(held.bytes(), b"llo");
        held.consume(100);
        assert!(held.is_empty());
        assert_eq!(held.put(&vec![b'y'; 2 * BUFFER_BYTES]), BUFFER_BYTES - 5);
        assert_eq!(held.put(b"z"), 0);
    }

    #[test]
    fn a_thread_keeps_a_few_buffers() {
        let many: Vec<_> = (0..2 * MAX_KEPT).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(KEPT.with(|kept| kept.borrow().len()), MAX_KEPT);
    }
}
