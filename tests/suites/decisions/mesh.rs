//! The callers and the service they call, on a clock that jumps from one event to the next.

use std::{
    collections::BTreeMap,
    fmt::Display,
    time::{Duration, Instant},
};

use super::{
    caller::Caller,
    invariants,
    plan::{CALM_FROM, LOAD, Plan},
    queue::{Event, Key, Queue},
    replica::{Fate, Replica, Seen, Stage, exponential},
    requests::{End, Request},
};

/// How often a sidecar looks after its clusters.
const SWEEP: Duration = Duration::from_secs(1);
/// From the last request to the end of the run: longer than anything takes.
const SETTLE: Duration = Duration::from_secs(30);

/// Everybody, and what is under way between them.
pub(super) struct Mesh {
    /// What the run is made of.
    pub(super) plan: Plan,
    /// Since the run's beginning.
    pub(super) now: Duration,
    /// The calling sidecars.
    pub(super) callers: Vec<Caller>,
    /// The called service.
    pub(super) replicas: Vec<Replica>,
    /// Requests that have not ended.
    pub(super) requests: BTreeMap<u32, Request>,
    /// Attempts that have not ended, as the network sees them.
    pub(super) attempts: BTreeMap<u64, Attempt>,
    /// What became of each request, by its number.
    pub(super) ends: Vec<Option<End>>,
    /// What is going to happen.
    pub(super) queue: Queue,
    /// The world's chances.
    pub(super) rng: fastrand::Rng,
    /// What happens now and then.
    pub(super) rare: Vec<&'static str>,
    /// What was decided, in words.
    pub(super) log: Log,
    start: Instant,
    sent: u64,
}

/// What was decided, in words, and who wants to read it.
pub(super) enum Log {
    /// Nobody.
    None,
    /// A test, afterwards.
    Kept(Vec<String>),
    /// Somebody at a screen, line by line: the run may not come to its end.
    Printed,
}

/// One attempt, as the network sees it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) request: u32,
    pub(super) caller: usize,
    pub(super) replica: usize,
    pub(super) stage: Stage,
    /// What its caller sees of it next.
    pub(super) seen: Option<Seen>,
    next: Option<Key>,
    /// When it has had its time.
    pub(super) times: Option<Key>,
}

impl Mesh {
    /// Runs a plan to its end and checks what must hold after every step of it.
    pub(super) fn run(plan: &Plan, log: Log) -> Self {
        let mut mesh = Self::new(plan, log);
        while let Some((at, event)) = mesh.queue.next() {
            mesh.now = at;
            mesh.happen(event);
            invariants::after_step(&mesh);
        }
        invariants::at_end(&mesh);
        mesh
    }

    fn new(plan: &Plan, log: Log) -> Self {
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let start = Instant::now();
        let mut callers: Vec<_> =
            (0..plan.callers.len()).map(|index| Caller::new(plan, index, &mut rng, start)).collect();
        let replicas: Vec<_> = plan.replicas.iter().cloned().map(Replica::new).collect();
        let mut queue = Queue::default();
        queue.plan(CALM_FROM, Event::Calm);
        queue.plan(LOAD, Event::Closes);
        for (index, change) in plan.changes.iter().enumerate() {
            queue.plan(change.at, Event::Changes(index));
        }
        for (index, caller) in callers.iter_mut().enumerate() {
            caller.discover(&replicas, start);
            queue.plan(Duration::ZERO, Event::Arrives { caller: index });
            for worker in 0..caller.workers.len() {
                let first = SWEEP.mul_f64(rng.f64());
                queue.plan(first, Event::Sweeps { caller: index, worker });
            }
        }
        Self {
            plan: plan.clone(),
            now: Duration::ZERO,
            callers,
            replicas,
            requests: BTreeMap::new(),
            attempts: BTreeMap::new(),
            ends: Vec::new(),
            queue,
            rng,
            rare: Vec::new(),
            log,
            start,
            sent: 0,
        }
    }

    /// The moment, as decisions take it.
    pub(super) fn instant(&self) -> Instant {
        self.start + self.now
    }

    /// Adds a line to the log, if there is one.
    pub(super) fn note(&mut self, line: impl Display) {
        let at = self.now.as_millis();
        match &mut self.log {
            Log::None => {}
            Log::Kept(lines) => lines.push(format!("{at:>6} ms {line}")),
            Log::Printed => println!("{at:>6} ms {line}"),
        }
    }

    /// What became of requests and of endpoints, in words.
    pub(super) fn happened(&self) -> impl Iterator<Item = String> {
        let ends = self.ends.iter().flatten().map(|end| format!("{end:?}"));
        let ejections = self.callers.iter().flat_map(|caller| &caller.ledger.ejections);
        let ejections = ejections.map(|(_, _, reason)| format!("{reason:?}"));
        ends.chain(ejections).chain(self.rare.iter().map(|what| (*what).to_owned()))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { caller } => {
                if self.now < LOAD {
                    let gap = exponential(Duration::from_secs_f64(1.0 / self.plan.rate), &mut self.rng);
                    self.queue.plan(self.now + gap, Event::Arrives { caller });
                    self.arrive(caller);
                }
            }
            Event::Changes(index) => self.change(index),
            Event::Goes { attempt } => self.go(attempt),
            Event::Calm => self.callers.iter_mut().for_each(|caller| caller.ledger.calm()),
            Event::Closes => {
                self.callers.iter_mut().for_each(|caller| caller.ledger.close());
                invariants::all_are_back(self);
            }
            Event::Times { attempt } => self.time_out(attempt),
            Event::Hedges { request } => self.hedge(request),
            Event::Retries { request } => self.attempt(request),
            Event::Expires { request } => self.expire(request),
            Event::Leaves { request } => self.end(request, End::Left),
            Event::Sweeps { caller, worker } => {
                if self.now < LOAD + SETTLE {
                    self.queue.plan(self.now + SWEEP, Event::Sweeps { caller, worker });
                    self.look(caller, worker);
                }
            }
        }
    }

    /// Something begins or ends at a replica: what is under way with it notices.
    fn change(&mut self, index: usize) {
        let change = self.plan.changes[index];
        self.note(change);
        let replica = &mut self.replicas[change.replica];
        let listed = replica.listed();
        replica.fault = change.begins.then_some(change.fault);
        if self.replicas[change.replica].listed() != listed {
            let now = self.instant();
            for caller in &mut self.callers {
                caller.discover(&self.replicas, now);
                caller.discovered_at = self.now;
            }
        }
        let touched: Vec<u64> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.replica == change.replica)
            .map(|(number, _)| *number)
            .collect();
        for number in touched {
            let attempt = &self.attempts[&number];
            let replica = &self.replicas[change.replica];
            if let Some(fate) = replica.carry_on(attempt.caller, attempt.stage, &mut self.rng) {
                self.fate(number, fate);
            }
        }
    }

    /// Sends an attempt to a replica; its number.
    pub(super) fn send(&mut self, request: u32, caller: usize, replica: usize) -> u64 {
        self.sent += 1;
        let fate = self.replicas[replica].ask(caller, &mut self.rng);
        self.replicas[replica].load += 1;
        let attempt =
            Attempt { request, caller, replica, stage: Stage::Asked, seen: None, next: None, times: None };
        self.attempts.insert(self.sent, attempt);
        self.fate(self.sent, fate);
        self.sent
    }

    /// From now on this becomes of an attempt, and nothing else.
    pub(super) fn fate(&mut self, number: u64, fate: Fate) {
        let attempt = self.attempts.get_mut(&number).expect("it has not ended");
        self.queue.cancel(attempt.next.take());
        attempt.seen = fate.map(|(_, seen)| seen);
        attempt.next =
            fate.map(|(after, _)| self.queue.plan(self.now + after, Event::Goes { attempt: number }));
    }

    /// An attempt is over, or called off.
    pub(super) fn forget(&mut self, number: u64) {
        if let Some(attempt) = self.attempts.remove(&number) {
            self.queue.cancel(attempt.next);
            self.queue.cancel(attempt.times);
            self.replicas[attempt.replica].load -= 1;
        }
    }
}
