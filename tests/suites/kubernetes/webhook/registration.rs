//! `caBundle` is kept current, by any number of replicas.

use serde_json::json;

use super::{CONFIGURATIONS, Files, NAME, Webhook, ca_bundle, configuration, pod, ready, review};
use crate::harness::{TestCa, api_server::ApiServer, eventually};
use outrider_injector::webhook::Limits;

#[tokio::test]
async fn it_is_not_ready_before_the_api_server_believes_it() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    let files = Files::new(&ca);
    let webhook = Webhook::start(&api, &files, Limits::default()).await;
    let only = async {
        while webhook.ready().await.1 != "waits for: caBundle\n" {
            tokio::task::yield_now().await;
        }
    };
    crate::harness::soon("only the configuration is missing", only).await;
    api.put(configuration());
    webhook.until_ready().await;
    assert_eq!(webhook.caller(&api).ask(&review(&pod())).await["allowed"], true);
}

#[tokio::test]
async fn what_somebody_overwrites_is_put_right_and_nothing_else_is_touched() {
    let (api, _ca, _files, webhook) = ready().await;
    let right = ca_bundle(&api);
    let mut other = configuration();
    other["webhooks"][1]["clientConfig"] =
        json!({"service": {"name": "other", "namespace": "else"}, "caBundle": "eA=="});
    other["webhooks"][0]["timeoutSeconds"] = json!(5);
    other["metadata"]["annotations"] = json!({"mine": "yes"});
    api.put(other);
    let bundle = || {
        let found = api.object(CONFIGURATIONS, "", NAME).unwrap();
        found["webhooks"][0]["clientConfig"]["caBundle"].clone()
    };
    eventually("it is put right", || bundle().is_string()).await;
    let found = api.object(CONFIGURATIONS, "", NAME).unwrap();
    assert_eq!(found["webhooks"][1]["clientConfig"]["caBundle"], "eA==");
    assert_eq!(
        (&found["webhooks"][0]["timeoutSeconds"], &found["metadata"]["annotations"]["mine"]),
        (&json!(5), &json!("yes"))
    );
    api.put(configuration());
    eventually("it is as it was", || ca_bundle(&api) == right).await;
    webhook.until_ready().await;
}

#[tokio::test]
async fn two_replicas_agree() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    let (one_files, other_files) = (Files::new(&ca), Files::new(&ca));
    let one = Webhook::start(&api, &one_files, Limits::default()).await;
    let other = Webhook::start(&api, &other_files, Limits::default()).await;
    one.until_ready().await;
    other.until_ready().await;
    let written = async || {
        one.metric("outrider_injector_ca_bundle_written_total").await
            + other.metric("outrider_injector_ca_bundle_written_total").await
    };
    let first = written().await;
    assert!((1.0..=2.0).contains(&first), "{first}");
    for webhook in [&one, &other] {
        assert_eq!(webhook.caller(&api).ask(&review(&pod())).await["allowed"], true);
    }
    // Both see a change, and whoever comes second finds nothing to do.
    api.put(configuration());
    eventually("it is put right", || ca_bundle(&api).is_some()).await;
    one.until_ready().await;
    other.until_ready().await;
    let all = written().await;
    assert!((first + 1.0..=first + 2.0).contains(&all), "{all}");
}

#[tokio::test]
async fn a_change_that_fails_is_tried_again() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    api.refuse_if(|call| (call.verb == "patch").then_some(409));
    let files = Files::new(&ca);
    let webhook = Webhook::start(&api, &files, Limits::default()).await;
    eventually("it has tried", || api.count("patch", CONFIGURATIONS) >= 2).await;
    assert_eq!(webhook.ready().await.0, 503);
    api.refuse(None);
    webhook.until_ready().await;
}

#[tokio::test]
async fn the_api_server_may_be_away_for_long_and_questions_are_answered() {
    let (api, ca, files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    api.stop().await;
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
    assert_eq!(webhook.ready().await.0, 200);
    let new = TestCa::new();
    files.write(&new.web_leaf(super::SERVER_NAME), &[&ca, &new]);
    api.start_again().await;
    let roots: String = [&ca, &new].map(|ca| outrider_certs::pem::certificate(&ca.root())).concat();
    eventually("the new roots are written", || ca_bundle(&api).as_ref() == Some(&roots)).await;
    webhook.until_ready().await;
}
