//! Why requests failed: the trails of the newest ones that did, and of those that were repeated.
//!
//! # Invariants
//! - Bounded by number and by bytes; the oldest go.
//! - A kept trail holds nothing of its request's buffers: what it needs of them is copied, and bounded.

mod remedies;
mod remedy;
mod told;

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, uri::PathAndQuery};

use super::trail::{self, Asked, Trail};
use crate::model::{flag::ResponseFlag, trace::TracePlace};

pub use remedy::{REASONS, Remedy, of_flag, of_reason, of_trail};
pub use told::{Told, tell};

/// Trails that are kept.
pub const MAX_TRAILS: usize = 1000;
/// Of these, so many have the same flag and reason: a flood of refusals leaves room for what else fails.
pub const MAX_ALIKE: usize = 250;
/// Bytes of trails that are kept.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a request ID that are kept, and compared.
const MAX_ID_BYTES: usize = 128;

/// The newest requests that failed or were repeated.
#[derive(Debug, Default)]
pub struct Explained(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    trails: VecDeque<Entry>,
    bytes: usize,
    /// Of all that were ever kept.
    count: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    bytes: usize,
    trail: Box<Trail>,
}

impl Entry {
    fn is_like(&self, other: &Self) -> bool {
        (self.trail.flag, &self.trail.reason) == (other.trail.flag, &other.trail.reason)
    }
}

/// Which of them somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// All.
    Latest,
    /// With this request ID, or of this trace; `@7`: the seventh that was kept, for those that have neither.
    Id(String),
    /// With this flag.
    Flag(ResponseFlag),
    /// With this reason.
    Reason(String),
}

/// What is kept for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Trails.
    pub trails: usize,
    /// When the oldest of them came.
    pub oldest: Option<Instant>,
}

impl Explained {
    /// Whether it is one of those that are kept: it failed, was refused, was left, or was repeated.
    #[must_use]
    pub fn wants(trail: &Trail) -> bool {
        trail.is_notable()
    }

    /// Keeps one, and forgets the oldest for it.
    pub fn keep(&self, mut trail: Box<Trail>) {
        detach(&mut trail);
        let bytes = size(&trail);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.count += 1;
        let number = kept.count;
        let entry = Entry { number, bytes, trail };
        let mut alike = kept.trails.iter().enumerate().filter(|(_, other)| other.is_like(&entry));
        let oldest = alike.next().map(|(place, _)| place).filter(|_| alike.count() + 1 >= MAX_ALIKE);
        if let Some(oldest) = oldest.and_then(|place| kept.trails.remove(place)) {
            kept.bytes -= oldest.bytes;
        }
        kept.trails.push_back(entry);
        while kept.trails.len() > MAX_TRAILS || kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.trails.pop_front() else { break };
            kept.bytes -= oldest.bytes;
        }
    }

    /// The newest ones that are asked for, with their numbers, the newest first.
    #[must_use]
    pub fn find(&self, question: &Question, most: usize) -> Vec<(u64, Trail)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.trails.iter().rev().filter(|entry| question.is_of(entry)).take(most);
        found.map(|entry| (entry.number, (*entry.trail).clone())).collect()
    }

    /// What is kept for now.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Extent { trails: kept.trails.len(), oldest: kept.trails.front().map(|entry| entry.trail.started) }
    }
}

impl Question {
    fn is_of(&self, entry: &Entry) -> bool {
        let trail = &entry.trail;
        match self {
            Self::Latest => true,
            Self::Flag(flag) => trail.flag == Some(*flag),
            Self::Reason(reason) => trail.reason.as_deref() == Some(reason),
            Self::Id(id) => {
                let wanted = id.as_bytes().get(..MAX_ID_BYTES).unwrap_or(id.as_bytes());
                let is_request = trail.request_id.as_ref().is_some_and(|id| id.as_bytes() == wanted);
                let number = id.strip_prefix('@').and_then(|number| number.parse().ok());
                is_request
                    || number == Some(entry.number)
                    || trail.trace.as_ref().is_some_and(|place| place.trace.to_string() == *id)
            }
        }
    }
}

/// Lets go of what nobody shows: a query may hold secrets.
fn detach(trail: &mut Trail) {
    trail.detach();
    trail.fields = Vec::new();
    trail.answer_fields = Vec::new();
    trail.steps.shrink_to_fit();
    if let Some(TracePlace { state, .. }) = &mut trail.trace {
        *state = None;
    }
    if let Some(id) = trail.request_id.take() {
        let bytes = id.as_bytes();
        trail.request_id = HeaderValue::from_bytes(bytes.get(..MAX_ID_BYTES).unwrap_or(bytes)).ok();
    }
    if let Some(Asked { target, .. }) = &mut trail.asked {
        *target = target.take().and_then(|target| {
            let path = bytes::Bytes::copy_from_slice(trail::text(target.path()).as_bytes());
            PathAndQuery::from_maybe_shared(path).ok()
        });
    }
}

/// About what a trail takes in memory.
fn size(trail: &Trail) -> usize {
    let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    let asked = trail.asked.as_ref().map_or(0, |asked| {
        asked.method.as_str().len()
            + asked.authority.len()
            + asked.target.as_ref().map_or(0, |target| target.as_str().len())
    });
    let attempts: usize = trail
        .attempts
        .iter()
        .map(|attempt| size_of_val(attempt) + attempt.error.as_deref().map_or(0, str::len))
        .sum();
    size_of_val(trail)
        + asked
        + attempts
        + trail.steps.capacity() * size_of::<(Duration, trail::Step)>()
        + trail.request_id.as_ref().map_or(0, HeaderValue::len)
        + text(&trail.reason)
        + text(&trail.error)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::telemetry::{
        fixture,
        trail::{MAX_ATTEMPTS, MAX_STEPS, Step},
    };

    fn named(id: &str) -> Box<Trail> {
        let mut trail = fixture::trail();
        trail.request_id = Some(HeaderValue::from_str(id).unwrap());
        Box::new(trail)
    }

    #[test]
    fn the_newest_are_kept_and_found() {
        let explained = Explained::default();
        for number in 0..MAX_TRAILS + 10 {
            let mut trail = named(&number.to_string());
            trail.reason = Some(format!("reason_{}", number % 5).into());
            explained.keep(trail);
        }
        assert_eq!(explained.extent().trails, MAX_TRAILS);
        assert!(explained.find(&Question::Id("9".to_owned()), 5).is_empty(), "forgotten");
        assert_eq!(explained.find(&Question::Id("10".to_owned()), 5).len(), 1);
        let latest = explained.find(&Question::Latest, 3);
        assert_eq!(latest.len(), 3);
        assert_eq!(latest[0].1.request_id.as_ref().unwrap(), &(MAX_TRAILS + 9).to_string());
        assert_eq!(explained.find(&Question::Id(format!("@{}", latest[1].0)), 5).len(), 1, "by number");
        assert_eq!(explained.find(&Question::Flag(ResponseFlag::UH), 7).len(), 7);
        assert!(explained.find(&Question::Flag(ResponseFlag::UF), 7).is_empty());
        assert_eq!(explained.find(&Question::Reason("reason_3".to_owned()), 7).len(), 7);
    }

    #[test]
    fn a_flood_of_refusals_leaves_what_else_failed() {
        let explained = Explained::default();
        explained.keep(named("first"));
        for number in 0..2 * MAX_TRAILS {
            let mut trail = named(&number.to_string());
            (trail.flag, trail.reason) = (Some(ResponseFlag::RL), Some("rate_limited".into()));
            explained.keep(trail);
        }
        assert_eq!(explained.extent().trails, MAX_ALIKE + 1);
        assert_eq!(explained.find(&Question::Id("first".to_owned()), 1).len(), 1);
        assert!(explained.find(&Question::Id("0".to_owned()), 1).is_empty(), "the oldest of them goes");
    }

    #[test]
    fn a_flood_of_large_failures_keeps_its_bound() {
        let explained = Explained::default();
        for number in 0..2 * MAX_TRAILS {
            let mut trail = named(&format!("{number}{}", "x".repeat(8000)));
            let asked = trail.asked.as_mut().unwrap();
            asked.target = Some(PathAndQuery::try_from(format!("/{}", "y".repeat(60_000))).unwrap());
            asked.authority = "z".repeat(2000).into();
            asked.method = http::Method::from_bytes(&[b'A'; 60_000]).unwrap();
            for _ in 0..MAX_ATTEMPTS {
                let error = Some(trail::text(&"w".repeat(1000)));
                trail.attempts.push(trail::Attempt { error, ..fixture::attempt(1, 0) });
            }
            for _ in 0..MAX_STEPS {
                trail.step(Duration::ZERO, Step::Hedged);
            }
            trail.fields.push((HeaderName::from_static("x-a"), HeaderValue::from_static("b")));
            explained.keep(trail);
        }
        let kept = explained.0.lock().unwrap();
        assert!(kept.bytes <= MAX_BYTES && kept.trails.len() > 100, "{} {}", kept.bytes, kept.trails.len());
        assert_eq!(kept.bytes, kept.trails.iter().map(|entry| entry.bytes).sum::<usize>());
        let newest = &kept.trails.back().unwrap().trail;
        assert!(newest.asked.as_ref().unwrap().method.as_str().len() < 100);
        assert!(newest.fields.is_empty() && newest.request_id.as_ref().unwrap().len() == MAX_ID_BYTES);
    }

    #[test]
    fn a_query_is_not_kept() {
        let explained = Explained::default();
        explained.keep(Box::new(fixture::trail()));
        let kept = explained.find(&Question::Latest, 1);
        assert_eq!(kept[0].1.asked.as_ref().unwrap().target.as_ref().unwrap().as_str(), "/items/7");
    }
}
