//! `outrider drain`: asks a running sidecar to drain and follows it to the end.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use hyper::Method;
use outrider::{
    admin::{self, Answer},
    clock::Clock,
};
use serde_json::Value;

/// Time between two looks.
const POLL: Duration = Duration::from_millis(250);

pub(super) fn drain(socket: &Path, inbound_only: bool, wait: Duration) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(socket, inbound_only, wait))
}

async fn follow(socket: &Path, inbound_only: bool, wait: Duration) -> anyhow::Result<ExitCode> {
    let target = if inbound_only { "/drain?inbound=true" } else { "/drain" };
    let answer = admin::call(socket, Method::POST, target)
        .await
        .with_context(|| format!("no answer from the sidecar at {}", socket.display()))?;
    if answer.status != 202 {
        bail!("the sidecar refused: {}", answer.body);
    }
    let process = answer.body.get("process_id").cloned();
    let clock = Clock::system();
    let started = clock.now();
    let mut shown = String::new();
    let mut latest = answer;
    loop {
        let left = remaining(&latest, inbound_only);
        let line = format!("draining: {left} left");
        if line != shown {
            writeln!(io::stdout(), "{line}")?;
            shown = line;
        }
        if inbound_only && left == 0 {
            return done();
        }
        if clock.now().saturating_duration_since(started) >= wait {
            if wait.is_zero() {
                return Ok(ExitCode::SUCCESS);
            }
            writeln!(io::stderr(), "outrider: still draining after {}", humantime::format_duration(wait))?;
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
        latest = match admin::call(socket, Method::GET, "/status").await {
            Ok(answer) => answer,
            // It ended: that is what a whole drain leads to.
            Err(error) if error.is_gone() => return done(),
            Err(error) => return Err(error).context("asking how far the drain has come"),
        };
        // Another process has taken the socket over; it took over from ours, which lives on without the socket. Only
        // its own supervisor can tell when it ends.
        if latest.body.get("process_id").cloned() != process {
            writeln!(io::stdout(), "another sidecar has taken over the admin socket")?;
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Connections that the drain still waits for.
fn remaining(status: &Answer, inbound_only: bool) -> u64 {
    let key = if inbound_only { "inbound_connections" } else { "in_flight" };
    status.body.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn done() -> anyhow::Result<ExitCode> {
    writeln!(io::stdout(), "drained")?;
    Ok(ExitCode::SUCCESS)
}
