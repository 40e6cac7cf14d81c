//! `check` as a gate: it lets nothing start without rules that hold.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use super::{
    namespace::{Host, claim, ip, nft, packets, ran},
    program::{Door, INBOUND, Intercept, OUTBOUND, network},
};

/// A gate that waits for long is none.
const LIMIT: Duration = Duration::from_secs(8);

#[track_caller]
fn fails(intercept: &Intercept, why: &str) {
    let started = Instant::now();
    let said = intercept.bad("check");
    assert!(said.contains(why), "not because {why:?}: {said}");
    assert!(said.contains("interception does NOT work"), "{said}");
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
}

#[test]
fn with_all_rules_the_gate_opens_and_without_any_it_does_not() {
    claim(&[], async || {
        network();
        for mode in ["redirect", "tproxy"] {
            let intercept = Intercept::new(
                mode,
                "except_ports: [80], except_cidrs: [192.0.2.0/24]",
                "except_ports: [80]",
            );
            fails(&intercept, "no rules are loaded");
            intercept.good("apply");
            let said = intercept.good("check");
            assert!(said.contains("connections by IPv4 and IPv6 keep to them"), "{said}");
            intercept.good("remove");
            fails(&intercept, "no rules are loaded");
        }
    });
}

/// The handle of the first rule of a chain in which a word stands.
fn handle(chain: &str, word: &str) -> String {
    let listed = ran(Command::new("nft").args(["-a", "list", "chain", "inet", "outrider", chain]));
    let rule =
        listed.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word} in {listed}"));
    rule.rsplit("# handle ").next().expect("a handle").to_owned()
}

#[test]
fn each_rule_that_is_missing_keeps_the_gate_shut() {
    claim(&[], async || {
        network();
        let intercept = Intercept::new("redirect", "except_ports: [25]", "");
        for (chain, word) in [
            ("outbound", "redirect"),
            ("outbound", "goto own"),
            ("outbound", "fib daddr"),
            ("own", "ip6 dscp"),
            ("own", "redirect"),
            ("excepted", "tcp dport"),
            ("inbound", "redirect"),
            ("inbound", "drop"),
            ("leaving", "drop"),
            ("received", "counter"),
        ] {
            intercept.good("apply");
            intercept.good("check");
            let handle = handle(chain, word);
            nft(&format!("delete rule inet outrider {chain} handle {handle}"));
            fails(&intercept, &format!("the table lacks: chain {chain}: "));
        }
        intercept.good("apply");
        intercept.set("redirect", "except_ports: [26]", "");
        fails(&intercept, "outbound_port_26");
    });
}

#[test]
fn rules_of_others_that_take_connections_away_keep_it_shut() {
    claim(&[], async || {
        network();
        let intercept = Intercept::redirect();
        intercept.good("apply");
        intercept.good("check");
        nft("table inet other { chain c { type nat hook output priority -110;
             tcp dport 80 redirect to :9 ; } ; }");
        fails(&intercept, "an app's connection is redirected to port 4340 (chain outbound)");
        nft("delete table inet other");
        nft("table inet other { chain c { type filter hook output priority 400; tcp dport 4340 drop ; } ; }");
        fails(&intercept, "it was not made in a second");
        nft("delete table inet other");
        nft(
            "table inet other { chain c { type filter hook input priority 0; tcp dport 4343 reject with tcp reset ; } ; }",
        );
        fails(&intercept, "a self-call is redirected to port 4343 (chain own)");
    });
}

#[test]
fn routing_that_takes_the_apps_answers_away_keeps_it_shut() {
    claim(&[], async || {
        network();
        let intercept = Intercept::new("tproxy", "", "");
        intercept.good("apply");
        intercept.good("check");
        ip("rule add pref 7 fwmark 0x4f520000 unreachable");
        fails(&intercept, "the app's answers to a client's address come back to us (chain answers, routing)");
        ip("rule del pref 7");
        intercept.good("check");
        ip("route flush table 4343");
        fails(&intercept, "routing lacks: ip -4 route replace local default dev lo table 4343");
    });
}

#[test]
fn beside_a_sidecar_that_listens_the_gate_opens_too() {
    claim(&[], async || {
        network();
        let intercept = Intercept::redirect();
        intercept.good("apply");
        let _sidecar = [OUTBOUND, INBOUND].map(|port| Door::on(&format!("[::]:{port}")));
        intercept.good("check");
        nft("flush chain inet outrider outbound");
        fails(&intercept, "the table lacks");
    });
}

#[test]
fn where_nothing_can_be_tried_it_stays_shut() {
    claim(&[], async || {
        let intercept = Intercept::redirect();
        intercept.good("apply");
        fails(&intercept, "there is no way out of this namespace");
    });
}

#[test]
fn no_packet_of_a_check_leaves_the_namespace() {
    claim(&[], async || {
        let host = Host::joined().await;
        host.run(|| {
            nft("table inet seen { counter n { } ; chain c { type filter hook prerouting priority -400;
                 meta l4proto tcp counter name n ; } ; }");
        });
        ip("route add default via 10.43.0.2");
        ip("-6 route add default via fd43::2");
        for mode in ["redirect", "tproxy"] {
            let intercept = Intercept::new(mode, "", "");
            intercept.good("apply");
            intercept.good("check");
        }
        assert_eq!(host.run(|| packets("seen", "n")), 0);
    });
}
