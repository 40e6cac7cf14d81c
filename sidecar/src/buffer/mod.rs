//! Buffers between sockets and protocols, sized for throughput and held only while they hold bytes.
//!
//! A thread has a few large buffers and lends them to whichever of its connections has bytes under way. An idle connection
//! has none, so ten thousand of them cost their sockets and their sessions and no more.

mod append;
mod batch;
mod prefixed;
mod read_ahead;
mod scratch;

pub use append::append;
pub use batch::{Batch, Flusher, batch};
pub use prefixed::Prefixed;
pub use read_ahead::ReadAhead;
pub use scratch::{BUFFER_BYTES, Buffer, Held};
