//! Certificates: the right one, the wrong one, and another one under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Caller, Files, SERVER_NAME, Webhook, ca_bundle, configuration, pod, ready, review};
use crate::harness::{TestCa, api_server::ApiServer, ca::Wrong, eventually};
use outrider_injector::webhook::Limits;

#[tokio::test]
async fn who_does_not_believe_the_roots_sends_nothing() {
    let (_api, _ca, _files, webhook) = ready().await;
    let stranger = Caller::new(webhook.address, &outrider_certs::pem::certificate(&TestCa::new().root()));
    let error = stranger.connect(b"h2").await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
}

#[tokio::test]
async fn plaintext_gets_no_answer() {
    let (_api, _ca, _files, webhook) = ready().await;
    let (status, _) = super::get(webhook.address, "/inject").await;
    assert_eq!(status, 0);
}

#[tokio::test]
async fn a_certificate_that_the_api_server_would_not_believe_is_never_used() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    let files = Files::new(&ca);
    // Another name, out of its time, of another root, a key that does not fit: each is worse than none.
    for leaf in [
        ca.web_leaf("other.outrider.svc"),
        ca.wrong_web(Wrong::Expired, SERVER_NAME),
        TestCa::new().web_leaf(SERVER_NAME),
    ] {
        files.write(&leaf, &[&ca]);
        let webhook = Webhook::start(&api, &files, Limits::default()).await;
        // Whether there is one is known before the API server's version is.
        let without_version = async {
            while webhook.ready().await.1.contains("version") {
                tokio::task::yield_now().await;
            }
        };
        crate::harness::soon("the version is known", without_version).await;
        let (status, text) = webhook.ready().await;
        assert!(status == 503 && text.contains("certificate"), "{text}");
        assert_eq!(ca_bundle(&api), None);
    }
    files.write(&ca.web_leaf(SERVER_NAME), &[&ca]);
    files.put("tls.key", &ca.web_leaf(SERVER_NAME).key_pem());
    let webhook = Webhook::start(&api, &files, Limits::default()).await;
    assert!(webhook.ready().await.1.contains("certificate"));
    // Mended, it begins without a restart.
    files.write(&ca.web_leaf(SERVER_NAME), &[&ca]);
    webhook.until_ready().await;
    assert_eq!(webhook.caller(&api).ask(&review(&pod())).await["allowed"], true);
}

#[tokio::test]
async fn a_broken_file_leaves_the_last_good_certificate_in_use() {
    let (api, ca, files, webhook) = ready().await;
    let before = ca_bundle(&api);
    files.put("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    std::fs::remove_file(files.path("ca.crt")).unwrap();
    for _ in 0..20 {
        assert_eq!(webhook.caller(&api).ask(&review(&pod())).await["allowed"], true);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!((webhook.ready().await.0, ca_bundle(&api)), (200, before));
    files.write(&ca.web_leaf(SERVER_NAME), &[&ca]);
    webhook.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_and_certificates_change_under_way_and_no_question_fails() {
    let (api, old, files, webhook) = ready().await;
    let new = TestCa::new();
    let (api, webhook) = (Arc::new(api), Arc::new(webhook));
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (api, webhook, is_over) = (Arc::clone(&api), Arc::clone(&webhook), Arc::clone(&is_over));
        async move {
            let mut asked = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                // As the API server: by the configuration that it knows at that moment.
                assert_eq!(webhook.caller(&api).ask(&review(&pod())).await["allowed"], true);
                asked += 1;
            }
            asked
        }
    });
    let has = |api: &ApiServer, cas: &[&TestCa]| {
        let roots: String = cas.iter().map(|ca| outrider_certs::pem::certificate(&ca.root())).collect();
        ca_bundle(api) == Some(roots)
    };
    files.write_roots(&[&old, &new]);
    eventually("both roots are believed", || has(&api, &[&old, &new])).await;
    files.write(&new.web_leaf(SERVER_NAME), &[&old, &new]);
    // What is of the new root alone is believed by who knows that alone.
    let only_new = Caller::new(webhook.address, &outrider_certs::pem::certificate(&new.root()));
    let mut is_new = false;
    for _ in 0..2_000 {
        is_new = only_new.connect(b"h2").await.is_ok();
        if is_new {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(is_new, "the new certificate is in use");
    files.write_roots(&[&new]);
    eventually("the old root is gone", || has(&api, &[&new])).await;
    is_over.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 10);
}

#[tokio::test]
async fn a_new_certificate_ends_old_connections_gently() {
    let (api, ca, files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let mut idle = caller.raw(b"").await;
    files.write(&ca.web_leaf(SERVER_NAME), &[&ca]);
    let ended = tokio::io::AsyncReadExt::read_u8(&mut idle);
    assert!(crate::harness::soon("the idle connection is ended", ended).await.is_err());
    assert_eq!(webhook.caller(&api).ask(&review(&pod())).await["allowed"], true);
}
