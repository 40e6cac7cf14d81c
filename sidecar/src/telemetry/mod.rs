//! What the process tells about itself: metrics, logs, and the record of each request that feeds the metrics.
//!
//! # Invariants
//! - Label values come from the configuration, or from a bounded set of verified peers; nothing in a request can make
//!   a series.
//! - The data side only writes atomics; whoever scrapes pays for reading and formatting them.

pub mod access_log;
pub mod anchor;
mod arriving;
pub mod escape;
pub mod explain;
pub mod export;
mod finish;
#[cfg(test)]
pub(crate) mod fixture;
pub mod insight;
pub mod log;
pub mod metrics;
pub mod moved;
pub mod observer;
pub mod record;
pub mod ring;
pub mod sampling;
pub mod spans;
pub mod stitches;
pub mod tap;
pub mod trail;
pub mod watch;

pub use access_log::AccessLog;
pub use finish::Finisher;
pub use insight::Insight;
pub use metrics::{Metrics, ProcessFacts};
pub use moved::Moved;
pub use observer::Observer;
pub use record::RequestRecord;
pub use watch::{Consumers, watch};
