//! What becomes of pods.

use outrider_injector::pod as injection;
use serde_json::json;

use super::{caller::patched, pod, ready, review};
use crate::harness::eventually;

/// The resource of events.
const EVENTS: &str = "events.k8s.io/events";

#[tokio::test]
async fn a_new_pod_gets_its_sidecar_and_keeps_what_nobody_here_knows() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let response = caller.ask(&review(&pod())).await;
    let injected = patched(&pod(), &response);
    assert_eq!(injected["spec"]["initContainers"][0]["name"], "outrider-init");
    assert_eq!(injected["spec"]["initContainers"][1]["restartPolicy"], "Always");
    assert_eq!(injected["spec"]["futureField"], pod()["spec"]["futureField"]);
    assert_eq!(injected["metadata"]["labels"]["outrider.io/injected"], "true");
    let config = injected["metadata"]["annotations"]["outrider.io/config"].as_str().unwrap();
    assert!(config.starts_with("service: orders\n"), "the owner's name without its hash: {config}");
    assert_eq!(injection::uninject(&injected).unwrap(), pod());

    // Asked again, as after another webhook, it has nothing to change.
    let again = caller.ask(&review(&injected)).await;
    assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
    assert!(webhook.metric("outrider_injector_reviews_total{result=\"injected\"}").await >= 1.0);
    assert!(webhook.metric("outrider_injector_reviews_total{result=\"unchanged\"}").await >= 1.0);
}

#[tokio::test]
async fn a_dry_run_has_the_same_answer() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let mut dry = review(&pod());
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(caller.ask(&dry).await["patch"], caller.ask(&review(&pod())).await["patch"]);
}

#[tokio::test]
async fn a_denial_reaches_who_asked_and_stands_at_the_owner_as_an_event() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let mut bad = pod();
    bad["metadata"]["annotations"] = json!({"outrider.io/drain-time": "soon"});
    bad["spec"]["hostNetwork"] = json!(true);
    let mut dry = review(&bad);
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(caller.ask(&dry).await["allowed"], false);
    let response = caller.ask(&review(&bad)).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(false), None));
    let status = &response["status"];
    assert_eq!(
        (&status["status"], &status["code"], &status["reason"]),
        (&json!("Failure"), &json!(422), &json!("Invalid"))
    );
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("annotation outrider.io/drain-time") && message.contains("1s..=1h"),
        "{message}"
    );

    eventually("there is an event", || !api.objects(EVENTS).is_empty()).await;
    let events = api.objects(EVENTS);
    assert_eq!(events.len(), 1, "a dry run leaves nothing behind: {events:#?}");
    let event = &events[0];
    assert_eq!((&event["metadata"]["namespace"], &event["type"]), (&json!("shop"), &json!("Warning")));
    assert_eq!(event["regarding"]["name"], "orders-7d4b9c6f5d");
    assert!(event["note"].as_str().unwrap().contains("drain-time"), "{event}");
}

#[tokio::test]
async fn a_flood_of_denials_makes_no_flood_of_events() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    for number in 0..60 {
        let mut bad = pod();
        bad["metadata"]["ownerReferences"][0]["name"] = json!(format!("owner-{number}"));
        bad["spec"]["hostNetwork"] = json!(true);
        assert_eq!(caller.ask(&review(&bad)).await["allowed"], false, "the answer is the same");
    }
    assert!(webhook.metric("outrider_injector_events_dropped_total").await > 0.0);
    assert!(api.count("create", EVENTS) < 60);
}

#[tokio::test]
async fn warnings_reach_who_asked() {
    let (api, _ca, _files, webhook) = ready().await;
    let mut pod = pod();
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let response = webhook.caller(&api).ask(&review(&pod)).await;
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("privileged"), "{response}");
}

#[tokio::test]
async fn the_label_on_the_pod_leaves_it_as_it_is() {
    let (api, _ca, _files, webhook) = ready().await;
    let mut pod = pod();
    pod["metadata"]["labels"]["outrider.io/inject"] = json!("disabled");
    pod["spec"]["hostNetwork"] = json!(true);
    let response = webhook.caller(&api).ask(&review(&pod)).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
}

#[tokio::test]
async fn every_metric_is_documented() {
    let (api, _ca, _files, webhook) = ready().await;
    // Those with labels are there once there is something to count.
    let caller = webhook.caller(&api);
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
    assert_eq!(caller.post("/inject", b"{".to_vec()).await.unwrap().0, 400);
    let doc = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let doc = std::fs::read_to_string(doc).unwrap();
    let (_, text) = super::get(webhook.status, "/metrics").await;
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(kinds.len() >= 9, "{text}");
    for kind in kinds {
        let (name, kind) = kind.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("`{name}_total`") } else { format!("`{name}`") };
        assert!(doc.contains(&name), "{name}");
    }
}
