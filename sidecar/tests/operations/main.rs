//! What operators see and do: the admin server over real sockets, metrics and their docs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and start tasks as they like"
)]

mod admin;
mod drain;
mod formats;
mod metrics;
mod process;
mod socket;
