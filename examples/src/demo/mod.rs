//! The demo: a whole mesh on one machine, under load, with parts of it failing.
//!
//! ```text
//!   load ──▶ web ──▶ [sidecar] ══▶ [sidecar] ──▶ orders ──▶ [sidecar] ══▶ [sidecar] ──▶ inventory-1
//!                                                                    ╞══▶ [sidecar] ──▶ inventory-2
//!                                                                    ╘══▶ [sidecar] ──▶ inventory-3
//! ```
//! `══▶` is mutual TLS between sidecars, each with a certificate from the CA; `──▶` is plain HTTP on one host. Every
//! box is a process of its own, every host a loopback address of its own. [`run`] tells the whole story in order.

pub mod options;

pub mod admin;
pub mod chaos;
pub mod illness;
pub mod intruders;
pub mod latency;
pub mod load;
pub mod mesh;
pub mod mesh_files;
pub mod plan;
pub mod processes;
pub mod programs;
pub mod progress;
pub mod report;
pub mod table;
pub mod traces;
pub mod watchdog;

use std::{fs, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{client::Client, effects, folder::Folder, otlp::receiver::Receiver, signals::Signals};
use intruders::Intruders;
use load::{Load, Tally};
use mesh::Mesh;
use options::Options;
use plan::{Plan, Service, Workload};
use programs::Programs;
use progress::Console;
use report::Report;
use traces::Target;

/// Exit code after Ctrl-C or SIGTERM, as shells give it for SIGINT.
const INTERRUPTED: u8 = 130;
/// Between the start of the mesh and the first request of the load.
const LEAD: Duration = Duration::from_millis(200);

/// Runs the demo. The exit code is 0 only if everything was as it must be.
///
/// # Errors
/// If the mesh could not be started or the report not be written; no process is left behind.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.watchdog {
        watchdog::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    // One thread is enough for the load, and leaves the cores to the mesh.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tell(options))
}

async fn tell(options: &Options) -> anyhow::Result<ExitCode> {
    let console = Console::new();
    let mut signals = Signals::new()?;
    let target = options.otlp.as_ref().map(|url| Target::named(url, options.otlp_protocol)).transpose()?;
    if let Some(target) = &target {
        target.reach().await?;
    }
    let folder = Folder::new("demo", options.dir.as_deref())?;
    if let Some(path) = &options.report {
        // Better now than after the run.
        fs::write(path, "").with_context(|| format!("writing the report {}", path.display()))?;
    }
    let (mut mesh, receiver) = tokio::select! {
        biased;
        () = signals.received() => return Ok(folder.leave(INTERRUPTED)),
        mesh = start(options, &folder.path, target, &console) => mesh?,
    };
    let measured = tokio::select! {
        biased;
        () = signals.received() => None,
        measured = measure(options, &mut mesh, receiver.as_ref(), &console) => Some(measured),
    };
    if let (true, Some(Ok(report))) = (options.keep, &measured) {
        publish(options, report, mesh.plan(), &console)?;
        explain_use(mesh.plan(), &console);
        signals.received().await;
    }
    let plan = mesh.plan().clone();
    console.line("Stopping everything.");
    let unstopped = tokio::select! {
        biased;
        () = signals.received() => vec!["stopping was cut short by a second signal".to_owned()],
        unstopped = mesh.stop() => unstopped,
    };
    let Some(measured) = measured else { return Ok(folder.leave(INTERRUPTED)) };
    let report = measured?.with(unstopped.clone());
    match options.keep {
        false => publish(options, &report, &plan, &console)?,
        true => unstopped.iter().for_each(|fault| console.line(fault)),
    }
    if report.passed {
        return Ok(folder.leave(0));
    }
    console.line(&format!("Configuration and logs of this run: {}", folder.path.display()));
    Ok(ExitCode::FAILURE)
}

/// The mesh, and the receiver of its traces if nobody else's is the target.
async fn start(
    options: &Options,
    dir: &Path,
    target: Option<Target>,
    console: &Console,
) -> anyhow::Result<(Mesh, Option<Receiver>)> {
    let programs = Programs::find(!options.no_build, console).await?;
    let mut plan = Plan::new(dir)?;
    let receiver = match target {
        None => Some(Receiver::start(plan.receiver)?),
        Some(target) => {
            plan.traces = target;
            None
        }
    };
    console.line(&format!("Starting a CA, {} services and their sidecars:", plan.workloads.len()));
    for workload in &plan.workloads {
        let calls = workload.service.calls().map_or_else(String::new, |called| format!(" -> {called}"));
        console.line(&format!("  {:<12} on {}{calls}", workload.name, workload.inbound.ip()));
    }
    console.line(&format!("Their traces go to {}", plan.traces.endpoint));
    Ok((Mesh::start(plan, programs).await?, receiver))
}

/// Puts the started mesh under load and breaks parts of it meanwhile.
async fn measure(
    options: &Options,
    mesh: &mut Mesh,
    receiver: Option<&Receiver>,
    console: &Console,
) -> anyhow::Result<Report> {
    let target = mesh.plan().first(Service::Web).app;
    let first = load::call(&Client::new(target.to_string())).await;
    first.with_context(|| {
        format!(
            "everything started, but the first request failed; logs: {}",
            mesh.plan().dir.join("log").display()
        )
    })?;
    let intruders = Intruders::prepare(mesh.plan(), mesh.programs()).await?;

    let load = Load { target, duration: options.duration, rate: options.rate, start: effects::now() + LEAD };
    let length = humantime::format_duration(options.duration);
    console
        .line(&format!("All ready. {} requests per second for {length} on http://{target}/", options.rate));
    let tally = Arc::new(Tally::default());
    let action = futures_util::future::join(
        load.drive(Arc::clone(&tally)),
        chaos::wreak(mesh, &intruders, load, console),
    );
    let damage = tokio::select! {
        ((), damage) = action => damage,
        never = progress::show(&tally, load.start, console) => match never {},
    };
    let mut faults = mesh.casualties();
    let hops = report::hops(mesh.plan(), &mut faults).await;
    let calls = match receiver {
        Some(receiver) => Some(traces::collect(receiver).await),
        None => {
            faults.extend(traces::sent(mesh.plan()).await);
            None
        }
    };
    Ok(Report::new(load, tally.read(), hops, damage, faults).with_calls(calls))
}

/// Shows the report, and writes it where it was asked for.
fn publish(options: &Options, report: &Report, plan: &Plan, console: &Console) -> anyhow::Result<()> {
    console.line(&table::render(report, plan, console.width()));
    if options.otlp.is_some() {
        console.line(&traces::where_to_look(&plan.traces, report.last_trace.as_deref()));
    }
    if let Some(path) = &options.report {
        let json = serde_json::to_string_pretty(report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing the report {}", path.display()))?;
    }
    Ok(())
}

/// What to try on a mesh that keeps running.
fn explain_use(plan: &Plan, console: &Console) {
    let (web, orders) = (plan.first(Service::Web), plan.first(Service::Orders));
    let lines = [
        ("all the way, as a client outside the mesh", format!("curl http://{}/basket", web.app)),
        (
            "as web would call orders: through its sidecar",
            format!("curl -x http://{} http://orders/basket", web.outbound),
        ),
        ("past the sidecar of orders: refused", format!("curl -k https://{}/basket", orders.inbound)),
        ("whom orders calls, and how that goes", admin_curl(orders, "clusters")),
        ("who calls orders, and who was refused", admin_curl(orders, "listeners")),
        ("metrics of its sidecar", format!("curl http://{}/metrics", orders.health)),
    ];
    console
        .line(&format!("The mesh keeps running until Ctrl-C. Its files are in {}. Try:", plan.dir.display()));
    for (what, command) in lines {
        console.line(&format!("\n  # {what}\n  {command}"));
    }
    console.line("");
}

fn admin_curl(workload: &Workload, path: &str) -> String {
    format!("curl --unix-socket {} http://admin/{path}", workload.admin().display())
}
