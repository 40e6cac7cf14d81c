//! What keys lead to, and what is told of it.

use serde_json::Value as Json;

use super::{
    cluster::{Cluster, Part, Touched},
    objects::{Event, Kind, Object, PodRef, Protocol, Uid},
    resolve::{Side, Target, resolve},
    testing::*,
    value::{Facts, facts},
    workload::inbound,
};

fn cluster(events: Vec<Event>) -> Cluster {
    let mut cluster = Cluster::default();
    for event in events {
        cluster.apply(event, &mut Touched::new());
    }
    cluster
}

/// `orders` in `shop`, in the mesh at 10.96.0.1:80, with two pods at port 8080.
fn shop() -> Vec<Event> {
    let pods = [meshed("orders-a", "10.1.0.1"), meshed("orders-b", "10.1.0.2")];
    vec![
        namespace("shop", true),
        service("shop", "orders", "10.96.0.1", 80),
        pod("shop", &pods[0]),
        pod("shop", &pods[1]),
        slice("shop", "orders", 8080, &pods),
    ]
}

fn leads(cluster: &Cluster, namespace: &str, key: &str) -> Option<Target> {
    resolve(cluster, DOMAIN, namespace, key).expect("a key").target
}

fn told(cluster: &Cluster, namespace: &str, key: &str) -> Facts {
    let target = leads(cluster, namespace, key).unwrap_or_else(|| panic!("{key} leads somewhere"));
    let (side, _part) = target.side(cluster, &namespace.into());
    facts(cluster, &world(), &target, &side).expect("what was found is there")
}

fn told_to_own(cluster: &Cluster, target: &Target) -> Facts {
    facts(cluster, &world(), target, &Side::Front { is_same: true, routes: None }).expect("it is there")
}

/// Addresses of endpoints; those that are not ready with a `-`.
fn addresses(facts: &Facts) -> Vec<String> {
    let shown = facts.endpoints.iter();
    shown.map(|(address, told)| format!("{}{address}", if told.is_ready { "" } else { "-" })).collect()
}

fn setting(facts: &Facts, name: &str) -> String {
    let cluster: Json = serde_json::from_str(&facts.cluster).unwrap();
    let value = &cluster[name];
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn a_service_is_found_by_its_address_and_by_every_name_that_a_resolver_takes() {
    let cluster = cluster(shop());
    let orders = Some(Target::Service(key("shop", "orders"), 80));
    for asked in [
        "10.96.0.1:80",
        "orders.shop:80",
        "orders.shop.svc:80",
        "orders.shop.svc.cluster.local:80",
        "orders.shop.svc.cluster.local.:80",
        "ORDERS.Shop:80",
    ] {
        assert_eq!(leads(&cluster, "elsewhere", asked), orders, "{asked}");
    }
    assert_eq!(leads(&cluster, "shop", "orders:80"), orders);
    for asked in
        ["orders:80", "10.96.0.1:81", "orders.shop:8080", "10.96.0.9:80", "example.com:80", "orders.shop.:80"]
    {
        assert_eq!(leads(&cluster, "elsewhere", asked), None, "{asked}");
    }
    assert_eq!(resolve(&cluster, DOMAIN, "shop", "no key"), None);
}

#[test]
fn a_service_in_the_mesh_is_told_with_who_must_answer() {
    let facts = told(&cluster(shop()), "shop", "10.96.0.1:80");
    assert_eq!(&*facts.name, "orders.shop.svc:80");
    assert_eq!(setting(&facts, "tls"), "mesh");
    assert_eq!(setting(&facts, "addresses"), r#"["10.96.0.1:80"]"#);
    assert_eq!(addresses(&facts), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let first = facts.endpoints.values().next().unwrap();
    assert_eq!(&*first.spiffe_id, "spiffe://mesh.test/ns/shop/sa/runner");
    assert_eq!(&*first.pod, "orders-a");
}

#[test]
fn short_names_are_told_in_the_own_namespace_only() {
    let cluster = cluster(shop());
    let own = setting(&told(&cluster, "shop", "orders:80"), "authorities");
    assert!(own.contains(r#""orders:80""#) && own.contains(r#""orders""#), "{own}");
    let other = setting(&told(&cluster, "elsewhere", "orders.shop:80"), "authorities");
    assert!(!other.contains(r#""orders:80""#) && other.contains(r#""orders.shop:80""#), "{other}");
}

#[test]
fn a_bare_host_is_told_only_if_the_service_has_no_other_port() {
    let two = [("web", 80, Protocol::Http), ("admin", 9000, Protocol::Detect)];
    let cluster = cluster(vec![service_with("shop", "orders", "10.96.0.1", &two)]);
    let authorities = setting(&told(&cluster, "shop", "orders:80"), "authorities");
    assert!(authorities.contains(r#""orders.shop.svc:80""#) && !authorities.contains(r#""orders.shop.svc""#));
}

#[test]
fn one_pod_in_the_mesh_makes_the_service_so_and_the_others_are_not_told() {
    let mut events = shop();
    events.push(pod("shop", &plain("orders-b", "10.1.0.2")));
    let mut cluster = cluster(events);
    let facts = told(&cluster, "shop", "orders:80");
    assert_eq!(
        (setting(&facts, "tls").as_str(), addresses(&facts)),
        ("mesh", vec!["10.1.0.1:8080".to_owned()])
    );
    cluster.apply(pod("shop", &plain("orders-a", "10.1.0.1")), &mut Touched::new());
    let facts = told(&cluster, "shop", "orders:80");
    assert_eq!(setting(&facts, "tls"), "none", "as before the mesh");
    assert_eq!(addresses(&facts).len(), 2);
    assert!(facts.endpoints.values().all(|endpoint| endpoint.spiffe_id.is_empty()));
}

#[test]
fn a_pod_on_the_hosts_network_is_not_in_the_mesh_whatever_its_label_says() {
    let mut facts_of_pod = pod_facts(&meshed("node", "10.0.0.1"));
    facts_of_pod.is_on_host_network = true;
    let cluster = cluster(vec![
        service("shop", "orders", "10.96.0.1", 80),
        Event::Set(Object::Pod(key("shop", "node"), facts_of_pod)),
        slice("shop", "orders", 8080, &[meshed("node", "10.0.0.1")]),
    ]);
    let facts = told(&cluster, "shop", "orders:80");
    assert_eq!((setting(&facts, "tls").as_str(), addresses(&facts).len()), ("none", 1));
    assert_eq!(leads(&cluster, "shop", "10.0.0.1:22"), None, "the node's address is the node's");
}

#[test]
fn a_service_without_pods_goes_by_its_namespace() {
    for (is_enabled, tls) in [(true, "mesh"), (false, "none")] {
        let cluster =
            cluster(vec![namespace("shop", is_enabled), service("shop", "orders", "10.96.0.1", 80)]);
        assert_eq!(setting(&told(&cluster, "shop", "orders:80"), "tls"), tls);
    }
}

#[test]
fn a_pod_that_is_not_known_or_is_another_by_now_gets_nothing() {
    let pods = [meshed("orders-a", "10.1.0.1")];
    let mut cluster =
        cluster(vec![service("shop", "orders", "10.96.0.1", 80), slice("shop", "orders", 8080, &pods)]);
    assert!(told(&cluster, "shop", "orders:80").endpoints.is_empty(), "who must answer is not known");
    let mut recreated = pod_facts(&pods[0]);
    recreated.uid = Uid::of("a later one of this name");
    cluster.apply(Event::Set(Object::Pod(key("shop", "orders-a"), recreated)), &mut Touched::new());
    assert!(told(&cluster, "shop", "orders:80").endpoints.is_empty(), "another pod of that name");
    let mut moved = pod_facts(&pods[0]);
    moved.addresses = vec![ip("10.1.0.9")];
    cluster.apply(Event::Set(Object::Pod(key("shop", "orders-a"), moved)), &mut Touched::new());
    assert!(told(&cluster, "shop", "orders:80").endpoints.is_empty(), "it is elsewhere");
    cluster.apply(pod("shop", &pods[0]), &mut Touched::new());
    assert_eq!(addresses(&told(&cluster, "shop", "orders:80")), ["10.1.0.1:8080"]);
}

#[test]
fn an_address_of_a_pod_leads_to_that_pod() {
    let cluster = cluster(shop());
    let by_service = told(&cluster, "elsewhere", "10.1.0.2:8080");
    assert_eq!(&*by_service.name, "orders.shop.svc:80", "what holds for the Service holds");
    assert!(addresses(&by_service).contains(&"10.1.0.2:8080".to_owned()));
    let alone = told(&cluster, "elsewhere", "10.1.0.2:9999");
    assert_eq!(
        (&*alone.name, addresses(&alone)),
        ("orders-b.shop.pod:9999", vec!["10.1.0.2:9999".to_owned()])
    );
    assert_eq!(setting(&alone, "tls"), "mesh");
    let by_name = leads(&cluster, "elsewhere", "10-1-0-2.shop.pod.cluster.local:9999");
    assert_eq!(by_name, Some(Target::Pod(key("shop", "orders-b"), 9999)));
}

#[test]
fn a_pod_that_its_service_does_not_tell_is_reached_by_its_own_address_all_the_same() {
    let mut events = shop();
    events.push(pod("shop", &plain("orders-b", "10.1.0.2")));
    let outside = told(&cluster(events), "shop", "10.1.0.2:8080");
    assert_eq!((&*outside.name, setting(&outside, "tls").as_str()), ("orders-b.shop.pod:8080", "none"));
    let mut failing = endpoint(&meshed("orders-b", "10.1.0.2"));
    (failing.is_ready, failing.is_serving) = (false, false);
    let mut events = shop();
    events.push(slice_of("shop", "orders", &[("", 8080)], vec![failing]));
    let failing = told(&cluster(events), "shop", "10.1.0.2:8080");
    assert_eq!((&*failing.name, setting(&failing, "tls").as_str()), ("orders-b.shop.pod:8080", "mesh"));
}

#[test]
fn nobody_can_name_a_pod_of_another_namespace_their_own() {
    // The slice of `evil` claims the address of a pod in `shop`, with and without a reference to a pod.
    let mut claimed = endpoint(&meshed("orders-a", "10.1.0.1"));
    for pod_ref in [claimed.pod.clone(), None, Some(PodRef { name: "mine".into(), uid: Uid::of("mine") })] {
        claimed.pod = pod_ref;
        let mut events = shop();
        events.push(service("evil", "aaa", "10.96.0.66", 80));
        events.push(slice_of("evil", "aaa", &[("", 8080)], vec![claimed.clone()]));
        let cluster = cluster(events);
        assert_eq!(&*told(&cluster, "shop", "10.1.0.1:8080").name, "orders.shop.svc:80");
        let ids = told(&cluster, "shop", "10.96.0.66:80");
        let mut ids = ids.endpoints.values().map(|endpoint| &*endpoint.spiffe_id);
        assert!(ids.all(|id| id == "spiffe://mesh.test/ns/shop/sa/runner"), "who is there must answer");
    }
}

#[test]
fn conditions_decide_who_gets_requests() {
    let pods =
        [meshed("a", "10.1.0.1"), meshed("b", "10.1.0.2"), meshed("c", "10.1.0.3"), meshed("d", "10.1.0.4")];
    let mut endpoints: Vec<_> = pods.iter().map(endpoint).collect();
    let conditions = [(true, true, false), (false, true, true), (false, false, false), (true, true, true)];
    for (endpoint, (is_ready, is_serving, is_terminating)) in endpoints.iter_mut().zip(conditions) {
        (endpoint.is_ready, endpoint.is_serving, endpoint.is_terminating) =
            (is_ready, is_serving, is_terminating);
        endpoint.zone = "eu-1".into();
    }
    let mut events = vec![service("shop", "orders", "10.96.0.1", 80)];
    events.extend(pods.iter().map(|found| pod("shop", found)));
    events.push(slice_of("shop", "orders", &[("", 8080)], endpoints));
    let facts = told(&cluster(events), "shop", "orders:80");
    // The last: `publishNotReadyAddresses` makes it ready whatever it is.
    assert_eq!(addresses(&facts), ["10.1.0.1:8080", "-10.1.0.2:8080", "10.1.0.4:8080"]);
    assert!(facts.endpoints.values().all(|endpoint| &*endpoint.zone == "eu-1"));
}

#[test]
fn named_ports_and_app_protocols_are_told_port_by_port() {
    let ports = [("web", 80, Protocol::Http), ("grpc", 9090, Protocol::Http2), ("db", 5432, Protocol::Tcp)];
    let pods = [meshed("a", "10.1.0.1")];
    let at = [("web", 8080), ("grpc", 8081), ("db", 5432)];
    let mut cluster = cluster(vec![
        service_with("shop", "orders", "10.96.0.1,2001:db8::1", &ports),
        pod("shop", &pods[0]),
        slice_of("shop", "orders", &at, vec![endpoint(&pods[0])]),
    ]);
    for (port, address, protocol) in
        [(80, "10.1.0.1:8080", "http"), (9090, "10.1.0.1:8081", "http"), (5432, "10.1.0.1:5432", "tcp")]
    {
        let facts = told(&cluster, "shop", &format!("orders:{port}"));
        assert_eq!(
            (addresses(&facts), setting(&facts, "protocol").as_str()),
            (vec![address.to_owned()], protocol)
        );
        let both = format!(r#"["10.96.0.1:{port}","[2001:db8::1]:{port}"]"#);
        assert_eq!(setting(&facts, "addresses"), both, "both families");
        assert_eq!(told(&cluster, "shop", &format!("[2001:db8::1]:{port}")), facts);
    }
    assert_eq!(
        inbound(&cluster, &key("shop", "a")).unwrap(),
        r#"{"ports":[{"port":5432,"protocol":"tcp"},{"port":8080,"protocol":"http"},{"port":8081,"protocol":"http","app_protocol":"http2"}]}"#
    );
    cluster.apply(pod("shop", &plain("a", "10.1.0.1")), &mut Touched::new());
    assert_eq!(setting(&told(&cluster, "shop", "orders:9090"), "plain_protocol"), "http2");
}

#[test]
fn services_that_contradict_each_other_about_a_port_leave_it_to_be_found_out() {
    let pods = [meshed("a", "10.1.0.1")];
    let with = |other: Protocol| {
        let events = vec![
            service_with("shop", "one", "10.96.0.1", &[("", 80, Protocol::Http)]),
            service_with("shop", "two", "10.96.0.2", &[("", 80, other)]),
            pod("shop", &pods[0]),
            slice("shop", "one", 8080, &pods),
            slice("shop", "two", 8080, &pods),
        ];
        inbound(&cluster(events), &key("shop", "a")).unwrap()
    };
    assert_eq!(with(Protocol::Tcp), r#"{"ports":[]}"#);
    assert_eq!(with(Protocol::Detect), r#"{"ports":[{"port":8080,"protocol":"http"}]}"#);
}

#[test]
fn a_headless_service_is_its_pods_by_their_ports_and_host_names() {
    let pods = [meshed("db-0", "10.1.0.1"), meshed("db-1", "10.1.0.2")];
    let mut endpoints: Vec<_> = pods.iter().map(endpoint).collect();
    for (endpoint, host) in endpoints.iter_mut().zip(["db-0", "db-1"]) {
        endpoint.host = Some(host.into());
    }
    let cluster = cluster(vec![
        service_with("shop", "db", "headless", &[("sql", 5000, Protocol::Tcp)]),
        pod("shop", &pods[0]),
        pod("shop", &pods[1]),
        slice_of("shop", "db", &[("sql", 5432)], endpoints),
    ]);
    let all = told(&cluster, "shop", "db:5432");
    assert_eq!((&*all.name, addresses(&all).len()), ("db.shop.svc:5000", 2));
    assert_eq!(told(&cluster, "shop", "db:5000"), all);
    assert_eq!(setting(&all, "addresses"), "null");
    for asked in ["db-1.db:5432", "db-1.db.shop:5432", "db-1.db.shop.svc.cluster.local:5432"] {
        let one = told(&cluster, "shop", asked);
        assert_eq!(
            (&*one.name, addresses(&one)),
            ("db-1.db.shop.svc:5432", vec!["10.1.0.2:5432".to_owned()])
        );
        assert_eq!(setting(&one, "protocol"), "tcp");
    }
    assert_eq!(leads(&cluster, "shop", "db-2.db:5432"), None);
    assert_eq!(&*told(&cluster, "shop", "10.1.0.2:5432").name, "db.shop.svc:5000");
}

#[test]
fn no_authority_leads_to_two_ports_of_a_headless_service() {
    // The first listens where the second is called.
    let ports = [("a", 80, Protocol::Detect), ("b", 8080, Protocol::Detect)];
    let pods = [meshed("p", "10.1.0.1")];
    let cluster = cluster(vec![
        service_with("shop", "db", "headless", &ports),
        pod("shop", &pods[0]),
        slice_of("shop", "db", &[("a", 8080), ("b", 9090)], vec![endpoint(&pods[0])]),
    ]);
    let of = |number: u16| {
        let facts = told_to_own(&cluster, &Target::Service(key("shop", "db"), number));
        serde_json::from_str::<Vec<String>>(&setting(&facts, "authorities")).unwrap()
    };
    let (first, second) = (of(80), of(8080));
    assert!(first.contains(&"db:8080".to_owned()) && second.contains(&"db:9090".to_owned()));
    assert!(!first.iter().any(|authority| second.contains(authority)), "{first:?} {second:?}");
}

#[test]
fn an_external_name_is_asked_of_the_dns_unless_it_is_one_of_the_cluster() {
    let mut events = shop();
    events.push(service("shop", "mail", "mail.example.com", 25));
    events.push(service("shop", "alias", "orders.shop.svc.cluster.local", 80));
    events.push(service("shop", "nowhere", "gone.shop.svc.cluster.local", 80));
    events.push(service("shop", "round", "round.shop.svc.cluster.local", 80));
    let cluster = cluster(events);
    let mail = told(&cluster, "shop", "mail:25");
    assert_eq!(setting(&mail, "dns"), r#"{"name":"mail.example.com.","port":25}"#);
    assert_eq!((setting(&mail, "tls").as_str(), mail.endpoints.len()), ("none", 0));
    assert_eq!(&*told(&cluster, "shop", "alias:80").name, "orders.shop.svc:80");
    for nothing in ["nowhere:80", "round:80"] {
        assert_eq!(leads(&cluster, "shop", nothing), None, "{nothing}");
    }
}

#[test]
fn endpoints_without_pods_are_outside() {
    let mut api = endpoint(&plain("x", "192.0.2.1"));
    api.pod = None;
    let cluster = cluster(vec![
        namespace("default", true),
        service("default", "kubernetes", "10.96.0.1", 443),
        slice_of("default", "kubernetes", &[("", 6443)], vec![api]),
    ]);
    let facts = told(&cluster, "shop", "kubernetes.default.svc:443");
    assert_eq!(
        (setting(&facts, "tls").as_str(), addresses(&facts)),
        ("none", vec!["192.0.2.1:6443".to_owned()])
    );
}

#[test]
fn a_list_takes_away_what_is_not_in_it() {
    let mut cluster = cluster(shop());
    let mut touched = Touched::new();
    for event in [
        Event::ListBegins(Kind::Pod),
        pod("shop", &meshed("orders-b", "10.1.0.2")),
        Event::ListEnds(Kind::Pod),
    ] {
        cluster.apply(event, &mut touched);
    }
    assert_eq!((cluster.count(Kind::Pod), cluster.count(Kind::Service)), (1, 1));
    assert_eq!(addresses(&told(&cluster, "shop", "orders:80")), ["10.1.0.2:8080"]);
    assert!(touched.contains(&Part::Service(key("shop", "orders"))));
}

#[test]
fn an_address_that_two_pods_claim_is_the_newers() {
    let mut newer = pod_facts(&plain("newer", "10.1.0.1"));
    newer.created = 5;
    let mut cluster = cluster(shop());
    cluster.apply(Event::Set(Object::Pod(key("other", "newer"), newer)), &mut Touched::new());
    assert_eq!(leads(&cluster, "shop", "10.1.0.1:1"), Some(Target::Pod(key("other", "newer"), 1)));
    cluster.apply(gone(Kind::Pod, "other", "newer"), &mut Touched::new());
    assert_eq!(leads(&cluster, "shop", "10.1.0.1:1"), Some(Target::Pod(key("shop", "orders-a"), 1)));
}

#[test]
fn names_too_long_for_a_sidecar_are_cut_and_stay_apart() {
    let long = |end: &str| format!("{}{end}", "n".repeat(62));
    let space = long("s");
    let cluster = cluster(vec![
        service(&space, &long("a"), "10.96.0.1", 50000),
        service(&space, &long("b"), "10.96.0.2", 50000),
    ]);
    let name = |address: &str| told(&cluster, "shop", address).name;
    let (first, second) = (name("10.96.0.1:50000"), name("10.96.0.2:50000"));
    assert!(first.len() <= 128 && second.len() <= 128 && first != second, "{first} {second}");
}

#[test]
fn namespaces_with_the_mesh_are_those_labelled_and_those_with_pods_in_it() {
    let mut cluster = cluster(vec![
        namespace("labelled", true),
        namespace("plain", false),
        namespace("used", false),
        pod("used", &meshed("a", "10.1.0.1")),
        pod("plain", &plain("b", "10.1.0.2")),
        pod("unknown", &meshed("c", "10.1.0.3")),
    ]);
    let names =
        |cluster: &Cluster| cluster.meshed_namespaces().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&cluster), ["labelled", "used"]);
    cluster.apply(gone(Kind::Pod, "used", "a"), &mut Touched::new());
    assert_eq!(names(&cluster), ["labelled"]);
}

#[test]
fn a_port_that_its_pod_excepts_is_not_the_meshs() {
    let (a, b) = (meshed("orders-a", "10.1.0.1"), meshed("orders-b", "10.1.0.2"));
    let mut events = shop();
    events.push(pod_except("shop", &a, 8080));
    let mut cluster = cluster(events);
    let orders = told(&cluster, "shop", "orders:80");
    assert_eq!(
        (setting(&orders, "tls").as_str(), addresses(&orders)),
        ("mesh", vec!["10.1.0.2:8080".to_owned()])
    );
    // By its own address it is what it is, and what is not excepted is the mesh's.
    for (key, tls, id) in [
        ("10.1.0.1:8080", "none", ""),
        ("10.1.0.1:9090", "mesh", "spiffe://mesh.test/ns/shop/sa/runner"),
        ("10.1.0.2:8080", "mesh", "spiffe://mesh.test/ns/shop/sa/runner"),
        ("10.1.0.1:4391", "none", ""),
        ("10.1.0.2:4391", "none", ""),
    ] {
        let told = told(&cluster, "shop", key);
        assert_eq!(setting(&told, "tls"), tls, "{key}");
        assert!(told.endpoints.values().all(|endpoint| &*endpoint.spiffe_id == id), "{key}");
    }
    let mut touched = Touched::new();
    cluster.apply(pod_except("shop", &b, 8080), &mut touched);
    assert!(touched.contains(&Part::Service(key("shop", "orders"))));
    let orders = told(&cluster, "shop", "orders:80");
    assert_eq!(
        (setting(&orders, "tls").as_str(), orders.endpoints.len()),
        ("none", 2),
        "all of them except it"
    );
    assert!(orders.endpoints.values().all(|endpoint| endpoint.spiffe_id.is_empty()));
}
