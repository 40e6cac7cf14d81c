//! The request path, told once and top to bottom.
//!
//! Read [`http`] first: one request, stage by stage. [`tcp`] is the same for opaque streams. Inbound and outbound are
//! the same functions; what differs is data: the [`door::Door`] that a connection came in by.

pub mod attempt;
mod attempts;
pub mod door;
pub mod entrance;
pub mod error;
mod head;
pub mod http;
mod http_connection;
mod pulse;
pub mod respond;
pub mod serve;
pub mod tcp;
pub mod worker;
