mod bounds;
mod in_a_row;
mod looks;
mod rests;
mod windows;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    balance::{InFlight, Pick},
    model::{
        Cluster, ClusterSettings, Endpoint, fixture,
        health::Standing,
        outlier::{OutlierSettings, Reason},
    },
    resilience::outcome::Outcome,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A cluster whose time goes on by hand.
struct Mesh {
    cluster: Cluster,
    now: Instant,
    rng: fastrand::Rng,
    events: Vec<Event>,
}

impl Mesh {
    fn new(endpoints: u8) -> Self {
        Self::with(endpoints, fixture::outlier())
    }

    fn with(endpoints: u8, outlier: OutlierSettings) -> Self {
        let now = Instant::now();
        let settings = ClusterSettings { outlier: Some(outlier), ..fixture::settings("orders") };
        Self {
            cluster: fixture::cluster(settings, endpoints, now),
            now: now + SECOND,
            rng: fastrand::Rng::with_seed(7),
            events: Vec::new(),
        }
    }

    fn endpoint(&self, index: usize) -> std::sync::Arc<Endpoint> {
        std::sync::Arc::clone(&self.cluster.endpoints[index])
    }

    /// A request to an endpoint that has just been sent.
    fn send(&self, index: usize) -> InFlight {
        InFlight::start(Pick { endpoint: self.endpoint(index), probe: None }, self.now)
    }

    fn report(&mut self, index: usize, report: Report) -> Option<Event> {
        let settings = self.cluster.settings.outlier.clone().unwrap();
        let endpoint = self.endpoint(index);
        let step = record(&settings, &endpoint, report);
        let event = take(&self.cluster, &endpoint, step, self.now, &mut self.rng);
        self.events.extend(event.clone());
        event
    }

    /// One request that takes no time to speak of.
    fn result(&mut self, index: usize, outcome: Outcome) -> Option<Event> {
        let latency = Some(MS);
        self.report(index, Report { outcome, started: self.now, latency, is_late_end: false })
    }

    fn results(&mut self, index: usize, outcome: Outcome, times: u32) {
        for _ in 0..times {
            self.result(index, outcome);
        }
    }

    /// One request that is answered well after that time, in which nothing else happens.
    fn answer(&mut self, index: usize, latency: Duration) {
        let mut request = self.send(index);
        let (started, at) = (self.now, self.now + latency);
        request.answered(at);
        let report =
            Report { outcome: Outcome::Success, started, latency: Some(latency), is_late_end: false };
        self.report(index, report);
    }

    /// Time passes, and is looked at every second.
    fn pass(&mut self, time: Duration) -> Vec<Event> {
        let until = self.now + time;
        let mut events = Vec::new();
        while self.now < until {
            self.now += SECOND.min(until - self.now);
            events.extend(look(&self.cluster, self.now, &mut self.rng));
        }
        self.events.extend(events.iter().cloned());
        events
    }

    fn standing(&self, index: usize) -> Standing {
        self.endpoint(index).runtime.standing(true, self.now)
    }

    fn is_usable(&self, index: usize) -> bool {
        self.standing(index) == Standing::Usable
    }

    fn usable(&self) -> usize {
        (0..self.cluster.endpoints.len()).filter(|index| self.is_usable(*index)).count()
    }

    /// Waits out an endpoint's rest.
    fn rest(&mut self, index: usize) {
        if let Standing::Resting(until) = self.standing(index) {
            self.now = until;
        }
        assert_eq!(self.standing(index), Standing::Due);
    }

    fn ejected_for(&self, reason: Reason) -> u64 {
        self.cluster.runtime.outlier.ejected_for(reason)
    }

    fn standings(&self) -> u64 {
        self.cluster.runtime.standings.load(Ordering::Relaxed)
    }
}
