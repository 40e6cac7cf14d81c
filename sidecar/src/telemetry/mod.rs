//! What the process tells about itself: metrics, logs, and the record of each request that feeds the metrics.
//!
//! # Invariants
//! - Label values come from the configuration, or from a bounded set of verified peers; nothing in a request can make
//!   a series.
//! - The data side only writes atomics; whoever scrapes pays for reading and formatting them.

pub mod log;
pub mod metrics;
pub mod record;

pub use metrics::{Metrics, ProcessFacts};
pub use record::RequestRecord;
