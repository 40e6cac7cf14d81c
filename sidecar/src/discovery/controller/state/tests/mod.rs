mod routed;

use proptest::prelude::*;

use super::{said::MAX_LOOSE_SERVICES, watch_request::Message as Asked, watch_response::Message as Said, *};
use crate::discovery::controller::api::outrider_discovery_v1::{
    Destination, Endpoint, Endpoints, Heartbeat, Refused, Service,
};

const IDLE: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A state on a stream, and the time.
struct Bench {
    state: State,
    now: Instant,
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn said(message: Said) -> WatchResponse {
    WatchResponse { message: Some(message) }
}

fn service(name: &str, generation: u64, cluster: &str) -> Said {
    Said::Service(Service {
        name: name.into(),
        epoch: 7,
        generation,
        cluster: cluster.into(),
        routes: vec![],
    })
}

fn used(is_busy: bool, ended: u64) -> Usage {
    Usage { is_busy, ended, is_rejected: false }
}

fn leads(key: &str, service: &str) -> Said {
    Said::Destination(Destination { key: key.into(), service: service.into(), unknown: false })
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint { address: address.into(), spiffe_id: "spiffe://t/o".into(), ready: true, ..Endpoint::default() }
}

fn all(service: &str, generation: u64, addresses: &[&str]) -> Said {
    let set = addresses.iter().map(|address| endpoint(address)).collect();
    Said::Endpoints(Endpoints { service: service.into(), generation, full: true, set, gone: vec![] })
}

fn more(service: &str, generation: u64, set: &[&str], gone: &[&str]) -> Said {
    let set = set.iter().map(|address| endpoint(address)).collect();
    let gone = gone.iter().map(|address| (*address).to_owned()).collect();
    Said::Endpoints(Endpoints { service: service.into(), generation, full: false, set, gone })
}

impl Bench {
    fn new(max_wanted: usize) -> Self {
        let mut state = State::new(max_wanted, IDLE);
        state.begin();
        Self { state, now: Instant::now() }
    }

    fn want(&mut self, text: &str) -> Changes {
        self.state.want(&key(text), self.now)
    }

    fn hear(&mut self, message: Said) -> Changes {
        self.state.hear(said(message), self.now).unwrap()
    }

    /// Everything that is to be said now, as text.
    fn asked(&mut self) -> Vec<String> {
        let text = |request: WatchRequest| match request.message.unwrap() {
            Asked::Want(Want { key, epoch, generation }) => format!("want {key} {epoch}/{generation}"),
            Asked::Forget(Forget { key }) => format!("forget {key}"),
            Asked::Hello(_) => panic!("it is the session's to say"),
        };
        std::iter::from_fn(|| self.state.next()).map(text).collect()
    }

    /// A service with one endpoint, to which a key leads.
    fn told(&mut self, text: &str, name: &str) {
        self.want(text);
        self.asked();
        self.hear(service(name, 1, "{}"));
        self.hear(all(name, 2, &["10.0.0.1:80"]));
        self.hear(leads(text, name));
    }

    fn look(&mut self, usage: Usage) -> Changes {
        self.state.look(|_service| usage, self.now)
    }

    fn in_force(&self) -> Vec<String> {
        self.state.fragments().services.iter().map(|fragment| fragment.name.to_string()).collect()
    }

    fn addresses(&self, service: &str) -> Vec<String> {
        let (_, list) = self.state.list(service).unwrap();
        list.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }
}

#[test]
fn what_is_wanted_is_asked_once_and_settled_by_its_answer() {
    let mut bench = Bench::new(8);
    assert_eq!(bench.want("10.96.0.1:80"), Changes::default());
    bench.want("10.96.0.1:80");
    bench.want("orders:80");
    assert_eq!(bench.asked(), ["want 10.96.0.1:80 0/0", "want orders:80 0/0"]);
    bench.hear(service("orders.shop.svc:80", 3, "{}"));
    assert_eq!(bench.in_force(), [""; 0], "nothing leads to it yet");
    bench.hear(all("orders.shop.svc:80", 4, &["10.0.0.1:80"]));
    let changes = bench.hear(leads("10.96.0.1:80", "orders.shop.svc:80"));
    assert!(changes.fragments && !changes.outside);
    assert_eq!(changes.settled, [key("10.96.0.1:80")]);
    assert_eq!(bench.in_force(), ["orders.shop.svc:80"]);
    let changes = bench.hear(leads("orders:80", ""));
    assert!(changes.outside && !changes.fragments);
    assert!(bench.state.outside().has(&key("orders:80")));
    assert_eq!(bench.want("orders:80").settled, [key("orders:80")], "it is known");
    assert_eq!(bench.asked(), [""; 0]);
}

#[test]
fn what_is_refused_is_settled_keeps_what_is_known_and_is_asked_again() {
    let mut bench = Bench::new(8);
    bench.told("orders:80", "a");
    bench.want("new:80");
    bench.asked();
    let refused = |key: &str| Said::Refused(Refused { key: key.into() });
    assert_eq!(bench.hear(refused("new:80")).settled, [key("new:80")]);
    bench.hear(refused("orders:80"));
    assert_eq!(bench.in_force(), ["a"], "what was known stays");
    assert!(!bench.state.outside().has(&key("new:80")), "it is not taken for outside");
    assert_eq!(bench.want("new:80").settled, [key("new:80")], "nobody waits for it");
    assert_eq!(bench.asked(), [""; 0], "not at once");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.want("new:80").settled, [], "now somebody waits");
    assert_eq!(bench.asked(), ["want new:80 0/0"]);
    bench.look(used(true, 0));
    assert_eq!(bench.asked(), ["want orders:80 7/2"], "so that it is kept up to date");
}

#[test]
fn an_address_of_the_cluster_that_nobody_knows_is_not_outside() {
    let mut bench = Bench::new(8);
    let address = "10.1.0.1:80";
    let unknown =
        || Said::Destination(Destination { key: address.into(), service: String::new(), unknown: true });
    bench.want(address);
    assert_eq!(bench.hear(unknown()).settled, [key(address)]);
    assert!(!bench.state.outside().has(&key(address)));
    bench.hear(leads(address, ""));
    assert!(bench.state.outside().has(&key(address)));
    assert!(bench.hear(unknown()).outside, "it is outside no more");
    assert!(!bench.state.outside().has(&key(address)));
    bench.hear(service("a", 1, "{}"));
    bench.hear(all("a", 2, &[address]));
    bench.hear(leads(address, "a"));
    assert_eq!(bench.in_force(), ["a"]);
    assert!(bench.hear(unknown()).fragments);
    assert_eq!(bench.in_force(), [""; 0]);
}

#[test]
fn names_lead_to_their_service_as_the_app_wrote_them() {
    let mut bench = Bench::new(8);
    bench.told("orders:80", "a");
    bench.want("orders.shop:80");
    bench.hear(leads("orders.shop:80", "a"));
    bench.want("10.96.0.1:80");
    bench.hear(leads("10.96.0.1:80", "a"));
    let fragments = bench.state.fragments();
    assert_eq!(fragments.services[0].names, ["orders.shop:80".into(), "orders:80".into()]);
}

#[test]
fn endpoints_come_and_go_by_differences() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    let changes = bench.hear(more("a", 3, &["10.0.0.2:80", "not an address"], &[]));
    assert!(!changes.fragments, "no reload");
    assert_eq!(changes.list.as_deref(), Some("a"));
    assert_eq!(bench.addresses("a"), ["10.0.0.1:80", "10.0.0.2:80"]);
    bench.hear(more("a", 4, &[], &["10.0.0.1:80"]));
    assert_eq!(bench.addresses("a"), ["10.0.0.2:80"]);
    bench.hear(all("a", 5, &["10.0.0.9:80"]));
    assert_eq!(bench.addresses("a"), ["10.0.0.9:80"]);
    assert_eq!(bench.hear(more("unknown", 5, &["10.0.0.9:80"], &[])), Changes::default());
}

#[test]
fn a_list_in_parts_is_in_use_when_it_is_whole() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    assert_eq!(bench.hear(all("a", 0, &["10.0.0.2:80"])).list, None);
    assert_eq!(bench.hear(more("a", 0, &["10.0.0.3:80"], &[])).list, None);
    bench.state.end();
    bench.state.begin();
    assert_eq!(bench.asked(), ["want 10.96.0.1:80 7/0"], "it was not whole: all of it is to be said again");
    assert_eq!(bench.hear(all("a", 0, &["10.0.0.2:80"])).list, None);
    assert_eq!(bench.hear(more("a", 5, &["10.0.0.4:80"], &[])).list.as_deref(), Some("a"));
    assert_eq!(bench.addresses("a"), ["10.0.0.2:80", "10.0.0.4:80"]);
}

#[test]
fn other_settings_are_another_revision_and_the_same_are_not() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    let before = bench.state.fragments().services[0].revision;
    assert!(!bench.hear(service("a", 3, "{}")).fragments);
    let changes = bench.hear(service("a", 4, "{tls: none}"));
    assert!(changes.fragments);
    let after = bench.state.fragments().services[0].revision;
    assert!(after > before);
    assert_eq!(bench.state.list("a").unwrap().0, after, "its endpoints are of it");
}

#[test]
fn a_new_stream_asks_for_everything_and_says_what_is_known() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    bench.want("1.1.1.1:53");
    bench.hear(leads("1.1.1.1:53", ""));
    bench.state.end();
    bench.want("10.96.0.2:80");
    assert!(!bench.state.has_next(), "nobody to say it to");
    assert_eq!(bench.in_force(), ["a"], "what was said stays");
    bench.state.begin();
    assert!(bench.state.fresh().is_empty());
    assert_eq!(bench.asked(), ["want 10.96.0.1:80 7/2", "want 1.1.1.1:53 0/0", "want 10.96.0.2:80 0/0"]);
    let changes = bench.hear(leads("10.96.0.1:80", "a"));
    assert_eq!((changes.fragments, changes.confirmed.as_deref()), (false, Some("a")));
    assert_eq!(bench.addresses("a"), ["10.0.0.1:80"], "it was not told again");
    assert_eq!(bench.state.fresh().len(), 1);
}

#[test]
fn a_service_goes_with_the_last_that_leads_to_it() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    bench.want("orders:80");
    bench.hear(leads("orders:80", "a"));
    bench.hear(leads("10.96.0.1:80", ""));
    assert_eq!(bench.in_force(), ["a"]);
    let changes = bench.hear(leads("orders:80", ""));
    assert!(changes.fragments && changes.outside);
    assert_eq!(changes.gone.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a"]);
    assert_eq!(bench.in_force(), [""; 0]);
    bench.told("10.96.0.1:80", "b");
    assert!(!bench.state.outside().has(&key("10.96.0.1:80")), "it is no longer outside");
}

#[test]
fn services_of_several_keys_may_be_told_in_any_order() {
    let mut bench = Bench::new(8);
    for text in ["10.96.0.1:80", "10.96.0.2:80"] {
        bench.want(text);
    }
    for name in ["a", "b"] {
        bench.hear(service(name, 1, "{}"));
        bench.hear(all(name, 1, &["10.0.0.1:80"]));
    }
    bench.hear(leads("10.96.0.1:80", "a"));
    bench.hear(leads("10.96.0.2:80", "b"));
    assert_eq!(bench.in_force(), ["a", "b"]);
}

#[test]
fn what_leads_to_a_service_that_was_not_told_ends_the_stream() {
    let mut bench = Bench::new(8);
    bench.want("orders:80");
    let heard = bench.state.hear(said(leads("orders:80", "a")), bench.now);
    assert_eq!(heard, Err(Fault::UnknownService("orders:80".to_owned())));
    assert_eq!(bench.state.hear(WatchResponse { message: None }, bench.now), Err(Fault::UnknownKind));
    assert_eq!(bench.hear(leads("nobody:80", "a")), Changes::default(), "forgotten meanwhile");
}

#[test]
fn what_is_idle_is_forgotten_and_what_is_used_is_not() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    bench.want("1.1.1.1:53");
    bench.hear(leads("1.1.1.1:53", ""));
    bench.asked();
    let outside = bench.state.outside();
    for minute in 0..90_u64 {
        bench.now += MINUTE;
        // Some requests to the service end, and the address outside is dialled.
        assert!(outside.has(&key("1.1.1.1:53")));
        assert_eq!(bench.look(used(false, minute)), Changes::default());
    }
    for _ in 0..59 {
        bench.now += MINUTE;
        assert!(outside.has(&key("1.1.1.1:53")));
        assert_eq!(bench.look(used(true, 89)), Changes::default(), "a long stream");
    }
    for _ in 0..59 {
        bench.now += MINUTE;
        assert_eq!(bench.look(used(false, 89)), Changes::default());
    }
    bench.now += MINUTE;
    let changes = bench.look(used(false, 89));
    assert!(changes.fragments && changes.outside);
    assert_eq!((changes.settled.len(), changes.gone.len()), (2, 1));
    assert_eq!(bench.asked(), ["forget 10.96.0.1:80", "forget 1.1.1.1:53"]);
    bench.want("10.96.0.1:80");
    assert_eq!(bench.asked(), ["want 10.96.0.1:80 0/0"], "it begins anew");
}

#[test]
fn nothing_is_forgotten_while_nobody_can_be_asked() {
    let mut bench = Bench::new(8);
    bench.told("10.96.0.1:80", "a");
    bench.state.end();
    bench.now += IDLE * 100;
    assert_eq!(bench.look(Usage::default()), Changes::default());
    assert_eq!(bench.in_force(), ["a"]);
}

#[test]
fn over_the_bound_the_oldest_that_leads_to_no_service_goes() {
    let mut bench = Bench::new(3);
    bench.told("10.96.0.1:80", "a");
    for text in ["1.1.1.1:53", "2.2.2.2:53"] {
        bench.now += MINUTE;
        bench.want(text);
        bench.asked();
        bench.hear(leads(text, ""));
    }
    let changes = bench.want("3.3.3.3:53");
    assert_eq!((changes.settled.as_slice(), changes.outside), (&[key("1.1.1.1:53")][..], true));
    assert_eq!(bench.asked(), ["forget 1.1.1.1:53", "want 3.3.3.3:53 0/0"]);
    for text in ["3.3.3.3:53", "2.2.2.2:53"] {
        bench.hear(service("b", 1, "{}"));
        bench.hear(leads(text, "b"));
    }
    assert_eq!(bench.want("4.4.4.4:53").settled, [key("4.4.4.4:53")], "services are not given up");
    assert_eq!(bench.state.wanted(), 3);
}

#[test]
fn the_own_workload_is_in_force_as_long_as_nothing_else_is_said() {
    let mut bench = Bench::new(3);
    let workload = |text: &str| Said::Workload(Workload { generation: 1, inbound: text.into() });
    assert!(bench.hear(workload("{}")).fragments);
    assert_eq!(bench.hear(workload("{}")), Changes::default());
    assert_eq!(bench.hear(Said::Heartbeat(Heartbeat {})), Changes::default());
    bench.state.end();
    bench.state.begin();
    assert_eq!(bench.state.fragments().inbound.as_deref(), Some("{}"));
    assert!(bench.hear(workload("")).fragments);
    assert_eq!(bench.state.fragments().inbound, None);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Want(u8),
    Service(u8, u8),
    Endpoints(u8, bool),
    Leads(u8, Option<u8>),
    Say,
    Break,
    Pass(u16),
    Look(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12_u8).prop_map(Step::Want),
        (0..4_u8, 0..3_u8).prop_map(|(service, json)| Step::Service(service, json)),
        (0..4_u8, any::<bool>()).prop_map(|(service, full)| Step::Endpoints(service, full)),
        (0..12_u8, proptest::option::of(0..4_u8)).prop_map(|(key, service)| Step::Leads(key, service)),
        Just(Step::Say),
        Just(Step::Break),
        (0..4000_u16).prop_map(Step::Pass),
        any::<bool>().prop_map(Step::Look),
    ]
}

proptest! {
    /// Whatever happens in whatever order: bounds hold, whatever leads somewhere leads to what is in force, and a key is
    /// never both a service's and outside.
    #[test]
    fn whatever_is_said_the_state_is_whole(steps in proptest::collection::vec(step(), 1..200)) {
        let mut bench = Bench::new(6);
        let name = |number: u8| format!("s{number}");
        let text = |number: u8| format!("10.96.0.{number}:80");
        for (turn, step) in steps.into_iter().enumerate() {
            let turn = u64::try_from(turn).unwrap();
            let message = match step {
                Step::Want(number) => { bench.want(&text(number)); None }
                Step::Service(number, json) => Some(service(&name(number), turn, &format!("{{a: {json}}}"))),
                Step::Endpoints(number, true) => Some(all(&name(number), turn, &["10.0.0.1:80"])),
                Step::Endpoints(number, false) => Some(more(&name(number), turn, &["10.0.0.2:80"], &["10.0.0.1:80"])),
                Step::Leads(number, to) => Some(leads(&text(number), &to.map(name).unwrap_or_default())),
                Step::Say => { bench.asked(); None }
                Step::Break => { bench.state.end(); bench.state.begin(); None }
                Step::Pass(seconds) => { bench.now += Duration::from_secs(seconds.into()); None }
                Step::Look(is_busy) => { bench.look(used(is_busy, 0)); None }
            };
            if let Some(message) = message {
                drop(bench.state.hear(said(message), bench.now));
            }
            prop_assert!(bench.state.wanted() <= 6);
            prop_assert!(bench.state.services.len() <= 6 + MAX_LOOSE_SERVICES);
            let (fragments, outside) = (bench.state.fragments(), bench.state.outside());
            let in_force: Vec<&str> = fragments.services.iter().map(|fragment| &*fragment.name).collect();
            for (key, wish) in &bench.state.keys {
                let is_outside = outside.has(key);
                match &wish.leads {
                    Some(Leads::To(service)) => prop_assert!(!is_outside && in_force.contains(&&**service)),
                    Some(Leads::Outside(_)) => prop_assert!(is_outside),
                    None => prop_assert!(!is_outside),
                }
            }
            prop_assert!(outside.len() + in_force.len() <= 6);
            for fragment in &fragments.services {
                let (revision, _) = bench.state.list(&fragment.name).unwrap();
                prop_assert_eq!(revision, fragment.revision);
            }
            prop_assert!(bench.state.services.iter().all(|(name, known)| !known.is_used || in_force.contains(&&**name)));
        }
    }
}
