//! What subscribers know after all that they were told.

use std::collections::{BTreeMap, BTreeSet};

use outrider::discovery::controller::api::outrider_discovery_v1::{self as api, watch_response::Message};
use proptest::prelude::*;

use super::{told::Told, *};
use crate::controller::model::{
    objects::{Kind, Object},
    testing::*,
};

const EPOCH: u64 = 7;

/// What is known of a service: its settings, its routes and its endpoints.
type Known = (String, Vec<String>, BTreeMap<String, api::Endpoint>);

/// The other end of a stream: it believes what it is told and checks the rules of the conversation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Client {
    keys: BTreeMap<String, String>,
    services: BTreeMap<String, Held>,
    inbound: Option<String>,
    /// Parts that wait for their last.
    parts: Vec<api::Endpoints>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    generation: u64,
    cluster: String,
    routes: Vec<String>,
    endpoints: BTreeMap<String, api::Endpoint>,
}

impl Held {
    fn begin(&mut self, cluster: String, routes: Vec<String>) {
        self.cluster = cluster;
        self.routes = routes;
        self.generation = 0;
    }

    /// The clusters that its routes name.
    fn needs(&self) -> BTreeSet<String> {
        let mut needs = BTreeSet::new();
        for route in &self.routes {
            let route: serde_json::Value = serde_json::from_str(route).unwrap();
            for rule in route["rules"].as_array().unwrap() {
                let clusters = rule["clusters"].as_array().into_iter().flatten();
                needs.extend(clusters.map(|cluster| cluster["name"].as_str().unwrap().to_owned()));
            }
        }
        needs
    }
}

impl Client {
    fn hear(&mut self, response: api::WatchResponse) {
        match response.message.expect("a message") {
            Message::Destination(told) => {
                assert!(told.service.is_empty() || self.services.contains_key(&told.service), "said before");
                self.keys.insert(told.key, told.service);
            }
            Message::Service(told) => {
                assert_eq!((told.epoch, told.generation), (EPOCH, 0), "complete with its endpoints only");
                let held = self.services.entry(told.name.clone()).or_default();
                held.begin(told.cluster, told.routes);
                for need in held.needs() {
                    let is_known = self.services.get(&need).is_some_and(|held| held.generation != 0);
                    assert!(is_known || need == told.name, "{need} is said before");
                }
            }
            Message::Endpoints(part) => {
                self.parts.push(part);
                if self.parts.last().unwrap().generation != 0 {
                    self.complete();
                }
            }
            Message::Workload(told) => self.inbound = Some(told.inbound),
            Message::Heartbeat(_) => {}
            Message::Refused(_) => panic!("the stream says that, and not the hub"),
        }
    }

    fn complete(&mut self) {
        for (index, part) in std::mem::take(&mut self.parts).into_iter().enumerate() {
            let held = self.services.get_mut(&part.service).expect("said before");
            assert!(!part.full || index == 0);
            if part.full {
                held.endpoints.clear();
            }
            for endpoint in part.set {
                held.endpoints.insert(endpoint.address.clone(), endpoint);
            }
            for address in part.gone {
                assert!(held.endpoints.remove(&address).is_some(), "{address} was there");
            }
            held.generation = part.generation;
        }
    }

    /// What its keys lead to, and what that needs: generations aside, what it knows.
    fn knowledge(&self) -> BTreeMap<String, Vec<(String, Option<Known>)>> {
        let of = |service: &String| {
            let held = self.services.get(service)?;
            Some((held.cluster.clone(), held.routes.clone(), held.endpoints.clone()))
        };
        let all = |service: &String| {
            let needs = self.services.get(service).map(Held::needs).unwrap_or_default();
            let all = std::iter::once(service).chain(&needs);
            all.map(|service| (service.clone(), of(service))).collect()
        };
        self.keys.iter().map(|(key, service)| (key.clone(), all(service))).collect()
    }

    fn held(&self, key: &str) -> &Held {
        &self.services[&self.keys[key]]
    }
}

struct Stream {
    id: SubscriberId,
    told: Told,
    client: Client,
}

impl Stream {
    fn open(hub: &mut Hub, namespace: &str) -> Self {
        let id = hub.subscribe((namespace, "runner"), ("", ""));
        Self { id, told: Told::new(EPOCH), client: Client::default() }
    }

    /// Messages until nothing is left to be told.
    fn listen(&mut self, hub: &mut Hub) -> usize {
        self.listen_for(hub, usize::MAX)
    }

    fn listen_for(&mut self, hub: &mut Hub, changes: usize) -> usize {
        let mut heard = 0;
        for _ in 0..changes {
            let Some(change) = hub.next_change(self.id) else { break };
            for response in self.told.say(change) {
                self.client.hear(response);
                heard += 1;
            }
        }
        heard
    }

    fn want(&mut self, hub: &mut Hub, key: &str) {
        hub.want(self.id, key).unwrap();
    }

    fn forget(&mut self, hub: &mut Hub, key: &str) {
        hub.forget(self.id, key);
        self.told.forget(key);
        self.client.keys.remove(key);
    }
}

fn hub(events: Vec<Event>) -> Hub {
    let mut hub = Hub::new(world(), EPOCH, MaxWants { of_identity: 100_000, of_all: 100_000 });
    hub.apply(events);
    hub
}

fn shop() -> Vec<Event> {
    let pods = [meshed("orders-a", "10.1.0.1"), meshed("orders-b", "10.1.0.2")];
    vec![
        service("shop", "orders", "10.96.0.1", 80),
        service("shop", "stock", "10.96.0.2", 80),
        pod("shop", &pods[0]),
        pod("shop", &pods[1]),
        slice("shop", "orders", 8080, &pods),
    ]
}

#[test]
fn a_change_is_told_to_those_who_asked_and_to_nobody_else() {
    let mut hub = hub(shop());
    let (mut one, mut other) = (Stream::open(&mut hub, "shop"), Stream::open(&mut hub, "shop"));
    one.want(&mut hub, "orders:80");
    other.want(&mut hub, "stock:80");
    assert_eq!(one.listen(&mut hub), 3, "Service, Endpoints, Destination");
    other.listen(&mut hub);
    hub.take_woken();
    hub.apply([slice("shop", "orders", 8080, &[meshed("orders-b", "10.1.0.2")])]);
    assert_eq!(hub.take_woken(), BTreeSet::from([one.id]));
    assert_eq!(one.listen(&mut hub), 1, "one difference");
    let left: Vec<_> = one.client.held("orders:80").endpoints.keys().cloned().collect();
    assert_eq!(left, ["10.1.0.2:8080"]);
    assert_eq!(other.listen(&mut hub), 0);
    hub.apply([slice("shop", "orders", 8080, &[meshed("orders-b", "10.1.0.2")])]);
    assert!(hub.take_woken().is_empty(), "the same again is no change");
}

#[test]
fn who_did_not_listen_gets_the_newest_and_not_what_was_between() {
    let mut hub = hub(shop());
    let mut slow = Stream::open(&mut hub, "shop");
    slow.want(&mut hub, "orders:80");
    slow.listen(&mut hub);
    for round in 0..100 {
        let pods = if round % 2 == 0 { vec![] } else { vec![meshed("orders-a", "10.1.0.1")] };
        hub.apply([slice("shop", "orders", 8080, &pods)]);
    }
    assert_eq!(slow.listen(&mut hub), 1);
    assert_eq!(slow.client.held("orders:80").endpoints.len(), 1);
}

#[test]
fn a_service_that_goes_leads_nowhere_and_comes_back_whole() {
    let mut hub = hub(shop());
    let mut stream = Stream::open(&mut hub, "shop");
    for key in ["orders:80", "10.96.0.1:80", "unknown:80"] {
        stream.want(&mut hub, key);
    }
    stream.listen(&mut hub);
    assert_eq!(stream.client.keys["unknown:80"], "");
    hub.apply([gone(Kind::Service, "shop", "orders")]);
    stream.listen(&mut hub);
    assert!(stream.client.keys.values().all(String::is_empty));
    assert_eq!(hub.counts().2, 0, "nothing is kept that nobody is led to");
    hub.apply([service("shop", "orders", "10.96.0.1", 80), service("shop", "unknown", "10.96.0.7", 80)]);
    stream.listen(&mut hub);
    assert_eq!(stream.client.held("10.96.0.1:80").endpoints.len(), 2);
    assert_eq!(stream.client.keys["unknown:80"], "unknown.shop.svc:80");
}

#[test]
fn a_name_is_shadowed_by_one_that_a_resolver_finds_before() {
    let mut hub = hub(vec![service("stock", "orders", "10.96.0.3", 80)]);
    let mut stream = Stream::open(&mut hub, "shop");
    stream.want(&mut hub, "orders.stock:80");
    stream.listen(&mut hub);
    assert_eq!(stream.client.keys["orders.stock:80"], "orders.stock.svc:80");
    // Now `stock.shop` is headless and has a pod of that host name: the search list begins with the own namespace.
    let pods = [meshed("orders-0", "10.1.0.9")];
    let mut with_host = endpoint(&pods[0]);
    with_host.host = Some("orders".into());
    hub.apply([
        service("shop", "stock", "headless", 80),
        pod("shop", &pods[0]),
        slice_of("shop", "stock", &[("", 80)], vec![with_host]),
    ]);
    stream.listen(&mut hub);
    assert_eq!(stream.client.keys["orders.stock:80"], "orders.stock.shop.svc:80");
}

#[test]
fn what_is_known_from_before_is_not_told_again() {
    let mut hub = hub(shop());
    let mut before = Stream::open(&mut hub, "shop");
    before.want(&mut hub, "orders:80");
    before.listen(&mut hub);
    let generation = before.client.held("orders:80").generation;
    let resumed = |hub: &mut Hub, epoch| {
        let mut stream = Stream::open(hub, "shop");
        stream.client = before.client.clone();
        stream.told.resume("orders:80", epoch, generation);
        stream.want(hub, "orders:80");
        let heard = stream.listen(hub);
        (stream, heard)
    };
    let (mut again, heard) = resumed(&mut hub, EPOCH);
    assert_eq!(heard, 1, "the Destination alone");
    assert_eq!(resumed(&mut hub, EPOCH + 1).1, 3, "another controller's numbers say nothing");
    hub.apply([slice("shop", "orders", 8080, &[meshed("orders-b", "10.1.0.2")])]);
    assert_eq!(again.listen(&mut hub), 1, "differences are to what it has");
    assert_eq!(again.client.held("orders:80").endpoints.len(), 1);
    let (late, heard) = resumed(&mut hub, EPOCH);
    assert_eq!(heard, 3);
    assert_eq!(late.client.knowledge(), again.client.knowledge());
}

#[test]
fn a_value_lives_as_long_as_somebody_asks() {
    let mut hub = hub(shop());
    let (mut one, mut two) = (Stream::open(&mut hub, "shop"), Stream::open(&mut hub, "shop"));
    for stream in [&mut one, &mut two] {
        stream.want(&mut hub, "orders:80");
        stream.want(&mut hub, "orders:80");
        stream.listen(&mut hub);
    }
    assert_eq!(hub.counts(), (2, 2, 1));
    one.forget(&mut hub, "orders:80");
    assert_eq!(hub.counts(), (2, 1, 1));
    hub.unsubscribe(two.id);
    assert_eq!(hub.counts(), (1, 0, 0));
    assert!(hub.asked_of.is_empty() && hub.made_of.is_empty() && hub.questions.is_empty());
}

#[test]
fn wishes_have_a_bound() {
    let mut hub = Hub::new(world(), EPOCH, MaxWants { of_identity: MAX_WANTS + 1, of_all: MAX_WANTS + 2 });
    let id = hub.subscribe(("shop", "runner"), ("", ""));
    assert_eq!(hub.want(id, "nonsense"), Err(Refused::Key));
    for number in 0..MAX_WANTS {
        hub.want(id, &format!("host-{number}:80")).unwrap();
    }
    assert_eq!(hub.want(id, "more:80"), Err(Refused::TooManyOfOne));
    assert_eq!(hub.want(id, "host-0:80"), Ok(()), "it is wanted already");
    let same = hub.subscribe(("shop", "runner"), ("", ""));
    hub.want(same, "one:80").unwrap();
    assert_eq!(hub.want(same, "more:80"), Err(Refused::TooManyOfIdentity));
    let other = hub.subscribe(("shop", "other"), ("", ""));
    assert_eq!(hub.want(other, "one:80"), Ok(()), "others go on");
    assert_eq!(hub.want(other, "more:80"), Err(Refused::TooManyOfAll));
    hub.forget(other, "one:80");
    hub.unsubscribe(id);
    assert_eq!(hub.want(same, "more:80"), Ok(()), "there is room again");
    assert_eq!(hub.counts().1, 2);
}

#[test]
fn an_address_of_the_cluster_that_nobody_has_is_not_outside() {
    let ranges = ["10.0.0.0/8".parse().unwrap()].into();
    let mut hub = Hub::new(World { ranges, ..world() }, EPOCH, MaxWants { of_identity: 9, of_all: 9 });
    let id = hub.subscribe(("shop", "runner"), ("", ""));
    for key in ["10.1.0.1:80", "[::ffff:10.1.0.1]:80"] {
        hub.want(id, key).unwrap();
        assert!(matches!(hub.next_change(id), Some(Change::Unknown(found)) if *found == *key));
    }
    for key in ["192.0.2.1:80", "example.com:80"] {
        hub.want(id, key).unwrap();
        assert!(matches!(hub.next_change(id), Some(Change::Destination(_, None))), "{key}");
    }
    hub.apply([pod("shop", &meshed("a", "10.1.0.1"))]);
    assert!(matches!(hub.next_change(id), Some(Change::Destination(_, Some(_)))), "now it is known");
}

#[test]
fn a_pod_hears_nothing_of_a_former_one_of_its_name() {
    let mut hub = hub(shop());
    let next = |hub: &mut Hub, uid: &str| {
        let id = hub.subscribe(("shop", "runner"), ("orders-a", uid));
        (id, hub.next_change(id).is_some())
    };
    // Objects of tests have their names for UIDs.
    assert!(next(&mut hub, "orders-a").1 && next(&mut hub, "").1);
    let (id, is_told) = next(&mut hub, "another");
    assert!(!is_told);
    let Event::Set(Object::Pod(key, mut newer)) = pod("shop", &meshed("orders-a", "10.1.0.9")) else {
        panic!("a pod")
    };
    newer.uid = Uid::of("another");
    hub.apply([Event::Set(Object::Pod(key, newer))]);
    assert!(matches!(hub.next_change(id), Some(Change::Workload { .. })));
}

#[test]
fn long_lists_come_in_parts_that_count_together() {
    let addresses: Vec<String> = (0..2500).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
    let outside = |address: &String| {
        let mut endpoint = endpoint(&plain("x", "10.0.0.1"));
        (endpoint.address, endpoint.pod) = (ip(address), None);
        endpoint
    };
    let all = slice_of("shop", "orders", &[("", 8080)], addresses.iter().map(outside).collect());
    let mut hub = hub(vec![service("shop", "orders", "10.96.0.1", 80), all]);
    let mut stream = Stream::open(&mut hub, "shop");
    stream.want(&mut hub, "orders:80");
    assert_eq!(stream.listen(&mut hub), 5, "Service, three parts, Destination");
    assert_eq!(stream.client.held("orders:80").endpoints.len(), 2500);
    hub.apply([slice_of("shop", "orders", &[("", 8080)], vec![])]);
    assert_eq!(stream.listen(&mut hub), 3);
    assert!(stream.client.held("orders:80").endpoints.is_empty());
}

#[test]
fn a_pod_hears_of_itself_only_if_its_certificate_can_be_its_own() {
    let mut events = shop();
    events.push(service_with(
        "shop",
        "orders",
        "10.96.0.1",
        &[("", 80, crate::controller::model::objects::Protocol::Http)],
    ));
    let mut hub = hub(events);
    let heard = |hub: &mut Hub, namespace: &str, account: &str, pod: &str| {
        let id = hub.subscribe((namespace, account), (pod, ""));
        let mut stream = Stream { id, told: Told::new(EPOCH), client: Client::default() };
        stream.listen(hub);
        stream
    };
    let mut own = heard(&mut hub, "shop", "runner", "orders-a");
    assert_eq!(own.client.inbound.as_deref(), Some(r#"{"ports":[{"port":8080,"protocol":"http"}]}"#));
    assert_eq!(heard(&mut hub, "shop", "other", "orders-a").client.inbound, None);
    assert_eq!(heard(&mut hub, "else", "runner", "orders-a").client.inbound, None);
    let mut early = heard(&mut hub, "shop", "runner", "orders-c");
    assert_eq!(early.client.inbound, None);
    hub.apply([pod("shop", &meshed("orders-c", "10.1.0.3"))]);
    early.listen(&mut hub);
    assert_eq!(early.client.inbound.as_deref(), Some(r#"{"ports":[]}"#));
    hub.apply([service_with(
        "shop",
        "orders",
        "10.96.0.1",
        &[("", 80, crate::controller::model::objects::Protocol::Tcp)],
    )]);
    own.listen(&mut hub);
    let told = own.client.inbound.clone();
    assert_eq!(told.as_deref(), Some(r#"{"ports":[{"port":8080,"protocol":"tcp"}]}"#));
    hub.apply([slice("shop", "orders", 8080, &[meshed("orders-b", "10.1.0.2")])]);
    own.listen(&mut hub);
    assert_eq!(own.client.inbound, told, "a pod that leaves its Service is about to end: no reload for that");
}

/// A route of `namespace` that sends what is for the parent to the backends.
fn canary(namespace: &str, name: &str, parent: (&str, &str), backends: &[(&str, &str)]) -> Event {
    let backends: Vec<_> = backends
        .iter()
        .map(|(namespace, name)| serde_json::json!({"namespace": namespace, "name": name, "port": 80}))
        .collect();
    let (of, service) = parent;
    http_route(
        namespace,
        name,
        &serde_json::json!({
            "parentRefs": [{"group": "", "kind": "Service", "namespace": of, "name": service}],
            "rules": [{"backendRefs": backends}],
        }),
    )
}

#[test]
fn what_routes_send_requests_to_is_told_before_and_kept_up_to_date() {
    let mut hub = hub(shop());
    let mut stream = Stream::open(&mut hub, "shop");
    stream.want(&mut hub, "stock:80");
    stream.listen(&mut hub);
    hub.apply([canary("shop", "canary", ("shop", "stock"), &[("shop", "orders"), ("shop", "stock")])]);
    stream.listen(&mut hub);
    let stock = stream.client.held("stock:80").clone();
    assert_eq!(stock.needs(), ["orders.shop.svc:80", "stock.shop.svc:80"].map(str::to_owned).into());
    let orders = stream.client.services["orders.shop.svc:80"].clone();
    assert_eq!(orders.endpoints.len(), 2);
    assert!(!orders.cluster.contains("addresses") && orders.cluster.contains(r#""authorities":[]"#));
    hub.apply([slice("shop", "orders", 8080, &[meshed("orders-b", "10.1.0.2")])]);
    assert_eq!(stream.listen(&mut hub), 1, "a difference of what the route needs");
    assert_eq!(stream.client.services["orders.shop.svc:80"].endpoints.len(), 1);
    // Now the app calls it, too: by its names, and back.
    stream.want(&mut hub, "orders:80");
    stream.listen(&mut hub);
    assert!(stream.client.held("orders:80").cluster.contains("10.96.0.1:80"));
    stream.forget(&mut hub, "orders:80");
    stream.listen(&mut hub);
    assert_eq!(stream.client.services["orders.shop.svc:80"].cluster, orders.cluster);
    assert_eq!(hub.counts().2, 2);
    hub.apply([gone(Kind::HttpRoute, "shop", "canary")]);
    stream.listen(&mut hub);
    assert!(stream.client.held("stock:80").routes.is_empty());
    assert_eq!(hub.counts().2, 1, "what nobody needs is not kept");
}

#[test]
fn a_consumers_route_changes_what_its_own_namespace_is_told_and_nobody_else() {
    let mut hub = hub(shop());
    let (mut own, mut other) = (Stream::open(&mut hub, "other"), Stream::open(&mut hub, "shop"));
    for stream in [&mut own, &mut other] {
        stream.want(&mut hub, "stock.shop:80");
        stream.want(&mut hub, "10.96.0.2:80");
        stream.listen(&mut hub);
    }
    hub.take_woken();
    hub.apply([canary("other", "mine", ("shop", "stock"), &[("shop", "orders")])]);
    assert_eq!(hub.take_woken(), BTreeSet::from([own.id]));
    own.listen(&mut hub);
    for key in ["stock.shop:80", "10.96.0.2:80"] {
        assert_eq!(own.client.held(key).needs(), BTreeSet::from(["orders.shop.svc:80".to_owned()]), "{key}");
    }
    assert_eq!(other.listen(&mut hub), 0);
}

const NAMESPACES: [&str; 2] = ["shop", "other"];
const SERVICES: [&str; 3] = ["orders", "stock", "db"];
const PODS: [(&str, &str); 4] = [("a", "10.1.0.1"), ("b", "10.1.0.2"), ("c", "10.1.0.3"), ("d", "10.1.0.1")];

fn any_event() -> impl Strategy<Value = Event> {
    let place = (prop::sample::select(NAMESPACES.to_vec()), prop::sample::select(SERVICES.to_vec()));
    let reach = prop::sample::select(vec![
        "10.96.0.1",
        "10.96.0.2,2001:db8::1",
        "headless",
        "mail.example.com",
        "orders.shop.svc.cluster.local",
        "db.other.svc.cluster.local",
    ]);
    let pods = prop::collection::vec((0..PODS.len(), any::<bool>(), any::<bool>(), any::<bool>()), 0..4);
    let port = prop::sample::select(vec![80_u16, 8080]);
    let namespaces = prop::sample::select(NAMESPACES.to_vec());
    let route = (namespaces.clone(), prop::sample::select(vec!["r1", "r2"]));
    prop_oneof![
        3 => (route.clone(), place.clone(), prop::collection::vec(place.clone(), 0..3))
            .prop_map(|((ns, name), parent, backends)| canary(ns, name, parent, &backends)),
        1 => route.prop_map(|(ns, name)| gone(Kind::HttpRoute, ns, name)),
        1 => (namespaces.clone(), namespaces.clone()).prop_map(|(ns, from)| grant(ns, from)),
        1 => (namespaces.clone(), namespaces).prop_map(|(ns, from)| gone(Kind::Grant, ns, from)),
        2 => (place.clone(), reach, port.clone()).prop_map(|((ns, name), reach, port)| service(ns, name, reach, port)),
        4 => (place.clone(), port, pods).prop_map(|((ns, name), port, pods)| {
            let endpoints = pods.into_iter().map(|(index, is_ready, has_pod, has_host)| {
                let (pod, address) = PODS[index];
                let mut endpoint = endpoint(&meshed(pod, address));
                (endpoint.is_ready, endpoint.is_serving) = (is_ready, is_ready);
                endpoint.pod = endpoint.pod.filter(|_| has_pod);
                endpoint.host = has_host.then(|| pod.into());
                endpoint
            });
            slice_of(ns, name, &[("", port)], endpoints.collect())
        }),
        4 => (prop::sample::select(NAMESPACES.to_vec()), 0..PODS.len(), any::<bool>()).prop_map(|(ns, index, is_injected)| {
            let (name, ip) = PODS[index];
            pod(ns, &TestPod { name, ip, is_injected })
        }),
        1 => (place.clone(), any::<bool>()).prop_map(|((ns, name), is_service)| {
            if is_service { gone(Kind::Service, ns, name) } else { gone(Kind::Slice, ns, &format!("{name}-1")) }
        }),
        1 => (prop::sample::select(NAMESPACES.to_vec()), 0..PODS.len())
            .prop_map(|(ns, index)| gone(Kind::Pod, ns, PODS[index].0)),
        1 => (prop::sample::select(NAMESPACES.to_vec()), any::<bool>()).prop_map(|(ns, is_enabled)| namespace(ns, is_enabled)),
        1 => prop::sample::select(Kind::ALL.to_vec()).prop_map(Event::ListBegins),
        1 => prop::sample::select(Kind::ALL.to_vec()).prop_map(Event::ListEnds),
    ]
}

const KEYS: [&str; 14] = [
    "orders:80",
    "orders:8080",
    "stock:80",
    "db:80",
    "orders.other:80",
    "stock.other.svc:8080",
    "a.db:80",
    "b.db.shop:8080",
    "10.96.0.1:80",
    "[2001:db8::1]:80",
    "10.1.0.1:80",
    "10.1.0.2:8080",
    "10.1.0.3:1",
    "10-1-0-1.shop.pod.cluster.local:80",
];

#[derive(Clone, Debug)]
enum Step {
    Event(Event),
    Want(usize, usize),
    Forget(usize, usize),
    /// One stream takes some of what it is to be told.
    Listen(usize, usize),
    /// One stream breaks and comes again with what it has.
    Resume(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_event().prop_map(Step::Event),
        3 => (0..3_usize, 0..KEYS.len()).prop_map(|(stream, key)| Step::Want(stream, key)),
        1 => (0..3_usize, 0..KEYS.len()).prop_map(|(stream, key)| Step::Forget(stream, key)),
        2 => (0..3_usize, 1..4_usize).prop_map(|(stream, changes)| Step::Listen(stream, changes)),
        1 => (0..3_usize).prop_map(Step::Resume),
    ]
}

fn resume(hub: &mut Hub, stream: &mut Stream, namespace: &str) {
    hub.unsubscribe(stream.id);
    let client = std::mem::take(&mut stream.client);
    *stream = Stream::open(hub, namespace);
    for (key, service) in &client.keys {
        let generation = client.services.get(service).map_or(0, |held| held.generation);
        stream.told.resume(key, EPOCH, generation);
        stream.want(hub, key);
    }
    stream.client = Client { parts: Vec::new(), ..client };
}

proptest! {
    /// Whatever happens to the cluster and to a stream, who was told of every difference knows what one knows who comes
    /// now and is told everything; and a value is kept only for those who ask.
    #[test]
    fn who_heard_all_differences_knows_what_a_newcomer_is_told(
        before in prop::collection::vec(any_event(), 0..30),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut hub = hub(before);
        let of = |index: usize| NAMESPACES[index % 2];
        let mut streams: Vec<Stream> = (0..3).map(|index| Stream::open(&mut hub, of(index))).collect();
        for step in steps {
            match step {
                Step::Event(event) => hub.apply([event]),
                Step::Want(index, key) => streams[index].want(&mut hub, KEYS[key]),
                Step::Forget(index, key) => streams[index].forget(&mut hub, KEYS[key]),
                Step::Listen(index, changes) => drop(streams[index].listen_for(&mut hub, changes)),
                Step::Resume(index) => resume(&mut hub, &mut streams[index], of(index)),
            }
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.listen(&mut hub);
            let mut newcomer = Stream::open(&mut hub, of(index));
            for key in stream.client.keys.keys() {
                newcomer.want(&mut hub, key);
            }
            newcomer.listen(&mut hub);
            prop_assert_eq!(stream.client.knowledge(), newcomer.client.knowledge());
            hub.unsubscribe(newcomer.id);
        }
        for stream in &streams {
            hub.unsubscribe(stream.id);
        }
        prop_assert_eq!(hub.counts(), (0, 0, 0));
        prop_assert!(hub.asked_of.is_empty() && hub.made_of.is_empty() && hub.questions.is_empty());
    }
}
