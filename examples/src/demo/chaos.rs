//! What is done to the mesh while it is under load.

use std::net::SocketAddr;

use super::{
    illness::{self, Ejection},
    intruders::{Attempt, Intruders},
    load::Load,
    mesh::Mesh,
    plan::Service,
    progress::Console,
};

/// What was done, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// The replica that fell ill, was ejected and came back.
    pub ejected: Option<Ejection>,
    /// The endpoint whose host was killed.
    pub killed: Option<SocketAddr>,
    /// The endpoint whose sidecar was replaced.
    pub restarted: Option<SocketAddr>,
    /// Who tried to get in.
    pub attempts: Vec<Attempt>,
    /// What could not be done as planned.
    pub faults: Vec<String>,
}

/// At a fifteenth of the load's time a replica of `inventory` falls ill until it is ejected, at a third another one dies, at
/// a half the third one's sidecar is replaced, at five sixths intruders come.
pub async fn wreak(mesh: &mut Mesh, intruders: &Intruders, load: Load, console: &Console) -> Damage {
    let mut damage = Damage::default();
    let replicas: Vec<_> = mesh
        .plan()
        .replicas(Service::Inventory)
        .map(|replica| (replica.name.clone(), replica.inbound))
        .collect();

    at(load, 1, 15).await;
    if let Some((name, _)) = replicas.first() {
        match illness::fall_ill(mesh, name, load.start, console).await {
            Ok(ejection) => damage.ejected = Some(ejection),
            Err(error) => damage.faults.push(format!("the illness of {name}: {error:#}")),
        }
    }

    at(load, 1, 3).await;
    if let Some((name, address)) = replicas.get(1) {
        match mesh.kill(name).await {
            Ok(()) => console.event(load.start, &format!("killed {name}, service and sidecar (SIGKILL)")),
            Err(error) => damage.faults.push(format!("{error:#}")),
        }
        damage.killed = Some(*address);
    }

    at(load, 1, 2).await;
    if let Some((name, address)) = replicas.get(2) {
        console.event(load.start, &format!("starting a new sidecar for {name} beside the old one"));
        match mesh.replace_sidecar(name).await {
            Ok(took) => {
                let text =
                    format!("the old sidecar of {name} drained and ended in {:.1} s", took.as_secs_f64());
                console.event(load.start, &text);
                damage.restarted = Some(*address);
            }
            Err(error) => damage.faults.push(format!("replacing the sidecar of {name}: {error:#}")),
        }
    }

    at(load, 5, 6).await;
    damage.attempts = intruders.attempt_all().await;
    let (control, intruders): (Vec<_>, Vec<_>) =
        damage.attempts.iter().partition(|attempt| attempt.is_control);
    let got_in = intruders.iter().filter(|attempt| attempt.accepted).count();
    let control = if control.iter().all(|attempt| attempt.accepted) { "let in" } else { "refused" };
    let text =
        format!("{} intruders tried, {got_in} got in; the right certificate was {control}", intruders.len());
    console.event(load.start, &text);
    damage
}

/// Waits until `parts` of `whole` parts of the load's time have passed.
async fn at(load: Load, parts: u32, whole: u32) {
    tokio::time::sleep_until((load.start + load.duration * parts / whole).into()).await;
}
