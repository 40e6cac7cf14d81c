//! What leaves for a collector, by OTLP (OpenTelemetry Protocol 1.x) over gRPC or HTTP.
//!
//! ```text
//!   spans ─▶ queue ─▶ batch ─▶ opentelemetry-otlp ─▶ Transport ─▶ collector        one message under way at a time
//!            (bounded)
//!   metrics ────────────────────────────────────────▶ Transport ─▶ collector
//! ```
//! # Invariants
//! - Nothing of it is awaited by a request. What does not fit into the queue is dropped and counted.
//! - Whatever a collector does, a message is over within its timeout; its answers are bounded.
//! - Values of fields, which may be secrets, are in no log.

mod connect;
mod counts;
mod courier;
mod failure;
mod grpc;
mod http;
mod material;
mod resource;
mod spans;
mod transport;

pub use connect::Dialing;
pub use counts::{ExportCounts, Exports, LastExport};
pub use failure::{Accepted, Failed};
pub use resource::resource;
pub use spans::{SpanExporter, SpanQueue};
pub use transport::Transport;
