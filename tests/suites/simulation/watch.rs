//! What must hold at every step of a run.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use outrider::model::{Cluster, Endpoint, policy::RetryBudget};

use super::mesh::{Mesh, Plan};

/// A head is on its way to the app for so long after the sidecar has decided.
const ON_ITS_WAY: Duration = Duration::from_millis(25);
/// The budget looks at so many whole seconds: so long ago a retry counts, however they fall...
const RETRIES_COUNT: Duration = Duration::from_secs(9);
/// ...and longer than this no request does.
const REQUESTS_COUNT: Duration = Duration::from_millis(10_100);
/// Seconds of the window.
const BUDGET_SECONDS: f64 = 10.0;

/// So long after some have left those are let in who are too many.
const SETTLED: Duration = Duration::from_secs(3);

/// Whether an endpoint rests, or has yet to show that it is back.
pub(super) fn is_ejected(endpoint: &Endpoint) -> bool {
    endpoint.runtime.health.ejected_until_us.load(Relaxed) > 0
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Watch {
    /// The time of each retry.
    retries: Vec<Duration>,
    /// How many endpoints there are, and since when.
    listed: (usize, Duration),
}

impl Watch {
    /// Looks at everything once.
    pub(super) fn look(&mut self, plan: &Plan, mesh: &Mesh) {
        let now = mesh.elapsed();
        Self::nobody_is_late(plan, mesh, now);
        let Some(orders) = mesh.orders() else { return };
        let cap = orders.settings.caps.max_requests;
        let in_flight = orders.runtime.in_flight.load(Relaxed);
        assert!(in_flight <= cap, "{in_flight} requests in flight, over the cap of {cap}");
        self.ejected_within_bounds(&orders, now);
        let retries = orders.runtime.retries.load(Relaxed) as usize;
        if retries > self.retries.len() {
            self.retries.resize(retries, now);
            self.load_is_within_the_budget(mesh, &orders.settings.retry_budget, now);
        }
    }

    fn nobody_is_late(plan: &Plan, mesh: &Mesh, now: Duration) {
        let Some(timeout) = plan.timeout else { return };
        let progress = mesh.progress();
        let late = progress.waiting.iter().find(|(_, began)| now > **began + timeout + ON_ITS_WAY);
        assert!(late.is_none(), "at {now:?}: {late:?} has no answer, with a timeout of {timeout:?}");
    }

    /// Never more are ejected than may be, but for a moment after others have left.
    fn ejected_within_bounds(&mut self, orders: &Cluster, now: Duration) {
        let all = orders.endpoints.len();
        if self.listed.0 != all {
            self.listed = (all, now);
        }
        let Some(settings) = &orders.settings.outlier else { return };
        let ejected = orders.endpoints.iter().filter(|endpoint| is_ejected(endpoint)).count();
        let allowed = all * settings.max_ejected_percent as usize / 100;
        let is_settled = now > self.listed.1 + SETTLED;
        assert!(
            !is_settled || ejected <= allowed,
            "at {now:?}: {ejected} of {all} ejected, {allowed} may be"
        );
    }

    fn load_is_within_the_budget(&self, mesh: &Mesh, budget: &RetryBudget, now: Duration) {
        let retries = self.retries.iter().rev().take_while(|at| **at + RETRIES_COUNT > now).count();
        let progress = mesh.progress();
        let requests = progress.begun.iter().rev().take_while(|at| **at + REQUESTS_COUNT > now).count();
        let floor = f64::from(budget.min_per_second) * (now.as_secs_f64() + 1.0).min(BUDGET_SECONDS);
        let allowed = budget.ratio * requests as f64 + floor;
        let text = format!("at {now:?}: {retries} retries of {requests} requests, {allowed} allowed");
        assert!(retries as f64 <= allowed, "{text}");
    }
}
