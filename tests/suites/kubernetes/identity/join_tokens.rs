//! Join tokens as Secrets: for machines outside the cluster.

use futures_util::future::join_all;
use outrider_certs::join_token::JoinToken;
use tonic::Code;

use super::{
    Cluster,
    client::{ask, refusal},
};
use crate::processes::{process::program, run};

const VM: &str = "spiffe://cluster.local/vm/db";

#[test]
fn of_many_uses_at_two_replicas_one_wins() {
    run(async {
        let cluster = Cluster::start().await;
        let cas = [cluster.ca(1, &[]).await, cluster.ca(2, &[]).await];
        let roots = cluster.bundle().await;
        let text = cluster.command(&["token", "--spiffe-id", VM]).await;
        let token = JoinToken::parse(&text).unwrap();
        assert_eq!(cluster.api.objects("secrets").len(), 2);
        let stored = cluster.api.objects("secrets").iter().map(ToString::to_string).collect::<String>();
        assert!(!stored.contains(token.bearer().as_str()));

        let bearer = token.bearer();
        let uses = (0..12).map(|number| ask(cas[number % 2].address, &roots, None, Some(&bearer)));
        let results = join_all(uses).await;
        let good: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(good.len(), 1, "{results:?}");
        assert_eq!(good[0].0.id().as_str(), VM);
        assert_eq!(cluster.api.objects("secrets").len(), 1, "it is gone");
        let (code, why) = refusal(cas[0].address, &roots, None, Some(&bearer)).await;
        assert!(code == Code::Unauthenticated && why.contains("join token"), "{code:?} {why}");
        // Whoever joined goes on by what it got.
        ask(cas[1].address, &roots, Some(&good[0].0), None).await.unwrap();
        let log = super::logs(&cluster);
        assert!(!log.contains(bearer.as_str()) && !log.contains("PRIVATE KEY"));
    });
}

#[test]
fn a_token_that_cannot_be_consumed_is_not_honoured() {
    run(async {
        let cluster = Cluster::start().await;
        let ca = cluster.ca(1, &[]).await;
        let roots = cluster.bundle().await;
        let token = JoinToken::parse(&cluster.command(&["token", "--spiffe-id", VM]).await).unwrap();
        cluster.api.refuse_if(|call| (call.verb == "delete").then_some(503));
        let (code, _why) = refusal(ca.address, &roots, None, Some(&token.bearer())).await;
        assert_eq!(code, Code::Unavailable);
        assert!(ca.issued().iter().all(|line| line["spiffe_id"] != VM), "nothing was signed");
        cluster.api.refuse(None);
        ask(ca.address, &roots, None, Some(&token.bearer())).await.unwrap();
    });
}

#[test]
fn a_service_account_has_no_join_token() {
    run(async {
        let cluster = Cluster::start().await;
        let _ca = cluster.ca(1, &[]).await;
        let id = "spiffe://cluster.local/ns/shop/sa/orders";
        let mut command = tokio::process::Command::new("/usr/bin/env");
        let output =
            command.args(cluster.ca_arguments(&["token", "--spiffe-id", id])).output().await.unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("service account"), "{error}");
        // A folder and a cluster are two places.
        let arguments = ["serve", "--kubernetes", "--dir", "x"];
        let both =
            tokio::process::Command::new(program("outrider-ca")).args(arguments).output().await.unwrap();
        assert!(!both.status.success());
        assert!(String::from_utf8_lossy(&both.stderr).contains("cannot be used with"));
    });
}
