//! Settings → rules, in nft's language: pure.
//!
//! ```text
//!  begins here ─▶ outbound ─┬─ ours ─▶ own ─┬─ to another ─────────────────────────▶ leaves
//!                           │               ├─ to the app (DSCP), or by loopback ──▶ stays
//!                           │               └─ to ourselves, as to any endpoint ───▶ our inbound port
//!                           ├─ to the namespace itself ────────────────────────────▶ stays
//!                           ├─ excepted: the connection is marked ─────────────────▶ leaves
//!                           └─ else ───────────────────────────────────────────────▶ our outbound port
//!  arrives ─▶ inbound ──────┬─ to our ports themselves ────────────────────────────▶ ours, who refuse it
//!                           ├─ excepted: the connection is marked ─────────────────▶ the app
//!                           └─ else ───────────────────────────────────────────────▶ our inbound port
//! ```
//! NAT chains see the first packet of a connection only. The chains `leaving` and `received` see every packet that goes
//! out or comes in, and count those of marked connections.
//!
//! What has no connection (out of its window, unknown, untracked) is not translated either: it would leave unencrypted,
//! or be answered with a reset in the name of a connection that lives. So it is dropped.

use ipnet::IpNet;

use super::Plan;
use crate::model::{
    exceptions::{Exception, Matched, Way},
    intercept::{APP_DSCP, Mode, Own, TPROXY_MARK},
};

/// The table that is ours; nothing else in the kernel's tables is ever touched.
pub(super) const TABLE: &str = "outrider";
/// The table by which the loaded rules are compared with what they should be; there only for moments, and dormant.
pub(super) const WANTED_TABLE: &str = "outrider_wanted";
/// The counter of packets that were dropped because they are of no connection.
const STRAY: &str = "stray";

/// What `apply` loads in one transaction: whatever was in our tables before, afterwards there is this.
pub(super) fn transaction(plan: &Plan) -> String {
    format!("{}{}", removal(), table(plan, TABLE))
}

/// Removes our tables, whether they are there or not: adding one that exists changes nothing.
pub(super) fn removal() -> String {
    [TABLE, WANTED_TABLE].map(removal_of).concat()
}

fn removal_of(name: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\n")
}

/// Loads the rules a second time, where they have no effect.
pub(super) fn wanted(plan: &Plan) -> String {
    format!("{}{}", removal_of(WANTED_TABLE), table(plan, WANTED_TABLE))
}

/// Removes them again.
pub(super) fn wanted_removal() -> String {
    removal_of(WANTED_TABLE)
}

fn table(plan: &Plan, name: &str) -> String {
    let dormant = if name == WANTED_TABLE { "    flags dormant\n" } else { "" };
    let counters: String = plan
        .exceptions
        .iter()
        .map(|exception| format!("    counter {} {{ }}\n", counter(exception)))
        .collect();
    let inbound = match plan.settings.mode {
        Mode::Redirect => redirected(plan),
        Mode::Tproxy => proxied(plan),
    };
    let chains = [outbound(plan), exceptions(plan), inbound, counted(plan)].concat();
    format!("table inet {name} {{\n{dormant}{counters}    counter {STRAY} {{ }}\n{chains}}}\n")
}

/// Chains for what begins in the namespace.
fn outbound(plan: &Plan) -> String {
    let settings = &plan.settings;
    let (port, inbound_port) = (settings.outbound.port, settings.inbound.port);
    let (own, excepted) = (own(plan), matches(plan, Way::Outbound));
    format!(
        r#"    # Connections that begin here. The namespace's business with itself stays in it.
    chain outbound {{
        type nat hook output priority -100; policy accept;
        meta l4proto != tcp accept
        {own} goto own
        oifname "lo" accept
        fib daddr type local accept
{excepted}        meta l4proto tcp redirect to :{port}
    }}
    # Our own connections. One to the app has a DSCP; one to ourselves, as to any endpoint, comes in as a peer's would.
    chain own {{
        fib daddr type != local accept
        ip daddr 127.0.0.0/8 accept
        ip6 daddr ::1 accept
        ip dscp {APP_DSCP} accept
        ip6 dscp {APP_DSCP} accept
        jump excepted
        meta l4proto tcp redirect to :{inbound_port}
    }}
"#
    )
}

/// What is not redirected to the inbound port.
fn exceptions(plan: &Plan) -> String {
    let (outbound, inbound) = (plan.settings.outbound.port, plan.settings.inbound.port);
    let excepted = matches(plan, Way::Inbound);
    format!(
        "    chain excepted {{
        tcp dport {{ {outbound}, {inbound} }} accept
{excepted}    }}
"
    )
}

/// The chain for what arrives, with its destination rewritten. Something from outside that is for 127.0.0.1 must not be
/// given an address by which it gets in.
fn redirected(plan: &Plan) -> String {
    let port = plan.settings.inbound.port;
    format!(
        r#"    # Connections from the network.
    chain inbound {{
        type nat hook prerouting priority -100; policy accept;
        meta l4proto != tcp accept
        iifname "lo" accept
        fib daddr type != local accept
        ip daddr 127.0.0.0/8 drop
        jump excepted
        meta l4proto tcp redirect to :{port}
    }}
"#
    )
}

/// The same with the destination left as it is. Every packet comes by here, so those in answer to connections from here
/// are let through; without a listening socket there is a reset, as with a port where nobody listens.
///
/// The app's answers are for the client's address. They are given a mark, by which they are routed to the namespace.
fn proxied(plan: &Plan) -> String {
    let port = plan.settings.inbound.port;
    format!(
        r#"    # Connections from the network.
    chain inbound {{
        type filter hook prerouting priority -150; policy accept;
        meta l4proto != tcp accept
        iifname "lo" accept
        fib daddr type != local accept
        ip daddr 127.0.0.0/8 drop
        ct state invalid,untracked counter name {STRAY} drop
        # What the network sends into our connections to the app.
        ct mark {TPROXY_MARK:#x} counter name {STRAY} drop
        ct direction reply accept
        jump excepted
        meta l4proto tcp tproxy to :{port} accept
        meta l4proto tcp reject with tcp reset
    }}
    # Our connections to the app that have the client's address, and the app's answers, which stay here.
    chain answers {{
        type route hook output priority -150; policy accept;
        meta l4proto != tcp accept
        fib saddr type != local fib daddr type local ct mark set {TPROXY_MARK:#x} accept
        ct direction reply ct mark {TPROXY_MARK:#x} meta mark set {TPROXY_MARK:#x}
    }}
"#
    )
}

/// Chains that see every packet: connections that are marked are counted, packets without a connection dropped.
fn counted(plan: &Plan) -> String {
    let own = own(plan);
    let marks: Vec<_> = plan
        .exceptions
        .iter()
        .map(|exception| format!("{:#x} : \"{}\"", exception.mark, counter(exception)))
        .collect();
    let count = if marks.is_empty() {
        String::new()
    } else {
        format!("        counter name ct mark map {{ {} }}\n", marks.join(", "))
    };
    format!(
        r#"    # What is in no connection would leave as it is; what passes an exception is counted.
    chain leaving {{
        type filter hook output priority 300; policy accept;
        meta l4proto != tcp accept
        oifname "lo" accept
{count}        {own} accept
        ct state invalid,untracked counter name {STRAY} drop
    }}
    chain received {{
        type filter hook input priority 300; policy accept;
        meta l4proto != tcp accept
        iifname "lo" accept
{count}        ct state invalid,untracked counter name {STRAY} drop
    }}
"#
    )
}

fn own(plan: &Plan) -> String {
    match plan.settings.own {
        Own::Uid(uid) => format!("meta skuid {uid}"),
        Own::Mark(mark) => format!("meta mark {mark:#x}"),
    }
}

/// Rules for the exceptions of one way: users and ports are looked up at once, ranges, which may lie within each other, one
/// after the other.
fn matches(plan: &Plan, way: Way) -> String {
    let mut text = String::new();
    let of_way = || plan.exceptions.iter().filter(|exception| exception.way == way);
    for (key, of) in [("meta skuid", uid as fn(Matched) -> Option<u32>), ("tcp dport", port)] {
        let marks: Vec<_> = of_way()
            .filter_map(|exception| Some(format!("{} : {:#x}", of(exception.matched)?, exception.mark)))
            .collect();
        if !marks.is_empty() {
            text.push_str(&format!("        ct mark set {key} map {{ {} }} accept\n", marks.join(", ")));
        }
    }
    for exception in of_way() {
        if let Matched::Cidr(cidr) = exception.matched {
            let family = if matches!(cidr, IpNet::V4(_)) { "ip" } else { "ip6" };
            let end = if way == Way::Outbound { "daddr" } else { "saddr" };
            text.push_str(&format!(
                "        {family} {end} {cidr} ct mark set {:#x} accept\n",
                exception.mark
            ));
        }
    }
    text
}

fn uid(matched: Matched) -> Option<u32> {
    match matched {
        Matched::Uid(uid) => Some(uid),
        Matched::Port(_) | Matched::Listener(_) | Matched::Cidr(_) => None,
    }
}

fn port(matched: Matched) -> Option<u32> {
    match matched {
        Matched::Port(port) | Matched::Listener(port) => Some(port.into()),
        Matched::Uid(_) | Matched::Cidr(_) => None,
    }
}

/// The name of an exception's counter: its own, in the letters that nft allows in a name.
pub(super) fn counter(exception: &Exception) -> String {
    exception.to_string().replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{exceptions::from_parts, fixture};

    fn plan(mode: Mode, own: Own) -> Plan {
        let settings = fixture::intercept(mode, own);
        let exceptions = from_parts(&settings, std::iter::empty());
        Plan { settings, exceptions }
    }

    /// A chain's rules, without what is before and behind them.
    fn chain(text: &str, name: &str) -> Vec<String> {
        let (_, rest) = text.split_once(&format!("    chain {name} {{\n")).unwrap();
        let (rules, _) = rest.split_once("\n    }").unwrap();
        rules.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn mark(plan: &Plan, name: &str) -> String {
        let found = plan.exceptions.iter().find(|exception| exception.to_string() == name);
        format!("{:#x}", found.unwrap().mark)
    }

    #[test]
    fn the_table_is_replaced_in_the_transaction_that_loads_it() {
        let text = transaction(&plan(Mode::Redirect, Own::Uid(4343)));
        assert!(text.starts_with("add table inet outrider\ndelete table inet outrider\n"));
        assert_eq!(text.matches("table inet outrider {").count(), 1);
        assert!(!text.contains("flush") && !text.contains("dormant"));
    }

    #[test]
    fn what_begins_here_is_redirected_but_for_our_own_local_and_excepted() {
        let plan = plan(Mode::Redirect, Own::Uid(4343));
        let of = |name: &str| mark(&plan, name);
        assert_eq!(
            chain(&transaction(&plan), "outbound"),
            [
                "type nat hook output priority -100; policy accept;".to_owned(),
                "meta l4proto != tcp accept".to_owned(),
                "meta skuid 4343 goto own".to_owned(),
                "oifname \"lo\" accept".to_owned(),
                "fib daddr type local accept".to_owned(),
                format!("ct mark set meta skuid map {{ 7 : {} }} accept", of("outbound_uid_7")),
                format!(
                    "ct mark set tcp dport map {{ 25 : {}, 3306 : {} }} accept",
                    of("outbound_port_25"),
                    of("outbound_port_3306")
                ),
                format!("ip daddr 10.8.0.0/16 ct mark set {} accept", of("outbound_cidr_10.8.0.0/16")),
                format!("ip6 daddr fd08::/16 ct mark set {} accept", of("outbound_cidr_fd08::/16")),
                "meta l4proto tcp redirect to :4340".to_owned(),
            ]
        );
    }

    #[test]
    fn what_arrives_is_redirected_but_for_exceptions_and_our_ports() {
        let plan = plan(Mode::Redirect, Own::Uid(4343));
        let text = transaction(&plan);
        let inbound = chain(&text, "inbound");
        assert_eq!(inbound.last().unwrap(), "meta l4proto tcp redirect to :4343");
        assert!(inbound.contains(&"jump excepted".to_owned()));
        let excepted = chain(&text, "excepted");
        assert_eq!(excepted.first().unwrap(), "tcp dport { 4340, 4343 } accept");
        assert!(excepted.contains(&format!(
            "ip6 saddr fd09::/16 ct mark set {} accept",
            mark(&plan, "inbound_cidr_fd09::/16")
        )));
    }

    #[test]
    fn our_own_are_known_by_user_or_mark() {
        let by_mark = transaction(&plan(Mode::Redirect, Own::Mark(0x1092)));
        assert!(by_mark.contains("meta mark 0x1092 goto own") && !by_mark.contains("skuid 4343"));
        assert!(transaction(&plan(Mode::Redirect, Own::Uid(5))).contains("meta skuid 5 goto own"));
    }

    #[test]
    fn transparent_proxying_fails_closed_and_keeps_the_apps_answers_here() {
        let text = transaction(&plan(Mode::Tproxy, Own::Uid(4343)));
        let inbound = chain(&text, "inbound");
        assert!(inbound.ends_with(&[
            "meta l4proto tcp tproxy to :4343 accept".to_owned(),
            "meta l4proto tcp reject with tcp reset".to_owned()
        ]));
        assert!(chain(&text, "answers").last().unwrap().ends_with("meta mark set 0x4f520000"));
    }

    #[test]
    fn without_exceptions_nothing_is_counted() {
        let mut plan = plan(Mode::Redirect, Own::Uid(4343));
        plan.exceptions.clear();
        let text = transaction(&plan);
        assert!(!text.contains("map") && !text.contains("ct mark"), "{text}");
    }

    #[test]
    fn names_of_counters_are_in_letters_that_nft_takes() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
        for exception in plan(Mode::Redirect, Own::Uid(4343)).exceptions {
            assert!(counter(&exception).chars().all(is_plain), "{exception}");
        }
    }
}
