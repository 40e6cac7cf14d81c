//! `x-forwarded-client-cert`: replaced, appended to, or off.

use super::{Callee, VERSIONS, send};
use crate::harness::{Client, HttpApp, TestMesh, ca::id};

/// Who called a gateway, as its app has it.
const BROWSER: &str = "By=spiffe://test.outrider/gateway;URI=spiffe://other.example/browser";

fn ours() -> String {
    format!("By={};URI={}", id("orders"), id("web"))
}

#[tokio::test]
async fn the_callee_says_who_called_and_passes_a_chain_on_only_where_it_is_told_to() {
    let ours = ours();
    let chain = format!("{BROWSER},{ours}");
    for (word, expected) in [("replace", Some(&ours)), ("append", Some(&chain)), ("off", None)] {
        let callee = Callee::new(&format!("forwarded: {{client_cert: {word}}}")).await;
        let seen = callee.seen_of(&[("x-forwarded-client-cert", BROWSER)]).await;
        assert_eq!(seen.header("x-forwarded-client-cert"), expected.map(String::as_str), "{word}");
    }
}

#[tokio::test]
async fn the_last_element_is_certain_whatever_stands_before_it() {
    let callee = Callee::new("forwarded: {client_cert: append}").await;
    for said in ["", "URI=\"open", "URI=\"open\\\"", "a,,b", "URI=\"spiffe://x/a,b\""] {
        let seen = callee.seen_of(&[("x-forwarded-client-cert", said)]).await;
        let told = seen.header("x-forwarded-client-cert").unwrap();
        assert!(told.ends_with(&ours()), "{said}: {told}");
        let before = told.strip_suffix(&ours()).unwrap();
        assert_eq!(before.matches('"').count() % 2, 0, "{said}: {told}");
        assert!(before.is_empty() || before.ends_with(','), "{said}: {told}");
    }
}

#[tokio::test]
async fn the_own_apps_word_goes_to_the_mesh_only_where_that_is_wanted_and_never_out_of_it() {
    for (word, passes) in [("replace", false), ("append", true), ("off", false)] {
        let callee = Callee::new("forwarded: {client_cert: append}").await;
        let outside = HttpApp::echo().await;
        let yaml = format!(
            "forwarded: {{client_cert: {word}}}\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}, \
             {{name: outside, tls: none, endpoints: [{{address: '{}'}}]}}]",
            TestMesh::cluster("orders", &[callee.orders.address()], ""),
            outside.address(),
        );
        let web = callee.mesh.start("web", &yaml).await;
        for version in VERSIONS {
            let mut client = Client::connect(web.address(), version).await;
            let said = ("x-forwarded-client-cert", BROWSER);
            assert_eq!(send(&mut client, &[said]).await.status(), 200);
            assert_eq!(send(&mut client, &[said, ("host", "outside")]).await.status(), 200);
        }
        let expected = if passes { format!("{BROWSER},{}", ours()) } else { ours() };
        for seen in callee.app.seen() {
            assert_eq!(seen.header("x-forwarded-client-cert"), Some(&*expected), "{word}");
        }
        assert!(outside.seen().iter().all(|seen| seen.header("x-forwarded-client-cert").is_none()), "{word}");
        assert_eq!((callee.app.count(), outside.count()), (2, 2));
    }
}
