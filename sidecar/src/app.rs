//! The composition root: the only file that knows every part.

use crate::{model::Settings, telemetry::log::Control};

/// Runs the sidecar until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: Settings, log: Control) -> anyhow::Result<()> {
    drop((settings, log));
    anyhow::bail!("not wired yet")
}
