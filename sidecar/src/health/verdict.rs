//! From the findings of many checks to what an endpoint is taken for. Pure.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Instant,
};

use super::finding::Finding;
use crate::model::{
    health::Checked,
    health_check::{CheckOutcome, HealthCheck, LastCheck},
    runtime::EndpointRuntime,
};

/// Keeps a finding, and works out what the endpoint is taken for; `None` if that is what it was taken for before.
///
/// The first finding counts at once: nothing is known that it could go against. After it, so many in a row as the
/// threshold says must go against the verdict. One that says nothing of the endpoint changes nothing.
pub(super) fn conclude(
    endpoint: &EndpointRuntime,
    settings: &HealthCheck,
    found: &Finding,
    now: Instant,
) -> Option<Checked> {
    let health = &endpoint.health;
    let mut state = health.checks.lock().unwrap_or_else(PoisonError::into_inner);
    state.last = Some(LastCheck { outcome: found.outcome, text: found.text.clone(), at: now });
    let found = match found.outcome {
        CheckOutcome::Skipped => return None,
        CheckOutcome::Well => Checked::Healthy,
        CheckOutcome::Status
        | CheckOutcome::NotServing
        | CheckOutcome::Timeout
        | CheckOutcome::Connect
        | CheckOutcome::Identity
        | CheckOutcome::Reset
        | CheckOutcome::Protocol => Checked::Unhealthy,
    };
    let before = health.checked();
    if found == before {
        state.contrary = 0;
        return None;
    }
    state.contrary = state.contrary.saturating_add(1);
    let threshold = match before {
        Checked::Unknown => 1,
        Checked::Healthy => settings.unhealthy_threshold,
        Checked::Unhealthy => settings.healthy_threshold,
    };
    if state.contrary < threshold {
        return None;
    }
    state.contrary = 0;
    if before == Checked::Unhealthy {
        // 0 would say that it was never away.
        let now_us = u64::try_from(now.saturating_duration_since(endpoint.epoch).as_micros());
        health.back_at_us.store(now_us.unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }
    health.set_checked(found).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{health::Standing, health_check::Question};

    const SETTINGS: HealthCheck = HealthCheck {
        question: Question::Tcp,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    };

    struct Case {
        endpoint: EndpointRuntime,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            let now = Instant::now();
            Self { endpoint: EndpointRuntime::new(now), now }
        }

        /// What a row of findings says: `+` is well, `-` is not, `.` says nothing. Of each, what changed.
        fn see(&mut self, findings: &str) -> String {
            let mut changes = String::new();
            for found in findings.chars() {
                self.now += Duration::from_secs(5);
                let outcome = match found {
                    '+' => CheckOutcome::Well,
                    '-' => CheckOutcome::Timeout,
                    _ => CheckOutcome::Skipped,
                };
                let found = Finding::new(outcome, "");
                changes.push(match conclude(&self.endpoint, &SETTINGS, &found, self.now) {
                    None => '=',
                    Some(Checked::Healthy) => 'H',
                    Some(Checked::Unhealthy) => 'U',
                    Some(Checked::Unknown) => '?',
                });
            }
            changes
        }

        fn standing(&self, is_ready: bool) -> Standing {
            self.endpoint.standing(is_ready, self.now)
        }
    }

    #[test]
    fn the_first_finding_counts_at_once_and_others_by_their_threshold() {
        assert_eq!(Case::new().see("+---++"), "H==U=H");
        assert_eq!(Case::new().see("-+-++---"), "U===H==U");
        assert_eq!(Case::new().see("+--+--+---"), "H========U");
    }

    #[test]
    fn what_says_nothing_neither_counts_nor_breaks_a_row() {
        assert_eq!(Case::new().see("...+.-.-.-.+.+"), "===H=====U===H");
    }

    #[test]
    fn an_unhealthy_endpoint_is_not_usable_and_neither_is_one_that_is_not_ready() {
        let mut case = Case::new();
        assert_eq!(case.standing(true), Standing::Usable, "nothing is known yet");
        case.see("-");
        assert_eq!(case.standing(true), Standing::Unhealthy);
        case.see("++");
        assert_eq!((case.standing(true), case.standing(false)), (Standing::Usable, Standing::Unhealthy));
    }

    #[test]
    fn one_that_comes_back_says_since_when_and_one_that_was_never_away_does_not() {
        let mut case = Case::new();
        case.see("++++");
        assert_eq!(case.endpoint.health.back_at_us.load(Ordering::Relaxed), 0);
        case.see("---++");
        assert_eq!(case.endpoint.health.back_at_us.load(Ordering::Relaxed), 45_000_000);
    }

    #[test]
    fn operators_see_the_newest_finding_and_how_many_go_against_the_verdict() {
        let mut case = Case::new();
        case.see("+--");
        let state = case.endpoint.health.checks();
        let last = state.last.unwrap();
        assert_eq!((state.contrary, last.outcome, last.at), (2, CheckOutcome::Timeout, case.now));
    }
}
