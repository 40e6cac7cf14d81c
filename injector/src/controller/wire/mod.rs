//! Sidecars: connections, streams, and what is said on them.
//!
//! | module | what it does |
//! |---|---|
//! | [`desk`] | the hub behind a lock, its bounds, and who is woken |
//! | [`stream`] | one conversation |
//! | [`remote`] | who is at the other end, and how many connections each may have |
//! | [`server`] | connections: accepted, capped, secured, served, ended |
//! | [`status`] | `/live`, `/ready`, `/metrics` |

pub mod desk;
pub mod remote;
pub mod server;
pub mod status;
pub mod stream;
