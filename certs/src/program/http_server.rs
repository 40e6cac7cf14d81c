//! HTTP of both versions, bounded.

use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;

use super::Tasks;

/// Between two looks whether a silent HTTP/2 connection is still there, and the time for its answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How much a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time for a request's head over HTTP/1.
    pub header_timeout: Duration,
    /// Bytes that are buffered over HTTP/1.
    pub buffer_bytes: usize,
    /// Requests at a time over HTTP/2.
    pub streams: u32,
    /// Bytes under way to us in one stream of HTTP/2.
    pub stream_window_bytes: u32,
    /// Bytes under way to us in all streams of a connection.
    pub connection_window_bytes: u32,
    /// Bytes of a request's head over HTTP/2.
    pub header_bytes: usize,
}

/// Serves connections within these bounds, each stream as one of `tasks`.
#[must_use]
pub fn builder(tasks: &Tasks, bounds: Bounds) -> auto::Builder<Tasks> {
    let (interval, timeout) = KEEP_ALIVE;
    let mut builder = auto::Builder::new(tasks.clone());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(bounds.buffer_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .initial_stream_window_size(bounds.stream_window_bytes)
        .initial_connection_window_size(bounds.connection_window_bytes)
        .max_header_list_size(u32::try_from(bounds.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout);
    builder
}
