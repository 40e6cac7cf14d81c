//! What is redirected and what is not: by connections, seen from both ends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::UdpSocket,
};

use super::{
    namespace::{Host, claim, has_users, ip, nft, packets, sysctl},
    program::{Caller, Door, INBOUND, Intercept, OUTBOUND, app, exchange, own},
};
use crate::{foreign::programs::say, processes::until};

/// Both addresses of the other host.
const THERE: [&str; 2] = ["10.43.0.2", "[fd43::2]"];
/// Both of ours.
const HERE: [&str; 2] = ["10.43.0.1", "[fd43::1]"];
/// What is sent each way to be counted.
const SENT: usize = 300_000;

fn at(address: &str, port: u16) -> String {
    format!("{address}:{port}")
}

fn doors() -> [Door; 2] {
    [OUTBOUND, INBOUND].map(|port| Door::on(&format!("[::]:{port}")))
}

fn door_there(host: &Host, port: u16) -> Door {
    host.run(|| Door::on(&format!("[::]:{port}")))
}

/// Counts TCP packets that arrive at a host.
fn count_at(host: &Host) {
    host.run(|| {
        nft("add table inet seen
             delete table inet seen
             table inet seen { counter n { } ; chain c { type filter hook prerouting priority -400;
             meta l4proto tcp counter name n ; } ; }");
    });
}

fn seen(host: &Host) -> u64 {
    host.run(|| packets("seen", "n"))
}

#[test]
fn what_leaves_is_redirected_and_our_own_is_not() {
    claim(&[], async || {
        let host = Host::joined().await;
        Intercept::redirect().good("apply");
        let ([outbound, inbound], there) = (doors(), door_there(&host, 80));
        for address in THERE {
            outbound.gets(app(), &at(address, 80));
            there.gets(own(), &at(address, 80));
            if has_users() {
                outbound.gets(Caller { uid: Some(65534), ..app() }, &at(address, 80));
            }
        }
        there.got_nothing();
        inbound.got_nothing();
    });
}

#[test]
fn what_comes_in_is_redirected_and_what_is_local_is_not() {
    claim(&[], async || {
        let host = Host::joined().await;
        Intercept::redirect().good("apply");
        let [outbound, inbound] = doors();
        let here = Door::on("[::]:8080");
        for address in HERE {
            host.run(|| inbound.gets(app(), &at(address, 8080)));
            here.gets(app(), &at(address, 8080));
            here.gets(Caller { dscp: Some(43), ..own() }, &at(address, 8080));
            // As to any other endpoint: it comes in as a peer's would.
            inbound.gets(own(), &at(address, 8080));
        }
        for loopback in ["127.0.0.1:8080", "127.1.2.3:8080", "[::1]:8080"] {
            here.gets(app(), loopback);
            here.gets(own(), loopback);
        }
        here.got_nothing();
        outbound.got_nothing();
    });
}

#[test]
fn our_ports_dialled_from_outside_are_told_from_what_is_redirected() {
    claim(&[], async || {
        let host = Host::joined().await;
        Intercept::redirect().good("apply");
        let doors = doors();
        for (door, port) in doors.iter().zip([OUTBOUND, INBOUND]) {
            for address in HERE {
                host.run(|| door.gets(app(), &at(address, port)));
            }
        }
    });
}

#[test]
fn what_is_excepted_outbound_passes_and_every_byte_is_counted() {
    claim(&[], async || {
        let host = Host::joined().await;
        host.run(|| {
            ip("address add 10.44.0.2/32 dev cable");
            ip("-6 address add fd44::2/128 dev cable nodad");
        });
        ip("route add 10.44.0.0/24 via 10.43.0.2");
        ip("-6 route add fd44::/64 via fd43::2");
        let uid = if has_users() { "except_uids: [1000]" } else { "" };
        let intercept = Intercept::new(
            "redirect",
            &format!("except_ports: [3306], except_cidrs: [10.44.0.0/24, 'fd44::/64'], {uid}"),
            "",
        );
        intercept.good("apply");
        let ([outbound, _inbound], mysql, web) = (doors(), door_there(&host, 3306), door_there(&host, 80));
        let user = Caller { uid: has_users().then_some(1000), ..app() };
        let mut tried = vec![
            ("outbound_port_3306", &mysql, app(), [at(THERE[0], 3306), at(THERE[1], 3306)].to_vec()),
            ("outbound_cidr_10.44.0.0/24", &web, app(), vec![at("10.44.0.2", 80)]),
            ("outbound_cidr_fd44::/64", &web, app(), vec![at("[fd44::2]", 80)]),
        ];
        if has_users() {
            tried.push(("outbound_uid_1000", &web, user, [at(THERE[0], 80), at(THERE[1], 80)].to_vec()));
        }
        for (rule, door, caller, addresses) in &tried {
            assert_eq!(intercept.passed(rule), 0);
            for address in addresses {
                let (from, to) = door.gets(*caller, address);
                exchange(&from, &to, SENT);
            }
            let (passed, sent) = (intercept.passed(rule), 2 * SENT * addresses.len());
            let plausible = sent as u64..(sent + sent / 4) as u64;
            assert!(plausible.contains(&passed), "{rule}: {passed} of {plausible:?}");
        }
        outbound.got_nothing();
        outbound.gets(app(), &at(THERE[0], 80));
        for (rule, door, caller, addresses) in tried.iter().skip(1) {
            let before = intercept.passed(rule);
            assert_eq!(intercept.passed("outbound_port_3306") / 2 / SENT as u64, 2, "each has its own");
            drop(door.gets(*caller, &addresses[0]));
            assert!(intercept.passed(rule) > before, "{rule}");
        }
    });
}

#[test]
fn what_is_excepted_inbound_passes_and_every_byte_is_counted() {
    claim(&[], async || {
        in_each_mode(async |mode, host| {
            host.run(|| ip("address replace 10.44.0.2/32 dev cable"));
            ip("route replace 10.44.0.0/24 via 10.43.0.2");
            let intercept = Intercept::new(mode, "", "except_ports: [9090], except_cidrs: [10.44.0.0/24]");
            intercept.good("apply");
            let doors = [9090, 4391, 80].map(|port| Door::on(&format!("[::]:{port}")));
            let from = Caller { from: Some("10.44.0.2".parse().expect("an address")), ..app() };
            for (rule, door, caller, to) in [
                ("inbound_port_9090", &doors[0], app(), at(HERE[0], 9090)),
                ("inbound_port_9090", &doors[0], app(), at(HERE[1], 9090)),
                ("inbound_listener_4391", &doors[1], app(), at(HERE[0], 4391)),
                ("inbound_cidr_10.44.0.0/24", &doors[2], from, at(HERE[0], 80)),
            ] {
                let before = intercept.passed(rule);
                let (there, here) = host.run(|| door.gets(caller, &to));
                exchange(&there, &here, SENT);
                let passed = intercept.passed(rule) - before;
                let plausible = 2 * SENT as u64..(2 * SENT + SENT / 2) as u64;
                assert!(plausible.contains(&passed), "{rule}: {passed} of {plausible:?}");
            }
        })
        .await
    });
}

/// Works in both modes; in the second with what the first left.
async fn in_each_mode(work: impl AsyncFn(&str, &Host)) {
    let host = Host::joined().await;
    for mode in ["redirect", "tproxy"] {
        work(mode, &host).await;
        nft("flush ruleset");
    }
}

#[test]
fn datagrams_are_left_alone() {
    claim(&[], async || {
        let host = Host::joined().await;
        Intercept::redirect().good("apply");
        for (there, any) in THERE.iter().zip(["0.0.0.0:0", "[::]:0"]) {
            let server = host.run(|| UdpSocket::bind(at(there, 53)).expect("bound"));
            let client = UdpSocket::bind(any).expect("bound");
            client.send_to(b"question", at(there, 53)).expect("sent");
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).expect("received");
            assert_eq!(buffer.get(..length), Some(&b"question"[..]));
            server.send_to(b"answer", from).expect("sent");
            client.recv_from(&mut buffer).expect("received");
        }
    });
}

#[test]
fn without_a_sidecar_connections_are_refused_and_nothing_leaves() {
    claim(&[], async || {
        in_each_mode(async |mode, host| {
            count_at(host);
            Intercept::new(mode, "", "").good("apply");
            let _there = door_there(host, 80);
            for address in THERE {
                let error = app().connect(&at(address, 80)).expect_err("nobody is there");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            assert_eq!(seen(host), 0);
            let here = Door::on("[::]:8080");
            for address in HERE {
                let error = host.run(|| app().connect(&at(address, 8080)).expect_err("nobody is there"));
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            here.got_nothing();
        })
        .await
    });
}

/// A connection whose entry the kernel has forgotten: it is taken up again, and if the kernel is told not to, it ends
/// here. It never goes on as it is.
#[test]
fn a_connection_that_the_kernel_forgot_does_not_leave() {
    claim(&[], async || {
        let host = Host::joined().await;
        count_at(&host);
        Intercept::redirect().good("apply");
        sysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "1");
        // Reading it clears what has run out.
        let connections = || std::fs::read_to_string("/proc/net/nf_conntrack");
        if let Err(error) = connections() {
            return say(&format!(
                "SKIPPED a connection that the kernel forgot: /proc/net/nf_conntrack: {error}"
            ));
        }
        let ([outbound, _inbound], _there) = (doors(), door_there(&host, 80));
        for (address, takes_up) in THERE.iter().flat_map(|address| [(address, "1"), (address, "0")]) {
            sysctl("net/netfilter/nf_conntrack_tcp_loose", takes_up);
            let (mut from, mut to) = outbound.gets(app(), &at(address, 80));
            exchange(&from, &to, 10);
            let port = format!("sport={} ", from.local_addr().expect("an address").port());
            until("the kernel has forgotten the connection", async || {
                !connections().expect("a list").contains(&port)
            })
            .await;
            let stray = packets("outrider", "stray");
            from.write_all(b"secret").expect("written");
            if takes_up == "1" {
                to.read_exact(&mut [0; 6]).expect("read");
            } else {
                until("it was dropped", async || packets("outrider", "stray") > stray).await;
            }
            assert_eq!(seen(&host), 0);
        }
    });
}

#[test]
fn with_transparent_proxying_addresses_stay_as_they_are() {
    claim(&[], async || {
        let host = Host::joined().await;
        Intercept::new("tproxy", "", "").good("apply");
        let inbound = Door::transparent("[::]:4343");
        let apps_own = Door::on("[::]:8080");
        for (here, there) in HERE.iter().zip(["10.43.0.2", "fd43::2"]) {
            let (client, sidecar) = host.run(|| inbound.gets(app(), &at(here, 8080)));
            let peer = sidecar.peer_addr().expect("an address").ip().to_canonical();
            assert_eq!(peer, there.parse::<std::net::IpAddr>().expect("an address"));
            exchange(&client, &sidecar, SENT);
            let as_client = Caller { from: Some(peer), dscp: Some(43), ..own() };
            let (sidecar, app) = apps_own.gets(as_client, &at(here, 8080));
            assert_eq!(app.peer_addr().expect("an address").ip().to_canonical(), peer);
            exchange(&sidecar, &app, SENT);
        }
        // What begins here goes out and its answers come back.
        let there = door_there(&host, 80);
        for address in THERE {
            let (from, to) = there.gets(own(), &at(address, 80));
            exchange(&from, &to, SENT);
        }
    });
}
