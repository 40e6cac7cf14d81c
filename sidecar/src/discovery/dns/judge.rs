//! What a look means, given what was known before.

use std::{
    collections::HashMap,
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Failure, Look};
use crate::model::{file::MAX_ENDPOINTS, status::LookupOutcome};

/// What earlier looks found.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last good answer to each question of the newest look.
    answers: HashMap<String, Vec<SocketAddr>>,
    /// Whether the list in use has endpoints.
    has_endpoints: bool,
    /// Since when every look says that there is nothing.
    nothing_since: Option<Instant>,
}

/// What a look means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is the list: sorted, each endpoint once, never empty.
    Answer {
        /// Where the endpoints are.
        endpoints: Vec<SocketAddr>,
        /// Why a part of it is older than the rest, or missing.
        trouble: Option<Failure>,
    },
    /// There is nothing.
    Empty(Failure),
    /// There is said to be nothing, but not yet for long enough: the last list stays.
    Doubted {
        /// What is said.
        failure: Failure,
        /// When it is believed; `None`: never.
        believed_in: Option<Duration>,
    },
    /// Nothing was learnt: the last list stays.
    Failed(Failure),
}

impl Verdict {
    /// Whether nothing speaks against waiting for the TTL.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::Answer { trouble: None, .. })
    }

    /// What is counted.
    pub(super) fn outcome(&self) -> LookupOutcome {
        match self {
            Self::Answer { trouble: None, .. } => LookupOutcome::Answered,
            Self::Answer { trouble: Some(_), .. } => LookupOutcome::Incomplete,
            Self::Empty(failure) | Self::Doubted { failure, .. } | Self::Failed(failure) => failure.outcome(),
        }
    }
}

/// Decides what a look means.
///
/// A part that failed stands as it was when last answered, as long as another part is good: a broken AAAA neither
/// hides the A records nor drops the IPv6 endpoints known so far. A part with a negative answer is believed at once
/// beside a good one. Where nothing is good, one failure makes the look a failure.
pub(super) fn judge(memory: &mut Memory, look: Look, empty_after: Option<Duration>, now: Instant) -> Verdict {
    let is_good =
        |answer: &Result<Vec<SocketAddr>, Failure>| answer.as_ref().is_ok_and(|list| !list.is_empty());
    let mut failures = look.parts.iter().filter_map(|part| part.answer.as_ref().err());
    let trouble = failures.find(|failure| !failure.is_negative()).cloned();
    if !look.parts.iter().any(|part| is_good(&part.answer)) {
        if let Some(failure) = trouble {
            memory.nothing_since = None;
            return Verdict::Failed(failure);
        }
        let failure = look.parts.into_iter().find_map(|part| part.answer.err()).unwrap_or(Failure::NoData);
        return nothing(memory, failure, empty_after, now);
    }
    let mut before = mem::take(&mut memory.answers);
    for part in look.parts {
        let answer = match part.answer {
            Ok(endpoints) => endpoints,
            Err(failure) if failure.is_negative() => Vec::new(),
            Err(_failure) => before.remove(&part.question).unwrap_or_default(),
        };
        memory.answers.insert(part.question, answer);
    }
    let mut endpoints: Vec<SocketAddr> = memory.answers.values().flatten().copied().collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    // In their order, so that the same ones are left out every time.
    endpoints.truncate(MAX_ENDPOINTS);
    memory.has_endpoints = true;
    memory.nothing_since = None;
    Verdict::Answer { endpoints, trouble }
}

/// It is said that there is nothing: servers that have just started, or lost touch with what fills them, say so for a
/// moment of names that are well.
fn nothing(memory: &mut Memory, failure: Failure, empty_after: Option<Duration>, now: Instant) -> Verdict {
    let since = *memory.nothing_since.get_or_insert(now);
    let left = empty_after.map(|limit| limit.saturating_sub(now.saturating_duration_since(since)));
    if memory.has_endpoints && left != Some(Duration::ZERO) {
        return Verdict::Doubted { failure, believed_in: left };
    }
    memory.answers.clear();
    memory.has_endpoints = false;
    Verdict::Empty(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, discovery::dns::Part, identity::testing::epoch};

    const GRACE: Option<Duration> = Some(Duration::from_secs(60));

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn ok(addresses: &[u8]) -> Result<Vec<SocketAddr>, Failure> {
        Ok(addresses.iter().copied().map(address).collect())
    }

    fn look(answers: &[Result<Vec<SocketAddr>, Failure>]) -> Look {
        let part = |(index, answer): (usize, &Result<_, _>)| Part {
            question: index.to_string(),
            answer: answer.clone(),
        };
        Look { parts: answers.iter().enumerate().map(part).collect(), ttl: None, dropped: 0 }
    }

    /// Looks at the start of time, later by some seconds.
    struct Bench {
        memory: Memory,
        start: Instant,
        grace: Option<Duration>,
    }

    impl Bench {
        fn new(grace: Option<Duration>) -> Self {
            Self { memory: Memory::default(), start: Clock::simulated(epoch(), 1).now(), grace }
        }

        fn look(&mut self, at: u64, answers: &[Result<Vec<SocketAddr>, Failure>]) -> Verdict {
            judge(&mut self.memory, look(answers), self.grace, self.start + Duration::from_secs(at))
        }

        fn lists(&mut self, answers: &[Result<Vec<SocketAddr>, Failure>], expected: &[u8]) {
            let Verdict::Answer { endpoints, .. } = self.look(0, answers) else { panic!("no answer") };
            assert_eq!(endpoints, expected.iter().copied().map(address).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn parts_make_one_sorted_list_without_duplicates() {
        Bench::new(GRACE).lists(&[ok(&[3, 1, 3]), ok(&[2, 1])], &[1, 2, 3]);
    }

    #[tokio::test]
    async fn a_part_that_fails_stays_as_it_was_and_one_that_is_gone_goes() {
        let mut bench = Bench::new(GRACE);
        bench.lists(&[ok(&[1]), Err(Failure::Timeout)], &[1]);
        bench.lists(&[ok(&[1]), ok(&[7])], &[1, 7]);
        bench.lists(&[ok(&[2]), Err(Failure::Timeout)], &[2, 7]);
        bench.lists(&[ok(&[3]), Err(Failure::Timeout)], &[3, 7]);
        bench.lists(&[ok(&[3]), Err(Failure::NoData)], &[3]);
        bench.lists(&[ok(&[3]), Err(Failure::Timeout)], &[3]);
        bench.lists(&[ok(&[3]), ok(&[7]), ok(&[8])], &[3, 7, 8]);
        bench.lists(&[ok(&[3]), Err(Failure::NoSuchName)], &[3]);
    }

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let mut bench = Bench::new(GRACE);
        let verdict = bench.look(0, &[ok(&[1]), Err(Failure::Timeout)]);
        assert_eq!((verdict.outcome(), verdict.is_good()), (LookupOutcome::Incomplete, false));
        let verdict = bench.look(0, &[ok(&[1]), Err(Failure::NoData)]);
        assert_eq!((verdict.outcome(), verdict.is_good()), (LookupOutcome::Answered, true));
    }

    #[tokio::test]
    async fn nothing_is_believed_at_once_only_where_nothing_was() {
        let mut bench = Bench::new(GRACE);
        let nothing = [Err(Failure::NoSuchName), Err(Failure::NoSuchName)];
        assert_eq!(bench.look(0, &nothing), Verdict::Empty(Failure::NoSuchName));
        bench.lists(&[ok(&[1])], &[1]);
        let doubted = |left| Verdict::Doubted {
            failure: Failure::NoSuchName,
            believed_in: Some(Duration::from_secs(left)),
        };
        assert_eq!(bench.look(100, &nothing), doubted(60));
        assert_eq!(bench.look(130, &nothing), doubted(30));
        assert_eq!(bench.look(160, &nothing), Verdict::Empty(Failure::NoSuchName));
        assert_eq!(bench.look(161, &nothing), Verdict::Empty(Failure::NoSuchName));
        // And afresh once there was something.
        bench.lists(&[ok(&[1])], &[1]);
        assert_eq!(bench.look(200, &nothing), doubted(60));
        bench.lists(&[ok(&[1])], &[1]);
        assert_eq!(bench.look(270, &nothing), doubted(60));
    }

    #[tokio::test]
    async fn a_failure_is_no_statement_about_the_name() {
        let mut bench = Bench::new(GRACE);
        bench.lists(&[ok(&[1])], &[1]);
        let mixed = [Err(Failure::NoSuchName), Err(Failure::Timeout)];
        assert_eq!(bench.look(0, &mixed), Verdict::Failed(Failure::Timeout));
        bench.look(0, &[Err(Failure::NoData)]);
        assert_eq!(bench.look(59, &mixed), Verdict::Failed(Failure::Timeout));
        let verdict = bench.look(61, &[Err(Failure::NoData)]);
        assert!(matches!(verdict, Verdict::Doubted { .. }), "the time begins anew: {verdict:?}");
    }

    #[tokio::test]
    async fn the_time_of_doubt_may_be_none_or_endless() {
        let mut bench = Bench::new(Some(Duration::ZERO));
        bench.lists(&[ok(&[1])], &[1]);
        assert_eq!(bench.look(0, &[Err(Failure::NoData)]), Verdict::Empty(Failure::NoData));
        let mut bench = Bench::new(None);
        bench.lists(&[ok(&[1])], &[1]);
        bench.look(0, &[Err(Failure::NoData)]);
        let verdict = bench.look(1_000_000, &[Err(Failure::NoData)]);
        assert_eq!(verdict, Verdict::Doubted { failure: Failure::NoData, believed_in: None });
    }

    #[tokio::test]
    async fn the_list_is_bounded_and_cut_alike_every_time() {
        let many: Vec<SocketAddr> =
            (0..=u16::MAX).rev().map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
        let mut bench = Bench::new(GRACE);
        let Verdict::Answer { endpoints, .. } = bench.look(0, &[Ok(many)]) else { panic!() };
        assert_eq!(endpoints.len(), MAX_ENDPOINTS);
        assert_eq!(endpoints.last().map(SocketAddr::port), Some(9999));
    }
}
