//! What the schedule promises.

use std::{collections::HashMap, net::SocketAddr};

use super::*;
use crate::model::{
    ClusterName, ClusterSettings, EndpointSettings, fixture,
    health_check::Question,
    runtime::{ClusterRuntime, EndpointRuntime},
};

const INTERVAL: Duration = Duration::from_secs(5);

fn check(path: &str) -> HealthCheck {
    HealthCheck {
        question: Question::Http { path: path.to_owned(), host: "orders".to_owned() },
        interval: INTERVAL,
        timeout: Duration::from_secs(1),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    }
}

fn endpoint(port: u16, now: Instant) -> Arc<Endpoint> {
    let address = SocketAddr::from(([10, 0, 0, 1], port));
    let runtime = Arc::new(EndpointRuntime::new(now));
    Arc::new(Endpoint { settings: EndpointSettings::new(address, Arc::from([])), runtime, client: None })
}

/// A cluster's name, its checks, and its endpoints.
type Given<'a> = (&'a str, Option<HealthCheck>, &'a [Arc<Endpoint>]);

fn snapshot(clusters: &[Given<'_>], now: Instant) -> Snapshot {
    let cluster = |(name, check, endpoints): &Given<'_>| {
        let settings = ClusterSettings { health_check: check.clone(), ..fixture::settings(name) };
        let runtime = Arc::new(ClusterRuntime::new(now));
        let limits = Arc::new(fixture::limits());
        let cluster = Cluster::new(Arc::new(settings), limits, endpoints.to_vec(), runtime);
        (ClusterName::new(name), Arc::new(cluster))
    };
    Snapshot { clusters: clusters.iter().map(cluster).collect(), ..fixture::snapshot() }
}

/// Begins whatever may begin at `now`; their ports.
fn begin(schedule: &mut Schedule, now: Instant) -> Option<(Ticket, u16)> {
    schedule.begin(now).map(|(ticket, due)| (ticket, due.endpoint.address().port()))
}

#[test]
fn new_endpoints_are_due_at_once_each_at_its_pace_and_then_by_the_interval() {
    let (now, mut rng) = (Instant::now(), fastrand::Rng::with_seed(1));
    let endpoints: Vec<_> = (1..=1000).map(|port| endpoint(port, now)).collect();
    let mut schedule = Schedule::default();
    schedule.reconcile(&snapshot(&[("orders", Some(check("/")), &endpoints)], now), now);
    let mut begun: HashMap<u16, Vec<Instant>> = HashMap::new();
    let mut last = None;
    let end = now + 20 * INTERVAL;
    while let Some(at) = schedule.next_at().filter(|at| *at < end) {
        assert!(last.is_none_or(|last: Instant| at >= last + PACE), "two at once");
        last = Some(at);
        let (ticket, port) = begin(&mut schedule, at).unwrap();
        assert!(schedule.begin(at).is_none());
        begun.entry(port).or_default().push(at);
        assert!(schedule.ended(ticket, at + Duration::from_millis(1), &mut rng).is_some());
    }
    assert_eq!(begun.len(), 1000);
    let mut shares = Vec::new();
    for times in begun.values() {
        assert!(times[0] < now + 1000 * PACE);
        shares
            .extend(times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() / INTERVAL.as_secs_f64()));
    }
    // A little later where others were due at the same time.
    assert!(shares.iter().all(|share| (0.9..1.15).contains(share)), "{shares:?}");
    let (least, most) =
        (shares.iter().copied().fold(1.0, f64::min), shares.iter().copied().fold(1.0, f64::max));
    assert!(least < 0.92 && most > 1.08, "no jitter: {least}..{most}");
}

#[test]
fn an_endpoint_has_one_check_under_way_however_long_it_takes() {
    let (now, mut rng) = (Instant::now(), fastrand::Rng::with_seed(2));
    let mut schedule = Schedule::default();
    schedule.reconcile(&snapshot(&[("orders", Some(check("/")), &[endpoint(1, now)])], now), now);
    let (ticket, _) = begin(&mut schedule, now).unwrap();
    assert_eq!(schedule.next_at(), None);
    assert!(schedule.begin(now + 10 * INTERVAL).is_none());
    assert!(schedule.ended(ticket, now + 10 * INTERVAL, &mut rng).is_some());
    assert_eq!(schedule.next_at(), Some(now + 10 * INTERVAL), "what is overdue is not made up for");
}

#[test]
fn a_reload_restarts_what_it_changes_and_nothing_else() {
    let (now, mut rng) = (Instant::now(), fastrand::Rng::with_seed(3));
    let (same, changed, gone) = (endpoint(1, now), endpoint(2, now), endpoint(3, now));
    let mut schedule = Schedule::default();
    let before = [
        ("same", Some(check("/")), std::slice::from_ref(&same)),
        ("changed", Some(check("/")), std::slice::from_ref(&changed)),
        ("gone", Some(check("/")), std::slice::from_ref(&gone)),
    ];
    schedule.reconcile(&snapshot(&before, now), now);
    let mut tickets = Vec::new();
    for _ in 0..3 {
        let at = schedule.next_at().unwrap();
        tickets.push(begin(&mut schedule, at).unwrap().0);
    }
    let later = now + Duration::from_secs(1);
    let after = [
        ("same", Some(check("/")), std::slice::from_ref(&same)),
        ("changed", Some(check("/other")), std::slice::from_ref(&changed)),
        ("gone", None, std::slice::from_ref(&gone)),
    ];
    schedule.reconcile(&snapshot(&after, now), later);
    let cancelled: Vec<_> = tickets.iter().map(|ticket| ticket.cancelled.is_cancelled()).collect();
    assert_eq!(cancelled, [false, true, true]);
    assert_eq!(schedule.next_at(), Some(later), "asked in another way, at once");
    let (_ticket, port) = begin(&mut schedule, later).unwrap();
    assert_eq!(port, 2);
    let mut tickets = tickets.into_iter();
    assert!(schedule.ended(tickets.next().unwrap(), later, &mut rng).is_some());
    assert!(tickets.all(|ticket| schedule.ended(ticket, later, &mut rng).is_none()), "nobody wants these");
    assert!(schedule.next_at().unwrap() >= now + INTERVAL * 9 / 10, "the one that stays keeps its time");
}

#[test]
fn what_waits_and_is_gone_is_not_asked() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.reconcile(
        &snapshot(&[("orders", Some(check("/")), &[endpoint(1, now), endpoint(2, now)])], now),
        now,
    );
    schedule.reconcile(&snapshot(&[("orders", Some(check("/")), &[])], now), now);
    assert!(schedule.next_at().is_none() && schedule.waiting.is_empty());
}
