use super::*;
use crate::installation::{NAMESPACE, REGISTRY, TRUST_DOMAIN};

mod generated;

fn installation() -> Installation {
    Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), REGISTRY)
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.replace("~1", "/"), value);
    pod
}

fn outcome(pod: &Value, existing: Existing) -> Result<Outcome, Denial> {
    let installation = installation();
    inject(pod, &Context { owner: None, existing, installation: &installation })
}

fn injected(pod: &Value) -> Value {
    match outcome(pod, Existing::Replace).unwrap() {
        Outcome::Injected { pod, .. } => pod,
        Outcome::Left(reason) => panic!("left: {reason}"),
    }
}

fn denial(pod: &Value) -> String {
    outcome(pod, Existing::Replace).unwrap_err().to_string()
}

fn names(pod: &Value, pointer: &str) -> Vec<String> {
    items(pod, pointer).iter().map(|item| name(item).to_owned()).collect()
}

#[test]
fn the_order_is_rules_sidecar_and_then_the_pods_own() {
    let pod = injected(&with("/spec/initContainers", json!([{"name": "first"}, {"name": "second"}])));
    assert_eq!(names(&pod, "/spec/initContainers"), [INIT, SIDECAR, "first", "second"]);
    assert_eq!(pod.pointer("/spec/initContainers/1/restartPolicy"), Some(&json!("Always")));
    assert_eq!(pod.pointer("/spec/initContainers/0/restartPolicy"), None);
}

#[test]
fn the_label_on_the_pod_has_the_last_word() {
    let label = |value: &str| with("/metadata/labels", json!({INJECT: value}));
    assert!(matches!(outcome(&label("disabled"), Existing::Keep), Ok(Outcome::Left(_))));
    assert!(matches!(outcome(&label("enabled"), Existing::Keep), Ok(Outcome::Injected { .. })));
    for wrong in ["yes", "true", "Enabled", ""] {
        let denial = denial(&label(wrong));
        assert!(denial.contains(INJECT) && denial.contains("allowed: enabled, disabled"), "{denial}");
    }
}

#[test]
fn mirrors_are_left_alone_and_a_label_that_anybody_could_write_is_no_way_out() {
    let would_be = with("/metadata/labels", json!({crate::names::CONTROL_PLANE: "ca"}));
    assert!(matches!(outcome(&would_be, Existing::Keep), Ok(Outcome::Injected { .. })));
    let mirror = with("/metadata/annotations", json!({"kubernetes.io/config.mirror": "x"}));
    assert!(matches!(outcome(&mirror, Existing::Keep), Ok(Outcome::Left(_))));
}

#[test]
fn what_cannot_have_a_sidecar_is_denied_with_place_and_remedy() {
    for (pointer, value, words) in [
        ("/spec/hostNetwork", json!(true), "spec.hostNetwork: is true"),
        ("/spec/os", json!({"name": "windows"}), "spec.os.name: is windows"),
        ("/spec/securityContext", json!({"runAsUser": 4343}), "the pod: runs as user 4343"),
        ("/spec/initContainers", json!([{"name": "outrider"}]), "\"outrider\": has a name of the sidecar's"),
        ("/spec/initContainers", json!([{"name": "app"}]), "has a name that another one has, too"),
        ("/spec/volumes", json!([{"name": "outrider-token"}]), "volume \"outrider-token\""),
        ("/metadata/labels", json!({INJECTED: "true"}), "label outrider.io/injected: is the injector's"),
        ("/metadata/annotations", json!({CONFIG: "x"}), "annotation outrider.io/config: is the injector's"),
        ("/metadata/annotations", json!({"outrider.io/uid": 5}), "write the value in quotes"),
        ("/metadata/annotations", json!([]), "/metadata/annotations: is no object"),
        ("/spec/containers", json!("app"), "/spec/containers: is no list"),
        ("/spec", json!(null), "spec: is missing"),
    ] {
        let denial = denial(&with(pointer, value));
        assert!(denial.contains(words), "{denial}");
    }
    let container = |value: Value| with("/spec/containers", json!([value]));
    for (value, words) in [
        (json!({"name": "a", "securityContext": {"runAsUser": 4343}}), "container \"a\": runs as user 4343"),
        (json!({"name": "a", "ports": [{"containerPort": 4391}]}), "has port 4391, which is the sidecar's"),
        (json!({"name": "a", "readinessProbe": {"httpGet": {"port": "nope"}}}), "the port \"nope\" is none"),
        (
            json!({"name": "a", "readinessProbe": {"tcpSocket": {"port": 0}}}),
            "readinessProbe: the port \"0\"",
        ),
        (
            json!({"name": "a", "livenessProbe": {"httpGet": {"port": 4391, "path": "/probe/a/liveness"}}}),
            "livenessProbe: asks port 4391, which is the sidecar's",
        ),
    ] {
        let denial = denial(&container(value));
        assert!(denial.contains(words), "{denial}");
    }
}

#[test]
fn a_user_of_its_own_frees_the_number_for_the_app() {
    let pod = json!({"metadata": {"annotations": {"outrider.io/uid": "5000"}},
        "spec": {"securityContext": {"runAsUser": 4343}, "containers": []}});
    let pod = injected(&pod);
    assert_eq!(pod.pointer("/spec/initContainers/1/securityContext/runAsUser"), Some(&json!(5000)));
    let config = crate::json::text(&pod, "/metadata/annotations/outrider.io~1config").unwrap();
    assert!(config.contains("uid: 5000"), "{config}");
}

#[test]
fn a_probe_that_asks_another_host_stays_the_kubelets() {
    for (host, is_rewritten) in [
        ("", true),
        ("127.0.0.1", true),
        ("LocalHost", true),
        ("::1", true),
        ("example.com", false),
        ("10.0.0.1", false),
    ] {
        let probe = json!({"httpGet": {"port": 80, "host": host}});
        let pod = injected(&with("/spec/containers", json!([{"name": "a", "livenessProbe": probe}])));
        let stays = pod.pointer("/spec/containers/0/livenessProbe") == Some(&probe);
        assert_eq!(stays, !is_rewritten, "{host}");
    }
}

#[test]
fn the_owner_is_warned_of_what_works_otherwise_than_they_may_think() {
    let container = json!({"name": "a", "lifecycle": {"postStart": {"httpGet": {"port": 1}}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}});
    let mut pod = with("/spec/containers", json!([container]));
    pod["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let Ok(Outcome::Injected { warnings, pod }) = outcome(&pod, Existing::Replace) else { panic!() };
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert_eq!(pod.pointer("/spec/terminationGracePeriodSeconds"), Some(&json!(30)));
}

#[test]
fn who_lets_callers_pass_the_sidecar_is_told_what_that_means() {
    let exceptions = json!({"outrider.io/inbound-except-ports": "9100,9101", "outrider.io/inbound-except-cidrs": "10.8.0.0/16"});
    let pod = with("/metadata/annotations", exceptions);
    let Ok(Outcome::Injected { warnings, .. }) = outcome(&pod, Existing::Replace) else { panic!() };
    assert_eq!(
        warnings,
        [
            "outrider.io/inbound-except-ports: what comes to 9100, 9101 does not go by the sidecar: plaintext, which no policy judges",
            "outrider.io/inbound-except-cidrs: who comes from 10.8.0.0/16 does not go by the sidecar: plaintext, which no policy judges",
        ]
    );
}

#[test]
fn the_grace_period_covers_the_drain() {
    let grace = |given: Value, drain: &str| {
        let mut pod = with("/metadata/annotations", json!({"outrider.io/drain-time": drain}));
        pod["spec"]["terminationGracePeriodSeconds"] = given;
        let injected = injected(&pod);
        assert_eq!(uninject(&injected).unwrap(), pod);
        injected.pointer("/spec/terminationGracePeriodSeconds").cloned().unwrap()
    };
    assert_eq!(grace(json!(null), "20s"), json!(null), "30 s are what Kubernetes gives");
    assert_eq!(grace(json!(null), "20500ms"), json!(31));
    assert_eq!(grace(json!(60), "30s"), json!(60));
    assert_eq!(grace(json!(0), "1m"), json!(70));
}

#[test]
fn what_others_did_to_the_sidecar_stays_when_asked_again() {
    let mut once = injected(&pod());
    once["spec"]["initContainers"][1]["image"] = json!("mirror.example/outrider:1");
    once["spec"]["initContainers"][1]["terminationMessagePath"] = json!("/dev/termination-log");
    // Another webhook has put its own before ours, and one more container with a probe.
    let late = json!({"name": "late", "readinessProbe": {"tcpSocket": {"port": 7000}}});
    once["spec"]["containers"].as_array_mut().unwrap().push(late.clone());
    once["spec"]["initContainers"].as_array_mut().unwrap().insert(0, json!({"name": "theirs"}));
    let Ok(Outcome::Injected { pod: twice, .. }) = outcome(&once, Existing::Keep) else { panic!() };
    assert_eq!(names(&twice, "/spec/initContainers"), [INIT, SIDECAR, "theirs"]);
    assert_eq!(twice["spec"]["initContainers"][1], once["spec"]["initContainers"][2]);
    assert_eq!(twice["spec"]["containers"][1]["readinessProbe"]["httpGet"]["path"], "/probe/late/readiness");
    assert!(
        crate::json::text(&twice, "/metadata/annotations/outrider.io~1config")
            .unwrap()
            .contains("late/readiness")
    );
    let plain = uninject(&twice).unwrap();
    assert_eq!(plain["spec"]["containers"][1], late);
    assert_eq!(names(&plain, "/spec/initContainers"), ["theirs"]);

    let Ok(Outcome::Injected { pod: anew, .. }) = outcome(&once, Existing::Replace) else { panic!() };
    assert_eq!(
        anew["spec"]["initContainers"][1]["image"],
        injected(&pod())["spec"]["initContainers"][1]["image"]
    );
}

#[test]
fn what_was_changed_by_hand_after_the_injection_is_not_taken_back() {
    let mut pod =
        with("/spec/containers", json!([{"name": "app", "livenessProbe": {"tcpSocket": {"port": 1}}}]));
    pod["metadata"]["annotations"] = json!({"outrider.io/drain-time": "1m"});
    let mut once = injected(&pod);
    once["spec"]["terminationGracePeriodSeconds"] = json!(300);
    once["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["true"]}});
    let plain = uninject(&once).unwrap();
    assert_eq!(plain["spec"]["terminationGracePeriodSeconds"], 300);
    assert_eq!(plain["spec"]["containers"][0]["livenessProbe"], json!({"exec": {"command": ["true"]}}));
}

#[test]
fn marks_of_other_versions_are_read_and_those_of_later_forms_refused() {
    let mut old = injected(&pod());
    let mark = crate::json::text(&old, "/metadata/annotations/outrider.io~1injected").unwrap().to_owned();
    let mut mark: Value = serde_json::from_str(&mark).unwrap();
    mark["version"] = json!("0.0.1");
    mark["also"] = json!({"unknown": 1});
    mark["init_containers"] = json!(["outrider-init", "outrider", "outrider-gate"]);
    old["spec"]["initContainers"].as_array_mut().unwrap().insert(2, json!({"name": "outrider-gate"}));
    let annotation = "/metadata/annotations/outrider.io~1injected";
    *old.pointer_mut(annotation).unwrap() = json!(mark.to_string());
    assert_eq!(uninject(&old).unwrap(), pod());
    assert_eq!(injected(&old), injected(&pod()));

    mark["form"] = json!(2);
    *old.pointer_mut(annotation).unwrap() = json!(mark.to_string());
    assert!(uninject(&old).unwrap_err().to_string().contains("form 2"));
    *old.pointer_mut(annotation).unwrap() = json!("yes");
    assert!(denial(&old).contains("no mark of an injection"));
    *old.pointer_mut(annotation).unwrap() = json!(7);
    assert!(denial(&old).contains("write the value in quotes"));
}
