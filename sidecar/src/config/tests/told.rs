//! Who may call, as the file and the controller say it together.

use std::{path::Path, sync::Arc};

use crate::{
    authz::{Asked, Verdict, judge},
    config::{Joined, Joiner, Settings, faults_of_service, faults_of_workload, parse},
    model::{
        authorization::{Mode, Whose},
        controller::{ControllerSettings, Fragments},
    },
};

const FILE: &str = "
service: orders
trust_domain: t
identity: {file: {certificate: c, key: k, bundle: b}}
controller: {address: 'c:4360', spiffe_id: spiffe://t/controller}
inbound: [{listen: '127.0.0.1:1', app: '127.0.0.1:2', protocol: tcp}]
";
const RULES: &str = "authorization: {rules: [{name: file, from_namespaces: [shop]}]}";
const WEB: &str = "spiffe://t/ns/shop/sa/web";
const CRON: &str = "spiffe://t/ns/shop/sa/cron";

/// The sidecar of a pod, or of none.
fn file(rules: &str, pod: Option<&str>) -> Settings {
    let mut settings = parse(&format!("{FILE}{rules}"), Path::new("")).unwrap();
    let before = settings.bootstrap.controller.take().unwrap();
    let controller = ControllerSettings { pod: pod.map(str::to_owned), ..ControllerSettings::clone(&before) };
    settings.bootstrap.controller = Some(Arc::new(controller));
    settings
}

fn said(inbound: &str) -> Fragments {
    Fragments { services: Vec::new(), inbound: Some(inbound.into()) }
}

fn only(callers: &str) -> Fragments {
    said(&format!(r#"{{"ports":[],"authorization":{{"rules":[{{"name":"told",{callers}}}]}}}}"#))
}

/// Who of the two may open a stream.
fn may_call(joined: &Joined) -> [bool; 2] {
    [WEB, CRON].map(|id| {
        let rules = joined.settings.authorization.as_deref();
        rules.is_none_or(|rules| judge(rules, &id.parse().unwrap(), 2, Asked::Stream).passes())
    })
}

#[test]
fn in_a_pod_nobody_may_call_before_the_controller_has_spoken() {
    let mut joiner = Joiner::default();
    for rules in ["", RULES] {
        assert_eq!(may_call(&joiner.join(&file(rules, Some("orders-1")), &Fragments::default())), [false; 2]);
        assert_eq!(may_call(&joiner.join(&file(rules, None), &Fragments::default())), [true; 2], "no pod");
    }
    let joined = joiner.join(&file("", Some("orders-1")), &said(r#"{"ports":[]}"#));
    assert_eq!(may_call(&joined), [true; 2], "nothing is said of who may");
}

#[test]
fn a_call_must_pass_the_file_and_the_controller() {
    let mut joiner = Joiner::default();
    let one = format!(r#""from":["{WEB}"]"#);
    for rules in ["", RULES] {
        let joined = joiner.join(&file(rules, Some("orders-1")), &only(&one));
        assert_eq!(may_call(&joined), [true, false], "{joined:?}");
    }
    let joined = joiner.join(&file(RULES, None), &only(r#""from_namespaces":["billing"]"#));
    assert_eq!(may_call(&joined), [false; 2], "neither opens what the other closes");
    let whose: Vec<_> = joined.settings.authorization.as_deref().unwrap().layers().map(|l| l.whose).collect();
    assert_eq!(whose, [Whose::File, Whose::Controller]);
    let joined = joiner.join(&file(RULES, None), &said(r#"{"authorization":{"mode":"audit"}}"#));
    let rules = joined.settings.authorization.as_deref().unwrap();
    let verdict = judge(rules, &WEB.parse().unwrap(), 2, Asked::Stream);
    assert_eq!((verdict, rules.mode()), (Verdict::Audited, Mode::Enforce), "one audits, the other allows");
    let joined = joiner.join(&file(RULES, None), &said("{}"));
    assert_eq!(joined.settings.authorization, file(RULES, None).authorization, "taken back");
}

#[test]
fn what_cannot_be_understood_lets_nobody_call() {
    let mut joiner = Joiner::default();
    assert_eq!(
        may_call(&joiner.join(&file("", None), &only(&format!(r#""from":["{WEB}"]"#)))),
        [true, false]
    );
    for text in [
        r#"{"authorization":{"rules":[{"name":"a"}]}}"#,
        r#"{"authorization":{"rules":[{"name":"a","from":["x"]}]}}"#,
        r#"{"authorization":{"deny":[]}}"#,
        r#"{"authorization":null}"#,
        r#"{"authorization":[]}"#,
        "{",
    ] {
        let joined = joiner.join(&file("", None), &said(text));
        assert_eq!(may_call(&joined), [false; 2], "{text}");
        let told = joined.rejected.iter().find(|rejected| &*rejected.service == "authorization").unwrap();
        assert!(told.faults.len() > 1 && told.faults[0].to_string().contains("nobody may call"), "{told:?}");
        assert!(!faults_of_workload(text, "t").is_empty(), "{text}");
    }
    let unknown = r#"{"authorization":{"rules":[{"name":"a","from_namespaces":["o/shop"],"ports":[9]}]}}"#;
    let joined = joiner.join(&file("", None), &said(unknown));
    assert!(joined.rejected.is_empty(), "roots and ports may come later: {joined:?}");
    assert_eq!((may_call(&joined), faults_of_workload(unknown, "t")), ([false; 2], Vec::new()));
}

#[test]
fn who_tells_can_check_by_the_same_rules() {
    assert_eq!(faults_of_service("x", r#"{"name":"x","request_timeout":"5s"}"#), Vec::new());
    let faults = faults_of_service("x", r#"{"name":"x","request_timeout":5}"#);
    assert_eq!(faults[0].path, "controller.services[x].request_timeout");
    assert_eq!(faults_of_workload(r#"{"ports":[{"port":80,"protocol":"http"}]}"#, "t"), Vec::new());
}
