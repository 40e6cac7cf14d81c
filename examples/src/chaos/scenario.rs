//! What is broken, how, and what a mesh that keeps its word does about it.

use std::time::{Duration, Instant};

use super::{
    app::Fault,
    load::Kind,
    mesh::Mesh,
    network_faults::{Impairment, Wire},
};
use crate::effects;

/// The replica that something is done to, where it is done to one.
const VICTIM: usize = 1;
/// Rest between two steps of a rolling restart, as an orchestrator waits for the new one to be well.
const STEP: Duration = Duration::from_millis(500);

/// One way to break things.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done, for people.
    pub title: &'static str,
    /// What is sent meanwhile.
    pub load: Kind,
    /// What is promised.
    pub promise: Promise,
    act: Act,
}

/// What Outrider promises of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// No request fails.
    NoFailures,
    /// Requests fail while there is nobody to answer; the mesh works again soon after somebody is back.
    Recovers,
    /// Everything fails, and the apps see no more load than the budget allows.
    Budget,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Kill(Part),
    Freeze(Part),
    Ail(Fault),
    AilAll(Fault),
    RestartApps,
    RestartSidecars,
    RestartBoth,
    AllDown,
    Wire(Impairment),
}

/// What of a replica is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    App,
    Sidecar,
    Both,
}

/// When things were broken.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From here on.
    pub start: Instant,
    /// Until here.
    pub end: Instant,
    /// Recovery counts from here: from the start, but from the return of the first where all were gone.
    pub judged_from: Instant,
}

const fn scenario(name: &'static str, title: &'static str, act: Act) -> Scenario {
    Scenario { name, title, load: Kind::Requests, promise: Promise::NoFailures, act }
}

const fn answers(status: u16, percent: u8) -> Fault {
    Fault { status: Some(status), percent: Some(percent), delay_ms: 0 }
}

/// All of them, in the order in which they are run. One of three replicas is hit unless the title says more.
pub const ALL: &[Scenario] = &[
    scenario("kill-app", "SIGKILL of one app", Act::Kill(Part::App)),
    scenario("kill-sidecar", "SIGKILL of one sidecar", Act::Kill(Part::Sidecar)),
    scenario("kill-both", "SIGKILL of one app and its sidecar", Act::Kill(Part::Both)),
    scenario("stop-app", "SIGSTOP of one app", Act::Freeze(Part::App)),
    scenario("stop-sidecar", "SIGSTOP of one sidecar", Act::Freeze(Part::Sidecar)),
    scenario("answers-503", "one app answers 503", Act::Ail(answers(503, 100))),
    scenario("errors-10", "one app answers 503 to 10 %", Act::Ail(answers(503, 10))),
    scenario(
        "delays-2s",
        "one app takes 2 s for each answer",
        Act::Ail(Fault { status: None, percent: None, delay_ms: 2000 }),
    ),
    scenario("restart-apps", "rolling restart of all apps", Act::RestartApps),
    scenario(
        "restart-sidecars",
        "rolling replacement of all sidecars, the caller's too",
        Act::RestartSidecars,
    ),
    Scenario {
        promise: Promise::Recovers,
        ..scenario("all-down", "all apps and their sidecars killed, back one by one", Act::AllDown)
    },
    Scenario {
        promise: Promise::Budget,
        ..scenario("storm", "every app answers 503", Act::AilAll(answers(503, 100)))
    },
    Scenario {
        load: Kind::Streams,
        ..scenario("streams", "gRPC streams through restarts of apps and sidecars", Act::RestartBoth)
    },
    scenario("loss", "the wire to one loses 10 % of packets", Act::Wire(Impairment::Loss)),
    scenario("delay", "the wire to one is 100 ms long each way", Act::Wire(Impairment::Delay)),
    scenario("congestion", "the wire to one carries 48 kbit/s", Act::Wire(Impairment::Congestion)),
    scenario("partition", "the wire to one is cut", Act::Wire(Impairment::Partition)),
];

impl Scenario {
    /// Why it can't be run on this machine, if so.
    #[must_use]
    pub fn cannot_run(&self, wire: Option<Wire>) -> Option<&'static str> {
        match (self.act, wire) {
            (Act::Wire(_), None) => Some("needs a network namespace of its own, and ip, tc and nft in it"),
            (Act::Wire(impairment), Some(wire)) if !wire.can(impairment) => {
                Some("this kernel cannot delay packets (no sch_netem)")
            }
            _ => None,
        }
    }

    /// Breaks things, holds them broken, and mends them.
    ///
    /// # Errors
    /// If that could not be done as planned.
    pub async fn perform(&self, mesh: &mut Mesh<'_>, hold: Duration) -> anyhow::Result<Span> {
        let start = effects::now();
        let mut judged_from = start;
        match self.act {
            Act::Kill(part) => kill(mesh, part, hold).await?,
            Act::Freeze(part) => freeze(mesh, part, hold).await?,
            Act::Ail(fault) => ail(mesh, &[VICTIM], fault, hold).await?,
            Act::AilAll(fault) => {
                let all: Vec<_> = (0..mesh.replicas()).collect();
                ail(mesh, &all, fault, hold).await?;
                judged_from = effects::now();
            }
            Act::RestartApps => restart(mesh, Part::App).await?,
            Act::RestartSidecars => restart(mesh, Part::Sidecar).await?,
            Act::RestartBoth => restart(mesh, Part::Both).await?,
            Act::AllDown => judged_from = all_down(mesh, hold).await?,
            Act::Wire(impairment) => {
                if let Some(wire) = mesh.stage().wire {
                    wire.impair(mesh.host(VICTIM)?, impairment).await?;
                    tokio::time::sleep(hold).await;
                    wire.heal(impairment).await?;
                }
            }
        }
        Ok(Span { start, end: effects::now(), judged_from })
    }
}

impl Part {
    fn has_app(self) -> bool {
        self != Self::Sidecar
    }

    fn has_sidecar(self) -> bool {
        self != Self::App
    }
}

async fn kill(mesh: &mut Mesh<'_>, part: Part, hold: Duration) -> anyhow::Result<()> {
    if part.has_app() {
        mesh.app(VICTIM)?.kill();
    }
    if part.has_sidecar() {
        mesh.sidecar(VICTIM)?.kill();
    }
    tokio::time::sleep(hold).await;
    if part.has_app() {
        mesh.start_app(VICTIM).await?;
    }
    if part.has_sidecar() {
        mesh.start_sidecar(VICTIM).await?;
    }
    Ok(())
}

async fn freeze(mesh: &mut Mesh<'_>, part: Part, hold: Duration) -> anyhow::Result<()> {
    let process = if part == Part::App { mesh.app(VICTIM)? } else { mesh.sidecar(VICTIM)? };
    process.freeze();
    tokio::time::sleep(hold).await;
    process.thaw();
    Ok(())
}

async fn ail(mesh: &Mesh<'_>, replicas: &[usize], fault: Fault, hold: Duration) -> anyhow::Result<()> {
    replicas.iter().try_for_each(|replica| mesh.set_fault(*replica, fault))?;
    tokio::time::sleep(hold).await;
    replicas.iter().try_for_each(|replica| mesh.set_fault(*replica, Fault::default()))
}

async fn restart(mesh: &mut Mesh<'_>, part: Part) -> anyhow::Result<()> {
    for replica in 0..mesh.replicas() {
        if part.has_app() {
            mesh.restart_app(replica).await?;
            tokio::time::sleep(STEP).await;
        }
        if part.has_sidecar() {
            mesh.replace_sidecar(Some(replica)).await?;
            tokio::time::sleep(STEP).await;
        }
    }
    if part.has_sidecar() {
        mesh.replace_sidecar(None).await?;
    }
    Ok(())
}

/// Returns when the first was back.
async fn all_down(mesh: &mut Mesh<'_>, hold: Duration) -> anyhow::Result<Instant> {
    for replica in 0..mesh.replicas() {
        mesh.app(replica)?.kill();
        mesh.sidecar(replica)?.kill();
    }
    tokio::time::sleep(hold).await;
    let mut first_back = None;
    for replica in 0..mesh.replicas() {
        mesh.start_app(replica).await?;
        mesh.start_sidecar(replica).await?;
        first_back.get_or_insert_with(effects::now);
        tokio::time::sleep(STEP).await;
    }
    Ok(first_back.unwrap_or_else(effects::now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let mut names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn without_a_namespace_only_the_scenarios_of_the_wire_cannot_run() {
        let left: Vec<_> = ALL.iter().filter(|scenario| scenario.cannot_run(None).is_some()).collect();
        assert_eq!(left.len(), 4);
        let no_delay = Some(Wire { can_delay: false });
        let left: Vec<_> = ALL.iter().filter(|scenario| scenario.cannot_run(no_delay).is_some()).collect();
        assert_eq!(left.iter().map(|scenario| scenario.name).collect::<Vec<_>>(), ["delay"]);
    }
}
