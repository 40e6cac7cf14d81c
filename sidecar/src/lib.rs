//! The Outrider sidecar as a library; `main.rs` is a thin program around it.
//!
//! ```text
//!             CONTROL SIDE (slow, may fail, never on a request's path)
//!   config/ ───┐
//!   discovery/ ┼──▶ publish/ ───build──▶ Arc<Snapshot> ──▶ ArcSwap
//!   identity/ ─┘      (last good stays on error)                │ load once per request
//!                                                               ▼
//! downstream ─▶ accept ─▶ identify ─▶ route ─▶ balance ─▶ connect ─▶ relay ─▶ upstream
//!              accept/     tls/      route/    balance/   connect/   relay/
//!              └─────────────── told once, top to bottom, in pipeline/ ──────────────┘
//!             DATA SIDE (fast, no locks held across await, no I/O in decisions)
//! ```

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests read clocks and start tasks as they like")
)]

// Composition.
pub mod app;
pub mod process;

// Told once.
pub mod pipeline;

// Data side: effects.
pub mod accept;
pub mod connect;
pub mod health;
pub mod relay;
pub mod tls;

// Data side, decisions: pure; `now` and `rng` are arguments.
pub mod authz;
pub mod balance;
pub mod detect;
pub mod headers;
pub mod proxy_protocol;
pub mod resilience;
pub mod route;

// Shared nouns and seams.
pub mod buffer;
pub mod canonical;
pub mod clock;
pub mod model;
pub mod net;

// Control side.
pub mod config;
pub mod discovery;
pub mod identity;
pub mod intercept;
pub mod memory;
pub mod publish;

// Operations that both sides use.
pub mod drain;
pub mod explain;
pub mod readiness;
pub mod telemetry;

// Operations that look at everything.
pub mod admin;
