use super::*;
use crate::roots::pem;

fn registration() -> Registration {
    let (configuration, service) = ("outrider-injector".to_owned(), "outrider-injector".to_owned());
    Registration { configuration, service, namespace: "outrider".to_owned() }
}

fn serving(roots: &str, sequence: u64) -> Serving {
    let provider = outrider_certs::rustls_verify::provider();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    Serving { tls: Arc::new(tls), roots: roots.to_owned(), sequence, not_after: None }
}

fn webhook(service: &str, bundle: Option<&str>) -> Value {
    let bundle = bundle.map(|bundle| k8s_openapi::ByteString(bundle.as_bytes().to_vec()));
    json!({
        "name": format!("{service}.outrider.io"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": service, "namespace": "outrider"}, "caBundle": bundle},
    })
}

fn configuration(webhooks: &[Value], sequence: Option<&str>) -> Value {
    let annotations = sequence.map(|sequence| json!({SEQUENCE: sequence}));
    json!({"metadata": {"name": "outrider-injector", "resourceVersion": "7", "annotations": annotations}, "webhooks": webhooks})
}

fn stepped(found: &Value, serving: &Serving) -> Step {
    step(&serde_json::from_value(found.clone()).unwrap(), &registration(), serving)
}

/// The configuration after the change.
fn changed(found: &Value, serving: &Serving) -> Value {
    let Step::Change(patch) = stepped(found, serving) else { panic!("nothing to change") };
    let mut changed = found.clone();
    if changed["metadata"]["annotations"].is_null() {
        changed["metadata"].as_object_mut().unwrap().shift_remove("annotations");
    }
    json_patch::patch(&mut changed, &patch).unwrap();
    changed
}

#[test]
fn each_webhook_that_leads_to_us_gets_the_roots_and_no_other() {
    let ours = "outrider-injector";
    let before =
        configuration(&[webhook(ours, None), webhook("other", Some("x")), webhook(ours, Some("old"))], None);
    let serving = serving("roots", 3);
    let after = changed(&before, &serving);
    let webhooks =
        json!([webhook(ours, Some("roots")), webhook("other", Some("x")), webhook(ours, Some("roots"))]);
    assert_eq!(after["webhooks"], webhooks);
    assert_eq!(after["metadata"]["annotations"][SEQUENCE], "3");
    assert_eq!(stepped(&after, &serving), Step::None, "a second replica has nothing to do");
}

#[test]
fn nobody_goes_back_to_older_roots() {
    let (old, new) = (pem(&["MIIA1"]), pem(&["MIIB2"]));
    let found = configuration(&[webhook("outrider-injector", Some(&(old.clone() + &new)))], Some("4"));
    assert_eq!(stepped(&found, &serving(&old, 3)), Step::None);
    assert!(matches!(stepped(&found, &serving(&new, 5)), Step::Change(_)));
    assert!(
        matches!(stepped(&found, &serving(&pem(&["MIIC3"]), 1)), Step::Change(_)),
        "another CA counts anew"
    );
    // Somebody has emptied it: older roots are better than none.
    let emptied = configuration(&[webhook("outrider-injector", None)], Some("4"));
    assert!(matches!(stepped(&emptied, &serving(&old, 3)), Step::Change(_)));
}

#[test]
fn roots_without_a_sequence_are_compared_alone() {
    let found = configuration(&[webhook("outrider-injector", Some("old"))], None);
    let after = changed(&found, &serving("new", 0));
    assert_eq!(after["metadata"].get("annotations"), None);
}

#[test]
fn a_configuration_that_leads_elsewhere_is_left_alone() {
    let found = configuration(&[webhook("other", None)], None);
    assert_eq!(stepped(&found, &serving("roots", 1)), Step::NotOurs);
}

#[test]
fn what_has_changed_meanwhile_is_not_changed() {
    let found = configuration(&[webhook("outrider-injector", None)], None);
    let Step::Change(patch) = stepped(&found, &serving("roots", 1)) else { panic!() };
    let mut newer = found;
    newer["metadata"]["resourceVersion"] = json!("8");
    assert!(json_patch::patch(&mut newer, &patch).is_err());
}
