//! A whole mesh on one machine, and the small service it consists of.
//!
//! Nothing here knows the inside of the sidecar or of the CA: like any app, it starts their programs, speaks HTTP to
//! them and reads their public answers.
//!
//! - [`service`]: one small HTTP service, used as `web`, `orders` and `inventory` (program `service`).
//! - [`demo`]: starts a mesh of such services and sidecars, puts it under load, breaks parts of it, and reports
//!   (program `demo`).
//! - [`chaos`]: a service of three replicas under constant load, broken in every way we know, behind sidecars of ours or
//!   pairs of Envoy (program `chaos`).
//! - [`wiretap`]: what somebody on the wire sees (program `wiretap`), for the pods in `examples/pods`; as is `greeter`,
//!   a program whose server speaks first.
//! - [`otlp`]: takes traces and draws one as a waterfall; in the demo, and as the program `collector`.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests read clocks and start tasks as they like")
)]

pub mod chaos;
pub mod client;
pub mod demo;
pub mod effects;
pub mod folder;
pub mod network;
pub mod open_loop;
pub mod otlp;
pub mod service;
pub mod serving;
pub mod signals;
pub mod wiretap;

/// Says on standard error why a program ends, with all causes, and gives its exit code.
#[expect(clippy::print_stderr, reason = "the one place where the programs tell why they failed")]
#[must_use]
pub fn fail(program: &str, error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("{program}: {error:#}");
    std::process::ExitCode::FAILURE
}
