//! Rules that bring back to a sidecar what it sends: it notices, and no connection goes round.

use std::net::SocketAddr;

use super::{
    namespace::{Host, claim, has_users, ip, nft, sysctl},
    sidecars::{
        CALLED, CLOSING, PORTS, Power, Sidecar, Sidecars, calls, fate, listener, own, seen_by_http, witness,
    },
};
use crate::processes::until;

/// Programs beside those that every claim takes.
const NEEDS: [&str; 2] = ["setpriv", "mount"];
/// An address that the other host has, where nobody listens.
const ELSEWHERE: [&str; 2] = ["10.43.0.2:9000", "[fd43::2]:9000"];

/// By user, redirection takes no capability; a mark takes one, and where there is but one user, that one has it.
fn power() -> Power {
    if has_users() { Power::None } else { Power::NetRaw }
}

fn loops(listener: &serde_json::Value) -> u64 {
    listener["refused"]["loop"].as_u64().expect("a number")
}

#[test]
fn a_connection_that_rules_bring_back_to_us_is_refused_and_does_not_go_round() {
    claim(&NEEDS, async || {
        let (_host, sidecars) = (Host::joined().await, Sidecars::new());
        for workers in [1, 4] {
            let rest = format!("workers: {workers}\nintercept: {{{}}}\n", own());
            let folder = sidecars.prepare(&format!("lonely-{workers}"), CALLED, &rest);
            // They leave nobody alone.
            nft("add table inet t ; delete table inet t ; table inet t { chain c { type nat hook output priority -100;
                 tcp dport 9000 redirect to :4340 ; } ; }");
            let sidecar = sidecars.start(&folder, power()).ready().await;
            const CALLS: u64 = 40;
            for number in 0..CALLS {
                let to =
                    ELSEWHERE[usize::try_from(number % 2).unwrap_or_default()].parse().expect("an address");
                let fate = tokio::task::block_in_place(|| fate(to));
                assert!(
                    fate.is_none_or(|text| text.is_empty() || text.contains("503")),
                    "the app hears of it"
                );
            }
            let listener = sidecar.listener("intercept-outbound").await;
            let accepted = listener["accepted"].as_u64().expect("a number");
            assert!(loops(&listener) >= CALLS, "{listener}");
            assert_eq!(accepted, CALLS + loops(&listener), "each came back once: {listener}");
            assert!(sidecar.process.log().contains("do not leave this process's connections alone"));
        }
    });
}

#[test]
fn a_connection_to_the_app_that_rules_bring_back_to_us_is_refused() {
    claim(&NEEDS, async || {
        let (host, sidecars) = (Host::joined().await, Sidecars::new());
        let [http, _tcp] = PORTS;
        let port = format!("{{port: {http}, protocol: http}}");
        let rest = format!("intercept: {{{}, inbound: {{ports: [{port}]}}}}\n", own());
        let folder = sidecars.prepare("called", CALLED, &rest);
        // They do not heed what the sidecar's connections to the app have.
        nft("table inet t { chain out { type nat hook output priority -100; tcp dport 8080 redirect to :4343 ; } ;
             chain in { type nat hook prerouting priority -100; iifname cable tcp dport 8080 redirect to :4343 ; } ; }");
        let called = sidecars.start(&folder, power()).ready().await;
        let targets = [("app", "http", SocketAddr::from(([10, 43, 0, 1], http)))];
        let folder = sidecars.prepare("caller", "web", &calls(&targets));
        let _caller = host.run(|| sidecars.start(&folder, Power::None)).ready().await;
        let fate = tokio::task::block_in_place(|| host.run(|| fate(listener(0))));
        assert!(fate.as_ref().is_some_and(|text| text.starts_with("HTTP/1.1 503")), "{fate:?}");
        let inbound = called.listener("intercept-inbound").await;
        assert!(loops(&inbound) > 0, "{inbound}");
        assert_eq!(inbound["accepted"].as_u64(), Some(1 + loops(&inbound)), "each came back once: {inbound}");
    });
}

/// Ports that all connections of a namespace come from: so few that each is used again and again.
const FEW_PORTS: &str = "40000 40063";
/// Connections in a row, by each of a few callers.
const ROUNDS: usize = 400;

#[test]
fn no_connection_of_others_is_taken_for_ours_however_often_ports_are_used_again() {
    claim(&NEEDS, async || {
        let (host, sidecars) = (Host::joined().await, Sidecars::new());
        // The app is on the other host, and the sidecar passes on to it what it does not know.
        host.run(witness);
        sysctl("net/ipv4/ip_local_port_range", FEW_PORTS);
        // Else ports would rest for a minute after each use.
        sysctl("net/ipv4/tcp_max_tw_buckets", "0");
        let folder = sidecars.prepare("lonely", "web", &format!("intercept: {{{}}}\n", own()));
        sidecars.apply(&folder);
        let sidecar = sidecars.start(&folder, power()).ready().await;
        let to = SocketAddr::from(([10, 43, 0, 2], CLOSING));
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..ROUNDS).for_each(|_| drop(seen_by_http(to, 1))));
                }
            });
        });
        let listener = sidecar.listener("intercept-outbound").await;
        assert_eq!(loops(&listener), 0, "{listener}");
        until("all are counted", async || accepted(&sidecar).await == 4 * ROUNDS as u64).await;
    });
}

async fn accepted(sidecar: &Sidecar) -> u64 {
    sidecar.listener("intercept-outbound").await["accepted"].as_u64().expect("a number")
}

#[test]
fn a_service_may_call_itself_through_its_own_sidecar() {
    claim(&NEEDS, async || {
        let (_host, sidecars) = (Host::joined().await, Sidecars::new());
        witness();
        ip("route add 10.96.0.0/24 dev cable");
        let [http, _tcp] = PORTS;
        let id = crate::processes::authority::id(CALLED);
        for mode in ["redirect", "tproxy"] {
            let rest = format!(
                "intercept: {{mode: {mode}, {}, inbound: {{ports: [{{port: {http}, protocol: http}}]}}}}\n\
                 clusters: [{{name: {CALLED}, spiffe_ids: [\"{id}\"], addresses: [\"10.96.0.10:80\"], protocol: http, \
                 endpoints: [{{address: \"10.43.0.1:{http}\"}}]}}]\n",
                own()
            );
            let folder = sidecars.prepare(mode, CALLED, &rest);
            sidecars.apply(&folder);
            let sidecar = sidecars.start(&folder, Power::NetRaw).ready().await;
            let to = "10.96.0.10:80".parse().expect("an address");
            let seen = tokio::task::block_in_place(|| seen_by_http(to, 3));
            assert!(seen.iter().all(|seen| seen.ip().to_string() == "10.43.0.1"), "{mode}: {seen:?}");
            let inbound = sidecar.listener("intercept-inbound").await;
            assert_eq!((inbound["accepted"].as_u64(), loops(&inbound)), (Some(1), 0), "{mode}: {inbound}");
        }
    });
}
