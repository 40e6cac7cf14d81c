//! Replicas of the CA share what is in one Secret, and judge tokens by the API server alone.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use outrider_certs::{
    TrustBundle,
    ca::{CaState, NewCa},
};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    AUDIENCE, Cluster, NAMESPACE,
    client::{ask, bundle, refusal},
    domain,
};
use crate::{
    harness::api_server::{API_AUDIENCE, Account},
    processes::{run, until},
};

const HOUR: Duration = Duration::from_secs(3600);

/// What the Secret of the CA holds.
fn state(cluster: &Cluster) -> Value {
    let secret = cluster.api.object("secrets", NAMESPACE, "outrider-ca").unwrap();
    let text = secret["data"]["ca.json"].as_str().unwrap();
    serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap()
}

/// Puts that there instead.
fn put_state(cluster: &Cluster, state: &Value) {
    let text = STANDARD.encode(state.to_string());
    cluster.api.put(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "outrider-ca", "namespace": NAMESPACE},
        "data": {"ca.json": text},
    }));
}

#[test]
fn two_that_start_at_once_are_one_ca() {
    run(async {
        let cluster = Cluster::start().await;
        let (one, other) = (cluster.start_ca(1, &[]), cluster.start_ca(2, &[]));
        let (one, other) = tokio::join!(one.listening(), other.listening());
        let roots = cluster.bundle().await;
        assert_eq!(roots.roots().len(), 1);
        let creations = cluster.api.calls();
        let creations =
            creations.iter().filter(|call| call.verb == "create" && call.resource == "secrets").count();
        assert!((1..=2).contains(&creations), "{creations}");
        assert_eq!(cluster.api.objects("secrets").len(), 1);
        for (ca, account) in [(&one, "orders"), (&other, "web")] {
            let token = cluster.token("shop", account, AUDIENCE);
            let (svid, issued) = ask(ca.address, &roots, None, Some(&token)).await.unwrap();
            assert_eq!(svid.id().as_str(), format!("spiffe://cluster.local/ns/shop/sa/{account}"));
            assert_eq!(issued.root.as_ref(), roots.roots().first());
            let line = ca.issued().pop().unwrap();
            let uid =
                &cluster.api.object("pods", "shop", &format!("{account}-1")).unwrap()["metadata"]["uid"];
            assert_eq!(
                (&line["proof"], &line["spiffe_id"]),
                (&json!("service_account"), &json!(svid.id().as_str()))
            );
            assert_eq!((&line["pod"], &line["pod_uid"]), (&json!(format!("{account}-1")), uid));
        }
    });
}

#[test]
fn an_empty_secret_is_filled_and_a_foreign_one_is_not_touched() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.api.put(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "outrider-ca", "namespace": NAMESPACE},
        }));
        let (one, other) = (cluster.start_ca(1, &[]), cluster.start_ca(2, &[]));
        let (_one, _other) = tokio::join!(one.listening(), other.listening());
        assert_eq!(cluster.api.count("create", "secrets"), 0);
        let before = cluster.api.object("secrets", NAMESPACE, "outrider-ca").unwrap();
        assert_eq!(state(&cluster)["trust_domain"], "cluster.local");
        let mut third = cluster.start_ca(3, &["--trust-domain", "other.example"]);
        let status = third.process.exited(crate::processes::DEADLINE).await;
        assert!(!status.success());
        assert!(third.process.log().contains("--trust-domain"), "{}", third.process.log());
        assert_eq!(cluster.api.object("secrets", NAMESPACE, "outrider-ca").unwrap(), before);
    });
}

#[test]
fn every_replica_follows_the_secret() {
    run(async {
        let cluster = Cluster::start().await;
        let (one, other) = (cluster.start_ca(1, &[]), cluster.start_ca(2, &[]));
        let cas = [one.listening().await, other.listening().await];
        let old = cluster.bundle().await;
        // Another root signs from now on; the old one is still trusted.
        let folder = cluster.folder.path().join("another");
        let new = NewCa { trust_domain: domain(), root_lifetime: 1000 * HOUR };
        CaState::init(&folder, &new, SystemTime::now()).unwrap();
        let another: Value = serde_json::from_slice(&std::fs::read(folder.join("ca.json")).unwrap()).unwrap();
        let mut changed = state(&cluster);
        changed["roots"].as_array_mut().unwrap().insert(0, another["roots"][0].clone());
        changed["sequence"] = 2.into();
        put_state(&cluster, &changed);
        let both = cluster.bundle().await;
        assert_eq!(both.roots().len(), 2);
        for ca in &cas {
            until("the replica publishes both roots", async || {
                bundle(ca.address, &both).await.is_ok_and(|found| found.sequence() == 2)
            })
            .await;
            let token = cluster.token("shop", "orders", AUDIENCE);
            let (_svid, issued) = ask(ca.address, &both, None, Some(&token)).await.unwrap();
            assert_eq!(issued.root.as_ref(), both.roots().first());
            // Its own certificate is of the new root, too.
            let first = TrustBundle::new(domain(), vec![both.roots()[0].clone()], 0, None).unwrap();
            assert_eq!(bundle(ca.address, &first).await.unwrap().roots().len(), 2);
            assert!(bundle(ca.address, &old).await.is_err());
        }
        // What cannot be used leaves the last good in place.
        put_state(&cluster, &json!({"nonsense": true}));
        for ca in &cas {
            until("it says so", async || ca.process.log().contains("goes on with the keys it has")).await;
            let token = cluster.token("shop", "orders", AUDIENCE);
            ask(ca.address, &both, None, Some(&token)).await.unwrap();
        }
    });
}

#[test]
fn a_token_is_good_for_its_audience_its_pod_and_its_service_account_alone() {
    run(async {
        let cluster = Cluster::start().await;
        let ca = cluster.ca(1, &[]).await;
        let roots = cluster.bundle().await;
        let address = ca.address;
        let refused = async |token: &str| refusal(address, &roots, None, Some(token)).await;

        let (code, why) = refused(&cluster.token("shop", "orders", API_AUDIENCE)).await;
        assert!(code == Code::Unauthenticated && why.contains("audience"), "{code:?} {why}");
        let (code, why) = refused("eyJhbGciOiJub25lIn0.e30.").await;
        assert!(code == Code::Unauthenticated && why.contains("not good"), "{code:?} {why}");
        let admin = Account {
            username: "somebody".to_owned(),
            ..Account::service_account("shop", "somebody", AUDIENCE)
        };
        let (code, why) = refused(&cluster.api.token(admin)).await;
        assert!(code == Code::PermissionDenied && why.contains("no service account"), "{code:?} {why}");
        let ca_itself = cluster.api.token(Account {
            username: "system:serviceaccount:a:b/../c".to_owned(),
            ..Account::service_account("a", "b", AUDIENCE)
        });
        assert_eq!(refused(&ca_itself).await.0, Code::PermissionDenied);

        let token = cluster.token("shop", "orders", AUDIENCE);
        let (svid, _issued) = ask(address, &roots, None, Some(&token)).await.unwrap();
        // Not by what it once got.
        let (code, why) = refusal(address, &roots, Some(&svid), None).await;
        assert!(code == Code::Unauthenticated && why.contains("service account's token"), "{code:?} {why}");
        // Every time anew.
        let reviews = cluster.api.count("create", "authentication.k8s.io/tokenreviews");
        ask(address, &roots, Some(&svid), Some(&token)).await.unwrap();
        ask(address, &roots, None, Some(&token)).await.unwrap();
        assert_eq!(cluster.api.count("create", "authentication.k8s.io/tokenreviews"), reviews + 2);
        cluster.api.remove("pods", "shop", "orders-1");
        let (code, why) = refused(&token).await;
        assert!(code == Code::Unauthenticated && why.contains("invalidated"), "{code:?} {why}");
        let log = super::logs(&cluster);
        assert!(
            log.contains("service_account_token")
                && !log.contains(&token)
                && !log.contains(&cluster.ca_token)
        );
    });
}

#[test]
fn an_api_server_that_is_away_or_silent_is_told_as_such() {
    run(async {
        let cluster = Cluster::start().await;
        let ca = cluster.ca(1, &[]).await;
        let roots = cluster.bundle().await;
        let token = cluster.token("shop", "orders", AUDIENCE);
        cluster.api.refuse(Some((500, None)));
        assert_eq!(refusal(ca.address, &roots, None, Some(&token)).await.0, Code::Unavailable);
        cluster.api.refuse(None);
        cluster.api.stop().await;
        assert_eq!(refusal(ca.address, &roots, None, Some(&token)).await.0, Code::Unavailable);
        // Roots are told, and workloads that prove themselves otherwise are served.
        assert_eq!(bundle(ca.address, &roots).await.unwrap().roots(), roots.roots());
        cluster.api.start_again().await;
        ask(ca.address, &roots, None, Some(&token)).await.unwrap();
        cluster.api.delay(Duration::from_secs(3600));
        let (code, why) = refusal(ca.address, &roots, None, Some(&token)).await;
        assert!(code == Code::Unavailable && why.contains("no answer within"), "{code:?} {why}");
        cluster.api.delay(Duration::ZERO);
        // No right to review is nothing the caller can do about.
        cluster.api.remove("rbac.authorization.k8s.io/clusterrolebindings", "", "outrider-ca");
        let (code, why) = refusal(ca.address, &roots, None, Some(&token)).await;
        assert!(code == Code::Unavailable && why.contains("403"), "{code:?} {why}");
    });
}

#[test]
fn a_ca_waits_for_an_api_server_that_starts_later() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.api.stop().await;
        let ca = cluster.start_ca(1, &[]);
        until("it tries again", async || ca.process.log().contains("trying again")).await;
        cluster.api.start_again().await;
        let ca = ca.listening().await;
        let token = cluster.token("shop", "orders", AUDIENCE);
        ask(ca.address, &cluster.bundle().await, None, Some(&token)).await.unwrap();
    });
}

#[test]
fn a_namespace_that_is_not_there_is_told_as_such_and_waited_for() {
    run(async {
        let cluster = Cluster::start().await;
        // An administrator's rights: the CA's own go with its namespace.
        cluster.api.kubeconfig(cluster.folder.path(), cluster.api.admin_token());
        let namespace = cluster.api.object("namespaces", "", NAMESPACE).expect("it is there");
        cluster.api.remove("namespaces", "", NAMESPACE);
        let ca = cluster.start_ca(1, &[]);
        until("it says why", async || ca.process.log().contains("there is no namespace outrider")).await;
        cluster.api.put(namespace);
        ca.listening().await;
    });
}

#[test]
fn the_webhook_gets_a_dns_name_beside_its_id() {
    run(async {
        let cluster = Cluster::start().await;
        let name = "outrider-injector.outrider.svc";
        let given = format!("spiffe://cluster.local/ns/outrider/sa/outrider-injector={name}");
        let ca = cluster.ca(1, &["--dns-name", &given]).await;
        let roots = cluster.bundle().await;
        for (account, expected) in [("outrider-injector", true), ("outrider-controller", false)] {
            let token = cluster.token(NAMESPACE, account, AUDIENCE);
            let (svid, _issued) = ask(ca.address, &roots, None, Some(&token)).await.unwrap();
            let leaf = webpki::EndEntityCert::try_from(svid.chain().first().unwrap()).unwrap();
            let names: Vec<_> = leaf.valid_dns_names().collect();
            assert_eq!(names.contains(&name), expected, "{names:?}");
        }
    });
}
