//! Does what the page about a canary says, command by command, and looks closer: at the shares, at who is sent where,
//! and at whether a call fails while the shares change.

#![allow(clippy::disallowed_methods, reason = "tests read clocks and start threads")]

mod page;
mod tour;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tour::Tour;

/// Time for one call, and for anything else that is waited for.
const DEADLINE: Duration = Duration::from_secs(30);
/// Calls that a share is measured by.
const CALLS: usize = 600;

/// One call of web, with this field; the status, and which version of orders answered.
fn call(web: &str, field: &str) -> (u16, Option<u8>) {
    let mut stream = TcpStream::connect(web).expect("web listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a good timeout");
    write!(stream, "GET /items/1 HTTP/1.1\r\nHost: web\r\n{field}Connection: close\r\n\r\n")
        .expect("web reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("web answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let version = [1, 2].into_iter().find(|version| answer.contains(&format!("\"orders-v{version}\"")));
    (status, version)
}

/// So many calls with this field; how many of them version 2 answered. None fails.
fn of_version_2(web: &str, field: &str, calls: usize) -> usize {
    let answers = (0..calls).map(|_| call(web, field));
    answers.filter(|answer| version(*answer) == 2).count()
}

fn version((status, version): (u16, Option<u8>)) -> u8 {
    assert_eq!(status, 200, "a call failed");
    version.expect("a version of orders answers")
}

/// The version of each of a hundred users, who are sent to the same one twice.
fn of_users(web: &str) -> BTreeMap<usize, u8> {
    let one = |user: usize| {
        let field = format!("Cookie: theme=dark; user=user-{user}\r\n");
        let (first, second) = (version(call(web, &field)), version(call(web, &field)));
        assert_eq!(first, second, "user-{user} does not stay");
        (user, first)
    };
    (0..100).map(one).collect()
}

/// How often versions 1 and 2 stand in what `ask` of the page said, each time.
fn counts(said: &str) -> Vec<(usize, u8)> {
    let count = |line: &str| {
        let (count, version) = line.trim().split_once(" orders-v")?;
        Some((count.parse().ok()?, version.parse().ok()?))
    };
    said.lines().filter_map(count).collect()
}

/// Calls without an end, one after the other.
struct Load {
    is_over: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    worker: JoinHandle<Vec<u16>>,
}

impl Load {
    fn start(web: &str) -> Self {
        let (is_over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let worker = {
            let (web, is_over, calls) = (web.to_owned(), Arc::clone(&is_over), Arc::clone(&calls));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let (status, _) = call(&web, "");
                    if status != 200 {
                        failures.push(status);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        };
        Self { is_over, calls, worker }
    }

    /// Waits until so many more calls are over.
    fn go_on(&self, more: usize) {
        let (until, enough) = (Instant::now() + DEADLINE, self.calls.load(Ordering::Relaxed) + more);
        while self.calls.load(Ordering::Relaxed) < enough {
            assert!(!self.worker.is_finished() && Instant::now() < until, "the load stands still");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let failures = self.worker.join().expect("the load goes on to the end");
        assert_eq!(failures, [0_u16; 0], "calls failed while the shares changed");
    }
}

#[test]
fn the_page_about_a_canary_works_as_it_is_written() {
    let (hosts, ports) = ([21, 22], [4343, 4391, 8080]);
    let orders = hosts.iter().flat_map(|host| ports.iter().map(|port| (*host, *port)));
    let others = [(10, 4350), (10, 4351), (11, 4340), (11, 4391), (11, 8080)];
    let needed: Vec<_> = orders.chain(others).collect();
    let mut tour = Tour::start(include_str!("../canary/README.md"), &needed);
    let web = format!("{}11:8080", tour.network);

    let said = tour.through(5);
    assert!(said.contains("orders of orders: 2 rule(s) with 2 match(es)"), "{said}");
    let load = Load::start(&web);
    let said = tour.through(6);
    assert_eq!(counts(&said), [(200, 1), (200, 2)], "{said}");
    assert!(said.contains("rule      orders/qa: field x-canary: yes"), "{said}");
    assert_eq!(of_version_2(&web, "", 100), 0, "nothing for version 2 yet");

    let said = tour.through(7);
    assert!(said.contains("the configuration is in force"), "{said}");
    // The first `ask` is by chance, the second by the cookie.
    let [(_, 1), (new, 2), (200, 1)] = counts(&said)[..] else { panic!("{said}") };
    assert!((1..=50).contains(&new), "10 % of 200: {new}");
    assert!(said.contains("always to orders-v1") && said.contains("orders-v2 (10.0 %)"), "{said}");
    let new = of_version_2(&web, "", CALLS);
    assert!((24..=96).contains(&new), "10 % of {CALLS}, give or take 6: {new}");
    assert_eq!(of_version_2(&web, "X-Canary: yes\r\n", 50), 50, "testers get version 2, always");
    assert_eq!(version(call(&web, "X-Canary: yes\r\nCookie: user=anna\r\n")), 2, "also with a cookie");
    let at_ten = of_users(&web);
    assert!((1..=30).contains(&at_ten.values().filter(|version| **version == 2).count()), "{at_ten:?}");

    let said = tour.through(8);
    for row in ["orders-v1 orders/all", "orders-v2 orders/all", "orders-v2 orders/qa"] {
        assert!(said.contains(row), "{row} is missing:\n{said}");
    }
    let testers = "destination=\"orders-v2\",route=\"orders/qa\",status_class=\"2xx\"} 251";
    assert!(said.contains(testers), "{testers} is missing:\n{said}");

    for weights in ["50 50", "0 100", "100 0", "50 50"] {
        load.go_on(50);
        let reload = format!("weights {weights}\noutrider reload --admin-socket web.sock");
        tour.follow(&reload, false);
    }
    load.go_on(50);
    load.stop();
    let at_fifty = of_users(&web);
    for (user, version) in at_ten {
        assert!(at_fifty[&user] >= version, "user-{user} moved back");
    }
    assert!(at_fifty.values().filter(|version| **version == 2).count() > 30, "{at_fifty:?}");
    tour.follow("weights 90 10\noutrider reload --admin-socket web.sock", false);

    hanging_ill_and_back(&mut tour, &web);

    let said = tour.through(12);
    let [(_, 1), (half, 2), (200, 2)] = counts(&said)[..] else { panic!("{said}") };
    assert!((60..=140).contains(&half), "50 % of 200: {half}");
    assert_eq!(version(call(&web, "Cookie: user=anna\r\n")), 2);
    tour.through(13);
    tour.end();
}

/// Sections 9 to 11: what the rules' limits do, rollback, and a file that cannot be meant.
fn hanging_ill_and_back(tour: &mut Tour, web: &str) {
    let said = tour.through(9);
    let seconds: Vec<f64> = said
        .lines()
        .filter_map(|line| line.strip_prefix("502 after ")?.strip_suffix(" s")?.parse().ok())
        .collect();
    let [everybody, tester] = seconds[..] else { panic!("{said}") };
    assert!(everybody >= 3.0, "two attempts of 1.5 s each: {everybody}");
    assert!(tester >= 5.0 && tester > everybody, "the other rule's 5 s: {tester}");
    assert!(said.contains("route `orders/qa`"), "{said}");

    let said = tour.through(10);
    let [(hit, 1), (200, 1)] = counts(&said)[..] else { panic!("{said}") };
    assert!((150..200).contains(&hit), "nine of ten do well beside an ill canary: {hit}");
    assert!(said.contains("out app -> orders-v2  GET orders/  503"), "{said}");
    assert_eq!(of_version_2(web, "", 100), 0, "all are back");
    assert_eq!(of_users(web).values().max(), Some(&1), "users, too");

    let said = tour.through(11);
    assert!(said.contains("there is no cluster \"orders-v3\"") && said.contains("did you mean"), "{said}");
    assert!(said.contains("stays in force"), "{said}");
    assert_eq!(counts(&said), [(200, 1)], "{said}");
}
