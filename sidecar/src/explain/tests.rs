//! What is said of calls, by a file and by what is in force.

use std::{path::Path, sync::Arc, time::Instant};

use super::{By, Explained, policy, route};
use crate::{
    config::{Joined, Joiner, parse},
    model::{
        Snapshot,
        controller::{ControllerSettings, Fragment, Fragments, Rejected},
        file::Fault,
        wanted::{Key, Outside, Use},
    },
    publish,
};

const FILE: &str = "
service: orders
trust_domain: t
identity: {file: {certificate: c, key: k, bundle: b}}
controller: {address: 'c:4360', spiffe_id: spiffe://t/controller}
inbound: [{listen: '127.0.0.1:1', app: '127.0.0.1:8080'}]
outbound: [{name: out, listen: '127.0.0.1:2'}]
";
const INTERCEPTED: &str = "intercept: {outbound: {unknown: passthrough}}\n";

/// What is in force by the file with these sections and what the controller says, in a pod.
fn joined(sections: &str, fragments: &Fragments) -> Joined {
    let mut settings = parse(&format!("{FILE}{sections}"), Path::new("")).unwrap();
    let before = settings.bootstrap.controller.take().unwrap();
    let controller =
        ControllerSettings { pod: Some("orders-1".to_owned()), ..ControllerSettings::clone(&before) };
    settings.bootstrap.controller = Some(Arc::new(controller));
    Joiner::default().join(&settings, fragments)
}

/// What is said of a call by `web` to the port 8080.
fn called(sections: &str, inbound: Option<&str>, method: &str) -> Explained {
    let joined = joined(sections, &Fragments { services: Vec::new(), inbound: inbound.map(Arc::from) });
    let question = policy::Question {
        from: "spiffe://t/ns/shop/sa/web".parse().unwrap(),
        port: None,
        method: Some(method.parse().unwrap()),
        path: Some("/items/7".to_owned()),
        host: None,
        headers: Vec::new(),
        grpc: None,
        stream: false,
    };
    policy::explain(&joined.settings, By::Running(&joined.rejected), &question).unwrap()
}

const TOLD: &str = r#"{"ports":[],"authorization":{"rules":[{"name":"orders/reads","from_namespaces":["shop"],"methods":["GET"]}]}}"#;
const RULES: &str = "authorization: {rules: [{name: file, from_namespaces: [shop]}]}";

#[test]
fn a_rule_of_the_controller_is_named_and_what_it_misses() {
    let found = called("", Some(TOLD), "GET");
    assert_eq!((found.passes, found.lines), (true, vec!["allowed by rule orders/reads".to_owned()]));
    let found = called("", Some(TOLD), "POST");
    assert_eq!(
        (found.passes, &*found.lines.join("\n")),
        (false, "denied: no rule fits\n  orders/reads: is about another method")
    );
    let found = called("", Some(r#"{"ports":[]}"#), "POST");
    assert!(found.passes && found.lines[0].contains("neither the file nor a policy"), "{found:?}");
}

#[test]
fn rules_of_the_file_and_of_the_controller_must_both_allow() {
    let found = called(RULES, Some(TOLD), "GET");
    let lines = "allowed by rule file\n  of the file: file\n  of the cluster's policies: orders/reads";
    assert_eq!((found.passes, &*found.lines.join("\n")), (true, lines));
    let found = called(RULES, Some(TOLD), "POST");
    let lines = "denied: rules of the file and of the cluster's policies must both allow it\n  \
        of the file:\n    file: fits\n  of the cluster's policies:\n    orders/reads: is about another method";
    assert_eq!((found.passes, &*found.lines.join("\n")), (false, lines));
}

#[test]
fn a_pod_that_is_closed_says_why() {
    let found = called("", None, "GET");
    assert!(!found.passes && found.lines[1].contains("the controller has said nothing yet"), "{found:?}");
    let found = called("", Some(r#"{"ports":[],"authorization":{"rules":[{"nmae":"a"}]}}"#), "GET");
    let text = found.lines.join("\n");
    assert!(!found.passes && text.contains("not in force:\n  authorization: "), "{text}");
}

fn fragment(name: &str, cluster: &str, routes: &[&str]) -> Fragment {
    let routes: Arc<[Box<str>]> = routes.iter().map(|route| Box::from(*route)).collect();
    Fragment {
        name: name.into(),
        revision: 1,
        cluster: cluster.into(),
        routes: Some(routes),
        is_asked_for: true,
        names: Vec::new(),
    }
}

/// A sidecar that was told of two ports of `orders`, of which one has a route; and that one name leads elsewhere.
fn snapshot(sections: &str) -> Snapshot {
    let route = r#"{"name":"canary.shop","services":["orders"],"rules":[{"matches":[{"path_prefix":"/items"}],"clusters":[{"name":"orders"}]}]}"#;
    let orders = r#"{"name":"orders","authorities":["orders:80"],"addresses":["10.96.0.7:80"]}"#;
    let metrics = r#"{"name":"metrics","authorities":["orders:9090"],"addresses":["10.96.0.7:9090"]}"#;
    let services = vec![fragment("orders", orders, &[route]), fragment("metrics", metrics, &[])];
    let joined = joined(sections, &Fragments { services, inbound: None });
    assert!(joined.rejected.is_empty(), "{:?}", joined.rejected);
    let outside =
        ["elsewhere:80", "192.0.2.1:80"].map(|key| (Key::parse(key).unwrap(), Arc::<Use>::default()));
    let snapshot = publish::preview(Arc::new(joined.settings), Instant::now());
    Snapshot { outside: Arc::new(Outside::new(outside)), ..snapshot }
}

fn goes(snapshot: &Snapshot, by: By<'_>, url: &str, to: Option<&str>) -> (bool, String) {
    let to = to.map(|to| to.parse().unwrap());
    let question =
        route::Question { method: "GET".to_owned(), url: url.to_owned(), to, ..route::Question::default() };
    let found = route::explain(snapshot, by, &question).unwrap();
    (found.passes, found.lines.join("\n"))
}

#[test]
fn a_told_route_is_named_by_whichever_name_its_service_is_asked_for() {
    let snapshot = snapshot("");
    for host in ["orders", "orders:80"] {
        let (goes, text) = goes(&snapshot, By::Running(&[]), &format!("http://{host}/items/7"), None);
        assert!(goes && text.contains("rule      canary.shop/0: path_prefix /items"), "{text}");
    }
    let (goes, text) = goes(&snapshot, By::Running(&[]), "http://orders/other", None);
    assert!(!goes && text.contains("none: 404, no_rule"), "{text}");
}

#[test]
fn what_the_controller_was_not_asked_for_is_no_missing_route() {
    let (named, dialled) = (snapshot(""), snapshot(INTERCEPTED));
    for (snapshot, url, to, passes, line) in [
        (&named, "http://carts/", None, false, "it has said nothing of carts:80; without"),
        (&named, "http://orders:81/", None, false, "it has said nothing of orders:81; without"),
        (&named, "http://elsewhere/", None, false, "404, no_route"),
        (&named, "http://[::1]/", None, false, "404, no_route"),
        (&dialled, "http://carts/", None, false, "say with --to which address"),
        (
            &dialled,
            "http://carts/",
            Some("192.0.2.9:80"),
            false,
            "it has said nothing of 192.0.2.9:80; without",
        ),
        (&dialled, "http://carts/", Some("192.0.2.1:80"), true, "as it is (passthrough)"),
        (&dialled, "http://carts/items", Some("10.96.0.7:80"), true, "rule      canary.shop/0"),
    ] {
        let (found, text) = goes(snapshot, By::Running(&[]), url, to);
        assert!(found == passes && text.contains(line), "{url} {to:?}: {found}\n{text}");
    }
    // A file knows nobody else.
    let (found, text) = goes(&named, By::File, "http://carts/", None);
    assert!(!found && text.contains("404, no_route"), "{text}");
    assert!(text.ends_with("--running asks a sidecar what is in force"), "nor does it hide that: {text}");
    let (_, text) = goes(&named, By::Running(&[]), "http://carts/", None);
    assert!(!text.contains("by the file alone"), "{text}");
}

#[test]
fn what_is_left_out_of_the_controllers_word_is_told_up_to_a_bound() {
    let fault = Fault {
        path: "a".to_owned(),
        line: None,
        problem: "is odd".to_owned(),
        remedy: "mend it".to_owned(),
    };
    let rejected =
        |name: &str| Rejected { service: name.into(), faults: vec![fault.clone()], is_conflict: false };
    let all: Vec<_> =
        (0..8).map(|number| rejected(&format!("s{number}"))).chain([rejected(Rejected::CALLERS)]).collect();
    let (_, text) = goes(&snapshot(""), By::Running(&all), "http://orders/items", None);
    assert!(text.contains("not in force:\n  s0: a: is odd") && text.ends_with("and 3 more"), "{text}");
    assert!(!text.contains(Rejected::CALLERS), "{text}");
}
