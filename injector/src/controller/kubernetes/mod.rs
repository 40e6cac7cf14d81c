//! The API server: what is read of it, and the little that is written to it.
//!
//! | module | what it does |
//! |---|---|
//! | [`api`] | objects as the API server sends them, as far as they are read |
//! | [`routes`] | those of the Gateway API |
//! | [`policies`] | our own policies |
//! | [`watch`] | keeps watching, whatever happens |
//! | [`lease`] | who of the replicas writes |
//! | [`bundle`] | the ConfigMap with the trust bundle in every namespace with the mesh |
//! | [`statuses`] | statuses of routes and policies |

pub mod api;
pub mod bundle;
pub mod lease;
mod lenient;
pub mod policies;
pub mod routes;
pub mod statuses;
pub mod watch;
