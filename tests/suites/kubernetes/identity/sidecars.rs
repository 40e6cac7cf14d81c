//! Sidecars that prove themselves by their pod's token.

use std::path::PathBuf;

use http::Version;
use hyper::Method;
use outrider::admin;
use serde_json::Value;

use super::{AUDIENCE, Cluster};
use crate::{
    harness::{Client, HttpApp, body},
    processes::{
        mesh::Host,
        process::{Process, program},
        run, until,
    },
};

/// A sidecar of a pod.
struct Sidecar {
    account: &'static str,
    host: Host,
    folder: PathBuf,
    process: Process,
}

impl Sidecar {
    /// Writes token and bundle as the pod's volumes have them, and starts it. `more` is the rest of its configuration.
    async fn start(cluster: &Cluster, account: &'static str, number: u8, ca: &super::Ca, more: &str) -> Self {
        let folder = cluster.folder.path().join(account);
        std::fs::create_dir_all(&folder).unwrap();
        let host = cluster.host(number);
        cluster.write(&format!("{account}/token"), &cluster.token("shop", account, AUDIENCE));
        cluster.write(&format!("{account}/bundle.pem"), &cluster.bundle().await.to_pem());
        let config = format!(
            "service: {account}\ntrust_domain: cluster.local\nstate_dir: state\n\
             identity: {{ca: {{address: '{}', service_account_token_file: token, bundle_file: bundle.pem, validity: 10s}}}}\n\
             admin: {{socket: admin.sock, listen: '{}'}}\n{more}",
            ca.address,
            host.health(),
        );
        let file = cluster.write(&format!("{account}/outrider.yaml"), &config);
        let file = file.display().to_string();
        let process = Process::start(
            account,
            &program("outrider"),
            ["run", "--log-level", "debug", "--config", &file],
            &folder,
        );
        Self { account, host, folder, process }
    }

    /// What its admin socket says of its certificate.
    async fn certs(&self) -> Option<Value> {
        let answer = admin::call(&self.folder.join("admin.sock"), Method::GET, "/certs").await;
        answer.ok().map(|answer| answer.body)
    }

    async fn renewals(&self, what: &str) -> u64 {
        self.certs().await.and_then(|certs| certs["renewal"][what].as_u64()).unwrap_or(0)
    }

    async fn ready(mut self) -> Self {
        let id = format!("spiffe://cluster.local/ns/shop/sa/{}", self.account);
        until(&format!("{} has its identity", self.account), async || {
            assert!(!self.process.has_ended(), "it ended while starting");
            self.certs().await.is_some_and(|certs| certs["spiffe_id"] == *id)
        })
        .await;
        self
    }

    async fn until_renewed(&self) {
        let before = self.renewals("successes").await;
        until("it is renewed", async || self.renewals("successes").await > before).await;
    }

    async fn until_failing(&self, why: &str) {
        let before = self.renewals("failures").await;
        until(&format!("renewing fails with {why:?}"), async || {
            let certs = self.certs().await.unwrap_or_default();
            certs["renewal"]["failures"].as_u64() > Some(before) && certs["renewal"].to_string().contains(why)
        })
        .await;
    }
}

#[test]
fn a_pod_is_its_service_account_and_calls_another() {
    run(async {
        let cluster = Cluster::start().await;
        let cas = [cluster.ca(1, &[]).await, cluster.ca(2, &[]).await];
        let app = HttpApp::start(|_request| async { Ok(http::Response::new(body::full("hello"))) }).await;
        let inbound = cluster.host(20).inbound();
        let callee = format!(
            "inbound: [{{name: in, listen: '{inbound}', app: '{}', allow: ['spiffe://cluster.local/ns/shop/sa/web']}}]\n",
            app.address()
        );
        let callee = Sidecar::start(&cluster, "orders", 20, &cas[0], &callee).await;
        let outbound = cluster.host(10).outbound();
        let caller = format!(
            "outbound: [{{name: out, listen: '{outbound}'}}]\nclusters: [{{name: orders, \
             spiffe_ids: ['spiffe://cluster.local/ns/shop/sa/orders'], endpoints: [{{address: '{inbound}'}}]}}]\n",
        );
        let caller = Sidecar::start(&cluster, "web", 10, &cas[1], &caller).await;
        let (callee, caller) = (callee.ready().await, caller.ready().await);
        until("the call succeeds", async || {
            let mut client = Client::connect(caller.host.outbound(), Version::HTTP_11).await;
            client.get("/").await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        // A certificate of ten seconds is renewed with whatever token is there then.
        let first = std::fs::read_to_string(callee.folder.join("token")).unwrap();
        cluster.write("orders/token", &cluster.token("shop", "orders", AUDIENCE));
        cluster.api.revoke(&first);
        callee.until_renewed().await;
        callee.until_renewed().await;
        for sidecar in [&callee, &caller] {
            assert!(!sidecar.folder.join("state").exists(), "nothing is kept on disk");
        }
        let log = super::logs(&cluster);
        for secret in [&first, &std::fs::read_to_string(caller.folder.join("token")).unwrap(), "PRIVATE KEY"]
        {
            assert!(!log.contains(secret));
        }
    });
}

#[test]
fn a_pod_that_is_gone_is_not_renewed_and_outages_pass() {
    run(async {
        let cluster = Cluster::start().await;
        let mut ca = cluster.ca(1, &[]).await;
        let listener = format!("outbound: [{{name: out, listen: '{}'}}]\n", cluster.host(20).outbound());
        let orders = Sidecar::start(&cluster, "orders", 20, &ca, &listener).await.ready().await;
        cluster.api.stop().await;
        orders.until_failing("cannot be reviewed").await;
        cluster.api.start_again().await;
        orders.until_renewed().await;

        let good = cluster.token("shop", "orders", AUDIENCE);
        cluster.write("orders/token", &cluster.token("shop", "orders", "another"));
        orders.until_failing("audience").await;
        cluster.write("orders/token", "");
        orders.until_failing("does not hold a token").await;
        cluster.write("orders/token", &good);
        orders.until_renewed().await;

        // Another CA at the same address is not believed, whatever it would give.
        let bundle = std::fs::read_to_string(orders.folder.join("bundle.pem")).unwrap();
        ca.process.terminate();
        ca.process.exited(crate::processes::DEADLINE).await;
        cluster.api.remove("secrets", super::NAMESPACE, "outrider-ca");
        let _another = cluster.ca(1, &[]).await;
        orders.until_failing("is not a CA we trust").await;
        // Until its root is in the file.
        let new = cluster.bundle().await.to_pem();
        assert_ne!(new, bundle);
        cluster.write("orders/bundle.pem", &new);
        orders.until_renewed().await;

        cluster.api.remove("pods", "shop", "orders-1");
        orders.until_failing("invalidated").await;
    });
}
