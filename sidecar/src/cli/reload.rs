//! `outrider reload`: has a running sidecar read its configuration again, and says what became of it.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};
use hyper::Method;
use outrider::{admin, model::reload::Outcome};
use serde_json::Value;

pub(super) fn reload(socket: &Path) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime
        .block_on(admin::call(socket, Method::POST, "/reload"))
        .with_context(|| format!("no answer from the sidecar at {}", socket.display()))?;
    let Some(outcome) = answer.body.get("outcome").and_then(Value::as_str) else {
        bail!("the sidecar refused: {}", answer.body);
    };
    let generation = answer.body.get("generation").cloned().unwrap_or_default();
    if answer.status == 200 {
        let sha256 = answer.body.get("sha256").and_then(Value::as_str).unwrap_or_default();
        let says = if outcome == Outcome::Unchanged.label() { "is in force already" } else { "is in force" };
        writeln!(io::stdout(), "the configuration {says}: generation {generation}, sha256 {sha256}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let faults = answer.body.get("faults").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut text = format!("{outcome}: {} fault(s); generation {generation} stays in force\n", faults.len());
    for fault in faults.iter().filter_map(|fault| fault.get("text")?.as_str()) {
        text.push_str(&format!("{fault}\n"));
    }
    io::stderr().write_all(text.as_bytes())?;
    Ok(ExitCode::FAILURE)
}
