//! Resilience: how much may be under way, and what may be tried again.
//!
//! ```text
//! request ──▶ circuit_breaker ──▶ attempt ──failed──▶ retry ──▶ retry_budget ──▶ backoff ──▶ next attempt
//!             over a cap?                             may this    may anything    how long
//!             answer at once                          be repeated? right now?     first?
//! ```
//! Every rule here may only say no or later; none starts anything. State is atomics of `model::runtime`, shared by all
//! workers; time and chance are arguments.

pub mod backoff;
pub mod circuit_breaker;
pub mod fault;
pub mod outcome;
pub mod outlier;
pub mod rate_limit;
pub mod retry;
pub mod retry_budget;
