//! The chaos run: a service of three replicas, broken in every way we know, under constant load.
//!
//! ```text
//!   load ──▶ [sidecar of web] ══▶ [sidecar] ──▶ app, orders-1
//!                             ╞══▶ [sidecar] ──▶ app, orders-2    what is hit, where it is one
//!                             ╘══▶ [sidecar] ──▶ app, orders-3
//! ```
//! Every box is a process of its own; `══▶` is mutual TLS. The sidecars are ours, or Envoys, or both in turns. [`run`]
//! tells the story in order; [`scenario`] is the list of what is done.

pub mod options;

pub mod app;
pub mod docs;
pub mod load;
pub mod measure;
pub mod mesh;
pub mod network_faults;
pub mod plan;
pub mod plot;
pub mod report;
pub mod scenario;
pub mod sidecar;
pub mod streams;
pub mod table;

use std::{env, fs, process::ExitCode, time::Duration};

use anyhow::Context;

use crate::{
    demo::{latency::Latency, progress::Console, progress::millis, watchdog},
    effects,
    folder::Folder,
    signals::Signals,
};
use load::Load;
use measure::Times;
use mesh::{Mesh, Stage};
use network_faults::Wire;
use options::{Choice, Command, Options};
use plan::Plan;
use report::{Report, Run, Skipped};
use scenario::Scenario;
use sidecar::{Programs, Proxy};

/// Exit code after Ctrl-C or SIGTERM, as shells give it for SIGINT.
const INTERRUPTED: u8 = 130;
/// Load before anything is measured: connections are made, latencies learnt.
const WARM_UP: Duration = Duration::from_millis(1500);

/// How long the phases of a scenario last.
#[derive(Clone, Copy, Debug)]
struct Phases {
    before: Duration,
    /// Of what is broken for a time; what takes its time, as a rolling restart, takes that.
    during: Duration,
    after: Duration,
}

impl Phases {
    fn of(options: &Options) -> Self {
        let [before, during, after] = if options.quick { [1500, 2500, 2500] } else { [4000, 8000, 6000] };
        Self {
            before: Duration::from_millis(before),
            during: Duration::from_millis(during),
            after: Duration::from_millis(after),
        }
    }
}

/// Runs what is asked for. The exit code is 0 only if Outrider kept its promises.
///
/// # Errors
/// If something could not be started or written; no process is left behind.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.watchdog {
        watchdog::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    // One thread is enough for the load, and leaves the cores to the sidecars.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(Command::App(app)) = &options.command {
        runtime.block_on(app::run(app.clone()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let console = Console::new();
    if options.list {
        scenario::ALL.iter().for_each(|known| console.line(&format!("{:<18} {}", known.name, known.title)));
        return Ok(ExitCode::SUCCESS);
    }
    let scenarios = chosen(options)?;
    if !options.alone {
        let own = env::current_exe().context("finding this program's own file")?;
        // It only returns if it did not work.
        let why = network_faults::move_into_namespace(&own, env::args_os().skip(1));
        console.line(&format!("NO NETWORK NAMESPACE: what is done to the wire is skipped ({why})"));
    }
    runtime.block_on(tell(options, &scenarios, &console))
}

fn chosen(options: &Options) -> anyhow::Result<Vec<Scenario>> {
    let unknown =
        options.scenario.iter().find(|name| scenario::ALL.iter().all(|known| known.name != name.as_str()));
    if let Some(unknown) = unknown {
        anyhow::bail!("--scenario {unknown}: there is none of that name; --list names them");
    }
    let is_chosen = |known: &&Scenario| {
        options.scenario.is_empty() || options.scenario.iter().any(|name| name == known.name)
    };
    Ok(scenario::ALL.iter().filter(is_chosen).copied().collect())
}

async fn tell(options: &Options, scenarios: &[Scenario], console: &Console) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let folder = Folder::new("chaos", options.dir.as_deref())?;
    fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let told = tokio::select! {
        biased;
        () = signals.received() => None,
        told = all(options, scenarios, &folder, console) => Some(told),
    };
    let Some(report) = told else {
        console.line("Interrupted: everything was ended.");
        return Ok(folder.leave(INTERRUPTED));
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            console.line(&format!("Configuration and logs of this run: {}", folder.path.display()));
            return Err(error);
        }
    };
    publish(options, &report, console)?;
    match report.broken.is_empty() {
        true => Ok(folder.leave(0)),
        false => {
            console.line(&format!("Configuration and logs of this run: {}", folder.path.display()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs every scenario behind each kind of sidecar. Cancelled, it leaves nothing behind.
async fn all(
    options: &Options,
    scenarios: &[Scenario],
    folder: &Folder,
    console: &Console,
) -> anyhow::Result<Report> {
    let programs = Programs::find(options, console).await?;
    let proxies: &[Proxy] = match options.proxy {
        Choice::Outrider => &[Proxy::Outrider],
        Choice::Envoy => &[Proxy::Envoy],
        Choice::Both => &[Proxy::Outrider, Proxy::Envoy],
    };
    for proxy in proxies {
        proxy.check(&programs).await.with_context(|| format!("{} can't be run", proxy.name()))?;
    }
    let wire = wire(options, console).await;
    let stage = Stage::set(Plan::new(&folder.path, options.alone)?, programs, wire, proxies).await?;
    let _cleaning = Cleaning { stage: &stage, proxies };
    let command = env::args()
        .skip(1)
        .filter(|word| word != "--alone")
        .fold("chaos".to_owned(), |line, word| format!("{line} {word}"));
    let mut report =
        Report { command, rate: options.rate, runs: Vec::new(), skipped: Vec::new(), broken: Vec::new() };
    for scenario in scenarios {
        if let Some(why) = scenario.cannot_run(wire) {
            console.line(&format!("SKIPPED {}: {why}", scenario.name));
            report.skipped.push(Skipped { scenario: scenario.name, why: why.to_owned() });
            continue;
        }
        for proxy in proxies {
            let run = one(options, &stage, scenario, *proxy, console)
                .await
                .with_context(|| format!("{} behind {}", scenario.name, proxy.name()))?;
            if *proxy == Proxy::Outrider {
                report.broken.extend(report::broken(scenario, &run.cost, options.rate));
            }
            report.runs.push(run);
        }
    }
    Ok(report)
}

async fn wire(options: &Options, console: &Console) -> Option<Wire> {
    if !options.alone {
        return None;
    }
    match Wire::new().await {
        Ok(wire) => Some(wire),
        Err(error) => {
            console.line(&format!("NO TRAFFIC CONTROL: what is done to the wire is skipped ({error:#})"));
            None
        }
    }
}

/// One scenario behind one kind of sidecar, from the start of its processes to their end.
async fn one(
    options: &Options,
    stage: &Stage,
    scenario: &Scenario,
    proxy: Proxy,
    console: &Console,
) -> anyhow::Result<Run> {
    let phases = Phases::of(options);
    let mut mesh = Mesh::start(stage, proxy).await?;
    let load = Load::start(&stage.plan.caller, scenario.load, options.rate);
    let heading = format!("{:<10} {}", proxy.name(), scenario.title);
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let begin = effects::now();
        tokio::time::sleep(phases.before).await;
        let seen = mesh.seen();
        let span = scenario.perform(&mut mesh, phases.during).await?;
        let attempts = mesh.seen() - seen;
        tokio::time::sleep(phases.after).await;
        anyhow::Ok((Times { begin, span, end: effects::now() }, attempts))
    };
    let (times, attempts) = tokio::select! {
        measured = measuring => measured?,
        never = show(&load, &heading, console) => match never {},
    };
    let record = load.finish().await;
    mesh.end().await;
    let cost = measure::cost(&record, times, attempts);
    let recovered =
        cost.recovered_s.map_or_else(|| "never".to_owned(), |seconds| format!("after {seconds:.1} s"));
    console.line(&format!(
        "{heading}: {} of {} failed, +{:.1} % load, p99 {} -> {} ms, recovered {recovered}",
        cost.failed,
        cost.requests,
        cost.extra_load_percent,
        millis(cost.before.p99_ms),
        millis(cost.during.p99_ms),
    ));
    Ok(Run { scenario: scenario.name, title: scenario.title, proxy, cost })
}

/// Shows on a terminal how the load is doing, for as long as it is awaited.
async fn show(load: &Load, heading: &str, console: &Console) -> std::convert::Infallible {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut before = 0;
    loop {
        tick.tick().await;
        let record = load.read();
        let new = record.samples.get(before..).unwrap_or_default();
        let mut latency = Latency::default();
        new.iter().filter(|sample| sample.is_ok).for_each(|sample| latency.record(sample.took));
        let failed = new.iter().filter(|sample| !sample.is_ok).count();
        let at = effects::now().saturating_duration_since(load.began()).as_secs_f64();
        let (p50, p99) = (millis(latency.quantile_ms(0.5)), millis(latency.quantile_ms(0.99)));
        console.show_live(&format!(
            "{heading}  {at:>4.0} s  {:>5}/s  failed {failed:<4} p50 {p50} ms  p99 {p99} ms",
            new.len()
        ));
        before = record.samples.len();
    }
}

fn publish(options: &Options, report: &Report, console: &Console) -> anyhow::Result<()> {
    let plot = plot::svg(report);
    let json = serde_json::to_string_pretty(report)? + "\n";
    for (name, text) in [("chaos.json", &json), ("chaos.svg", &plot)] {
        let path = options.out.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(folder) = &options.docs {
        docs::write(folder, &table::markdown(report), &plot)?;
    }
    console.line(&table::render(report));
    console.line(&format!("Written: chaos.json and chaos.svg in {}", options.out.display()));
    Ok(())
}

/// Removes at the end, however it comes, what processes leave outside of the run's folder.
struct Cleaning<'s> {
    stage: &'s Stage,
    proxies: &'s [Proxy],
}

impl Drop for Cleaning<'_> {
    fn drop(&mut self) {
        self.proxies.iter().for_each(|proxy| proxy.clean(&self.stage.plan));
    }
}
