//! What connections were found to speak, by what and how soon: closed lists, for decisions and for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::histogram::{DETECTION_BOUNDS_SECONDS, Histogram};

/// What the downstream of a connection speaks, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// TLS: it begins with a `ClientHello`.
    Tls,
    /// HTTP/2 with prior knowledge: it begins with the connection preface.
    Http2,
    /// HTTP/1: it begins with a request line.
    Http1,
    /// Anything else; its bytes are carried as they are.
    Opaque,
}

/// By what it was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The configuration says it.
    Declared,
    /// The client's bytes told.
    Client,
    /// The server spoke first.
    Server,
    /// The client's bytes ended before they told anything.
    SilentEnd,
    /// Nobody said enough within the time that is waited.
    Timeout,
}

impl Spoken {
    /// Every protocol, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Tls, Self::Http2, Self::Http1, Self::Opaque];

    /// The protocol as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Http1 => "http1",
            Self::Opaque => "opaque",
        }
    }
}

impl How {
    /// Every way, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Declared, Self::Client, Self::Server, Self::SilentEnd, Self::Timeout];

    /// The way as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Client => "client",
            Self::Server => "server",
            Self::SilentEnd => "silent_end",
            Self::Timeout => "timeout",
        }
    }
}

/// The label of connections that were never known to speak anything.
const NONE: &str = "none";
/// Where those are counted: behind the protocols.
const NONE_INDEX: usize = Spoken::ALL.len();

/// What connections of one listener were found to speak, and how soon.
#[derive(Debug)]
pub struct Detections {
    /// By [`Spoken`], "none" last, then by [`How`].
    counts: [[AtomicU64; How::ALL.len()]; NONE_INDEX + 1],
    /// From accepting a connection to knowing what it speaks; what is declared is known before and is not in it.
    pub duration: Histogram,
}

impl Default for Detections {
    fn default() -> Self {
        Self { counts: Default::default(), duration: Histogram::new(&DETECTION_BOUNDS_SECONDS) }
    }
}

impl Detections {
    /// Counts one connection, once. `spoken` is `None` if nothing was ever known of it, as when it ended without a
    /// byte; `elapsed` is the time since it was accepted, and not looked at for [`How::Declared`]. A few relaxed
    /// additions, no lock.
    pub fn record(&self, spoken: Option<Spoken>, how: How, elapsed: Duration) {
        let protocol = spoken.map_or(NONE_INDEX, |spoken| spoken as usize);
        if let Some(count) = self.counts.get(protocol).and_then(|by_way| by_way.get(how as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if how != How::Declared {
            self.duration.record(elapsed);
        }
    }

    /// Every count with its labels: protocol, way.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let protocols = Spoken::ALL.map(Spoken::label).into_iter().chain([NONE]);
        protocols.zip(&self.counts).flat_map(|(protocol, by_way)| {
            let ways = How::ALL.map(How::label).into_iter().zip(by_way);
            ways.map(move |(way, count)| (protocol, way, count.load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_their_discriminants() {
        assert!(Spoken::ALL.into_iter().enumerate().all(|(index, spoken)| spoken as usize == index));
        assert!(How::ALL.into_iter().enumerate().all(|(index, how)| how as usize == index));
    }

    #[test]
    fn each_connection_is_counted_where_it_belongs_and_timed_unless_declared() {
        let detections = Detections::default();
        detections.record(Some(Spoken::Http1), How::Declared, Duration::from_secs(1));
        detections.record(Some(Spoken::Http1), How::Client, Duration::from_micros(20));
        detections.record(Some(Spoken::Opaque), How::Server, Duration::from_millis(3));
        detections.record(None, How::SilentEnd, Duration::from_secs(60));
        let counted: Vec<_> = detections.read().filter(|(.., count)| *count > 0).collect();
        let expected = [("http1", "declared", 1), ("http1", "client", 1), ("opaque", "server", 1)];
        assert_eq!(counted[..3], expected);
        assert_eq!(counted[3..], [("none", "silent_end", 1)]);
        assert_eq!(detections.read().count(), 25);
        let duration = detections.duration.read();
        assert_eq!((duration.count(), duration.counts[1], duration.counts.last()), (3, 1, Some(&1)));
    }
}
