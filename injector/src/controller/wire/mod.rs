//! Sidecars: connections, streams, and what is said on them.
//!
//! | module | what it does |
//! |---|---|
//! | [`desk`] | the hub behind a lock, its bounds, and who is woken |
//! | [`stream`] | one conversation |
//! | [`server`] | connections: accepted, capped, secured, served, ended |
//! | [`status`] | `/live`, `/ready`, `/metrics` |

pub mod desk;
pub mod server;
pub mod status;
pub mod stream;
