//! What became of a request, in sentences. Pure: the same trail tells the same story.

use std::time::Duration;

use super::super::{
    escape::shown,
    tap::line::{path, version},
    trail::{Attempt, Caller, NotRepeated, Reuse, Standings, Step, Traffic, Trail},
};
use crate::model::{edge::Direction, retries::RetryReason, trace::Origin};

/// Characters of a text that came from elsewhere.
const MAX_TEXT: usize = 256;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// So long after the request's arrival.
    pub after: Duration,
    /// What.
    pub text: String,
}

/// All that happened, in order: how it came in, where it went, what was tried, how it ended.
#[must_use]
pub fn tell(trail: &Trail) -> Vec<Told> {
    let mut told = vec![Told { after: Duration::ZERO, text: came_in(trail) }];
    told.extend(authorized(trail).map(|text| Told { after: Duration::ZERO, text }));
    told.extend(routed(trail).map(|text| Told { after: Duration::ZERO, text }));
    told.extend(traced(trail).map(|text| Told { after: Duration::ZERO, text }));
    let mut course: Vec<Told> =
        trail.steps.iter().map(|(after, step)| Told { after: *after, text: stepped(step) }).collect();
    for (number, attempt) in (1..).zip(&trail.attempts) {
        course.extend(attempted(trail, number, attempt));
    }
    // Stable: what happened at one moment stays in the order of its telling.
    course.sort_by_key(|told| told.after);
    told.extend(course);
    told.push(Told { after: trail.ended, text: ended(trail) });
    told
}

/// Who asked for what.
fn came_in(trail: &Trail) -> String {
    let from = match (&trail.caller, trail.client) {
        (Caller::App, None) => "the own app".to_owned(),
        (Caller::App, Some(address)) => format!("the own app ({address})"),
        (Caller::Peer(id), None) => id.to_string(),
        (Caller::Peer(id), Some(address)) => format!("{id} ({address})"),
        (Caller::Unverified, None) => "a caller who proved nothing".to_owned(),
        (Caller::Unverified, Some(address)) => format!("a caller who proved nothing ({address})"),
    };
    let what = match (&trail.asked, trail.kind) {
        (Some(asked), _) => format!(
            "{} {}{}, HTTP/{}",
            shown(asked.method.as_str(), MAX_TEXT),
            shown(&asked.authority, MAX_TEXT),
            path(trail).unwrap_or_default(),
            version(asked.version),
        ),
        (None, Traffic::Tunnel) => "a tunnel".to_owned(),
        (None, Traffic::Http | Traffic::Grpc) => "a request".to_owned(),
        (None, Traffic::Stream) => "an opaque stream".to_owned(),
    };
    let kind = if trail.kind == Traffic::Grpc { " (gRPC)" } else { "" };
    format!("came in at listener `{}` from {from}: {what}{kind}", trail.listener)
}

/// What rules said of it. Their names are the configuration's.
fn authorized(trail: &Trail) -> Option<String> {
    Some(match trail.authorization.as_deref()? {
        "denied" => "no authorization rule allows it: denied".to_owned(),
        "audited" => "no authorization rule allows it; it passed, as mode is audit".to_owned(),
        rule => format!("allowed by authorization rule `{rule}`"),
    })
}

fn routed(trail: &Trail) -> Option<String> {
    let cluster = trail.cluster.as_ref();
    let generation = match trail.generation {
        0 => String::new(),
        number => format!(", by configuration {number}"),
    };
    let text = match (cluster, trail.direction) {
        (None, _) => return None,
        (Some(name), Direction::Inbound) => format!("for the own app (cluster `{name}`)"),
        (Some(name), Direction::Outbound) => format!("went to cluster `{name}`"),
    };
    let route = trail.route.as_ref().map(|route| format!(", route `{route}`")).unwrap_or_default();
    Some(format!("{text}{route}{generation}"))
}

fn traced(trail: &Trail) -> Option<String> {
    let place = trail.trace.as_ref()?;
    let origin = match place.origin {
        Origin::Told => "as its caller told",
        Origin::RequestId => "found by its request ID",
        Origin::Here => "begun here",
    };
    let sampled = if place.is_sampled { "sampled" } else { "not sampled" };
    Some(format!("belongs to trace {}, {origin}, {sampled}", place.trace))
}

fn attempted(trail: &Trail, number: usize, attempt: &Attempt) -> Vec<Told> {
    let own = trail.direction == Direction::Inbound;
    let whom = match &attempt.peer {
        Some(peer) => format!("{} ({peer})", attempt.endpoint),
        None if own => format!("the own app at {}", attempt.endpoint),
        None => attempt.endpoint.to_string(),
    };
    let kind = match (attempt.is_probe, attempt.is_hedge) {
        (true, _) => ", to find out whether this ejected endpoint is back",
        (false, true) => ", beside the one under way",
        (false, false) => "",
    };
    let mut told = vec![Told { after: attempt.begun, text: format!("attempt {number} at {whom}{kind}") }];
    if let Some((after, reuse)) = attempt.connected {
        let text = match reuse {
            Reuse::Reused => format!("attempt {number}: had a connection already"),
            Reuse::Fresh => {
                let took = time(after.saturating_sub(attempt.begun));
                format!("attempt {number}: connected in {took}")
            }
        };
        told.push(Told { after, text });
    }
    if let Some(after) = attempt.answered {
        let status = attempt.status.map_or_else(|| "a head".to_owned(), |status| status.to_string());
        told.push(Told { after, text: format!("attempt {number}: {whom} answered {status}") });
    }
    if let Some(failure) = attempt.failure {
        let error = match &attempt.error {
            Some(error) => format!(": {}", shown(error, MAX_TEXT)),
            None => String::new(),
        };
        let text = format!("attempt {number} failed: {}{error}", failed(failure));
        told.push(Told { after: attempt.ended.or(attempt.answered).unwrap_or(attempt.begun), text });
    } else if let (Some(error), Some(after)) = (&attempt.error, attempt.ended) {
        told.push(Told { after, text: format!("attempt {number} ended: {}", shown(error, MAX_TEXT)) });
    }
    told
}

fn failed(reason: RetryReason) -> &'static str {
    match reason {
        RetryReason::Connect => "no connection could be had, or somebody else was there (`connect`)",
        RetryReason::NotProcessed => "the endpoint did not take it (`not_processed`)",
        RetryReason::Reset => "the endpoint broke off before an answer (`reset`)",
        RetryReason::Status => "the app's answer has a status that is repeated (`status`)",
        RetryReason::GrpcStatus => "the app's answer has a gRPC status that is repeated (`grpc_status`)",
        RetryReason::PerTryTimeout => "no answer within the time of one attempt (`per_try_timeout`)",
        RetryReason::Silent => "the endpoint was ejected for its silence meanwhile (`silent`)",
    }
}

fn stepped(step: &Step) -> String {
    match step {
        Step::Waited(time) => {
            format!("had waited {} for an endpoint that may be asked (`queue_timeout`)", self::time(*time))
        }
        Step::Delayed(time) => format!("was delayed by {} on purpose (`fault.delay`)", self::time(*time)),
        Step::Repeated(reason, rest) => {
            format!("repeated because {}, after a rest of {}", failed(*reason), time(*rest))
        }
        Step::NotRepeated(why) => format!("not repeated: {}", not_repeated(*why)),
        Step::Hedged => "another attempt was made beside the slow one (`retry.hedge`)".to_owned(),
        Step::TakenBack => "the attempt was taken back from an endpoint that fell silent".to_owned(),
        Step::NobodyToAsk(standings) => nobody(standings),
    }
}

fn not_repeated(why: NotRepeated) -> &'static str {
    match why {
        NotRepeated::NotIdempotent => {
            "the app may have seen it, and its method is not idempotent: doing it twice is not as doing it once"
        }
        NotRepeated::BodyGone => "its body is not held any more (`retry.replay_bytes`)",
        NotRepeated::AttemptsUsedUp => "no attempt was left (`retry.max_retries`)",
        NotRepeated::OverBudget => {
            "the retry budget has nothing left (`retry.budget_percent`, `retry.budget_min_per_second`)"
        }
        NotRepeated::OverActive => "as many are being repeated as may be (`retry.max_active`)",
        NotRepeated::HopBefore => "it is a repetition of the hop before already, which goes on by itself",
        NotRepeated::Advised => {
            "the endpoint asked for a longer rest than the request can take, or not to be asked again"
        }
        NotRepeated::AppDown => "the own app is down, and nobody else could take it here",
        NotRepeated::Deadline => "no time was left",
    }
}

fn nobody(standings: &Standings) -> String {
    let Standings { all, not_ready, unhealthy, ejected, tried } = standings;
    if *all == 0 {
        return "nobody to ask: the cluster has no endpoint at all".to_owned();
    }
    let parts = [
        (*not_ready, "not ready (as discovery says)"),
        (*unhealthy, "unhealthy (as health checks say)"),
        (*ejected, "ejected"),
        (*tried, "tried by this request already"),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("nobody to ask: of {all} endpoints {}", parts.join(", "))
}

/// How it ended.
fn ended(trail: &Trail) -> String {
    let mut parts = Vec::new();
    if let Some(reason) = &trail.reason {
        parts.push(format!("reason `{}`", shown(reason, MAX_TEXT)));
    }
    if let Some(flag) = trail.flag {
        parts.push(format!("flag {}", flag.letters()));
    }
    if let Some(status) = trail.grpc_status {
        parts.push(format!("gRPC status {status}"));
    }
    let with = if parts.is_empty() { String::new() } else { format!(" with {}", parts.join(", ")) };
    let end = match (trail.status, trail.kind) {
        (Some(status), _) => format!("answered {status}{with}"),
        (None, Traffic::Stream | Traffic::Tunnel) => format!("ended{with}"),
        (None, Traffic::Http | Traffic::Grpc) => format!("ended without an answer{with}"),
    };
    let bytes = format!("{} bytes from the caller, {} to it", trail.request_bytes, trail.response_bytes);
    let error = match &trail.error {
        Some(error) => format!("; {}", shown(error, MAX_TEXT)),
        None => String::new(),
    };
    format!("{end} after {} ({bytes}){error}", time(trail.ended))
}

/// In words of a fitting unit, with three digits or so.
fn time(time: Duration) -> String {
    match time.as_micros() {
        0..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::{attempt, peer, trail};

    fn texts(trail: &Trail) -> String {
        tell(trail).into_iter().map(|told| format!("{}\n", told.text)).collect()
    }

    #[test]
    fn a_request_that_found_nobody_is_told_from_its_arrival_to_its_answer() {
        let mut trail = trail();
        trail.step(Duration::from_millis(10), Step::Waited(Duration::from_millis(10)));
        let standings = Standings { all: 3, ejected: 2, not_ready: 1, ..Standings::default() };
        trail.step(Duration::from_millis(10), Step::NobodyToAsk(standings));
        let text = texts(&trail);
        let expected = [
            "came in at listener `out` from the own app (127.0.0.1): GET orders/items/7, HTTP/1.1",
            "went to cluster `orders`, route `reads`, by configuration 3",
            "had waited 10 ms for an endpoint that may be asked (`queue_timeout`)",
            "nobody to ask: of 3 endpoints 1 not ready (as discovery says), 2 ejected",
            "answered 503 with reason `no_endpoint`, flag UH after 20 ms (0 bytes from the caller, 0 to it); \
             no endpoint in cluster orders that may be asked: none is listed",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn attempts_and_what_followed_from_them_are_told_in_the_order_of_time() {
        let mut trail = trail();
        let mut first = attempt(1, 1);
        first.ended = Some(Duration::from_millis(3));
        first.failure = Some(RetryReason::Connect);
        first.error = Some("connecting: refused".into());
        let mut second = attempt(2, 9);
        let Caller::Peer(id) = peer("orders") else { unreachable!() };
        second.peer = Some(id);
        second.connected = Some((Duration::from_millis(11), Reuse::Fresh));
        second.answered = Some(Duration::from_millis(19));
        second.status = Some(500);
        trail.attempts.extend([first, second]);
        trail.step(Duration::from_millis(4), Step::Repeated(RetryReason::Connect, Duration::from_millis(5)));
        trail.step(Duration::from_millis(20), Step::NotRepeated(NotRepeated::OverBudget));
        let told = tell(&trail);
        assert!(told.is_sorted_by_key(|told| told.after));
        let text = texts(&trail);
        let found = [
            "attempt 1 at 10.0.0.7:1",
            "attempt 1 failed: no connection could be had, or somebody else was there (`connect`): connecting: refused",
            "repeated because no connection could be had",
            "attempt 2 at 10.0.0.7:2 (spiffe://demo.outrider/orders)",
            "attempt 2: connected in 2.0 ms",
            "answered 500",
            "not repeated: the retry budget has nothing left",
        ];
        let places: Vec<_> =
            found.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"))).collect();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn what_others_wrote_is_escaped() {
        let mut trail = trail();
        trail.asked.as_mut().unwrap().authority = "\u{1b}[2J".into();
        trail.error = Some("\u{9b}31m\n".into());
        let text = tell(&trail).into_iter().map(|told| told.text).collect::<String>();
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    }
}
