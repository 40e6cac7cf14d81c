//! The real programs against each other: CA, controller and sidecars as processes, beside an API server of the tests that
//! enforces the roles which the manifests give.
//!
//! No file says anything of a destination: what the app names is asked of the controller.

mod calls;
mod explained;
mod scene;
