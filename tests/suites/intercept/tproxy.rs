//! Whom the app sees: the client where inbound connections are proxied transparently, its own host where they are
//! redirected.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    namespace::{Host, claim, ip},
    sidecars::{
        CALLED, PORTS, Power, Sidecar, Sidecars, calls, listener, own, seen_by_http, seen_by_stream, witness,
    },
};

/// Programs beside those that every claim takes.
const NEEDS: [&str; 2] = ["setpriv", "mount"];
/// Bytes of a stream each way: more than all buffers on the way hold.
const STREAM_BYTES: usize = 8 << 20;
/// Addresses of the host that calls.
const CLIENT: [&str; 2] = ["10.43.0.2", "fd43::2"];
/// Addresses of the host that is called.
const OWN: [&str; 2] = ["10.43.0.1", "fd43::1"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Starts the called sidecar with its rules in force.
async fn called(sidecars: &Sidecars, mode: &str, power: Power) -> Sidecar {
    let [http, tcp] = PORTS;
    let rest = format!(
        "intercept:\n  {{mode: {mode}, {}, inbound: {{ports: [{{port: {http}, protocol: http}}, {{port: {tcp}, protocol: tcp}}]}}}}\n",
        own()
    );
    let folder = sidecars.prepare("called", CALLED, &rest);
    sidecars.apply(&folder);
    sidecars.start(&folder, power).ready().await
}

/// The folder of a calling sidecar with listeners for HTTP and bytes, to each address of the called host.
fn caller(sidecars: &Sidecars, name: &str) -> PathBuf {
    let [http, tcp] = PORTS;
    let to = |host: &str, port| SocketAddr::new(address(host), port);
    let targets = [
        ("http4", "http", to(OWN[0], http)),
        ("http6", "http", to(OWN[1], http)),
        ("tcp4", "tcp", to(OWN[0], tcp)),
        ("tcp6", "tcp", to(OWN[1], tcp)),
    ];
    sidecars.prepare(name, "web", &calls(&targets))
}

/// Calls in every way from `host`, whose sidecar is `caller`; asserts whom the app sees.
async fn assert_seen(sidecars: &Sidecars, host: &Host, expected: [&str; 2]) {
    let folder = caller(sidecars, "caller");
    let _caller = host.run(|| sidecars.start(&folder, Power::None)).ready().await;
    tokio::task::block_in_place(|| {
        host.run(|| {
            for (index, expected) in expected.map(address).into_iter().enumerate() {
                let seen = seen_by_http(listener(index), 5);
                assert!(seen.iter().all(|seen| seen.ip() == expected), "{seen:?} and not {expected}");
                assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "on one connection: {seen:?}");
                let seen = seen_by_stream(listener(2 + index), STREAM_BYTES);
                assert_eq!(seen.ip(), expected);
            }
        });
    });
}

#[test]
fn a_transparently_proxied_app_sees_its_clients_and_its_answers_reach_them() {
    claim(&NEEDS, async || {
        let (host, sidecars) = (Host::joined().await, Sidecars::new());
        witness();
        let _called = called(&sidecars, "tproxy", Power::NetRaw).await;
        assert_seen(&sidecars, &host, CLIENT).await;
    });
}

#[test]
fn an_app_behind_redirection_sees_its_own_host_and_not_loopback() {
    claim(&NEEDS, async || {
        let (host, sidecars) = (Host::joined().await, Sidecars::new());
        witness();
        let _called = called(&sidecars, "redirect", power_of_redirection()).await;
        assert_seen(&sidecars, &host, OWN).await;
    });
}

/// By user, redirection takes no capability at all; by mark, where there is but one user, that one has them.
fn power_of_redirection() -> Power {
    Power::None
}

#[test]
fn two_clients_never_share_a_connection_to_a_transparently_proxied_app() {
    claim(&NEEDS, async || {
        let (host, sidecars) = (Host::joined().await, Sidecars::new());
        witness();
        let _called = called(&sidecars, "tproxy", Power::NetRaw).await;
        let first = caller(&sidecars, "first");
        let _first = host.run(|| sidecars.start(&first, Power::None)).ready().await;
        let through = |index| tokio::task::block_in_place(|| host.run(|| seen_by_http(listener(index), 3)));
        assert!(through(0).iter().all(|seen| seen.ip() == address(CLIENT[0])));
        // From here on this host calls from another address; the first sidecar's connection stays as it is.
        host.run(|| {
            ip("address add 10.43.0.3/24 dev cable");
            ip("route replace 10.43.0.0/24 dev cable src 10.43.0.3");
        });
        let text =
            std::fs::read_to_string(caller(&sidecars, "second").join("outrider.yaml")).expect("written");
        let rest =
            text.split_once("outbound:").map(|(_, rest)| format!("outbound:{rest}")).expect("listeners");
        let second = sidecars.prepare("second", "web", &rest.replace(":500", ":510"));
        let _second = host.run(|| sidecars.start(&second, Power::None)).ready().await;
        let other = SocketAddr::from(([127, 0, 0, 1], 5100));
        for _ in 0..10 {
            let seen = tokio::task::block_in_place(|| host.run(|| seen_by_http(other, 1)));
            assert_eq!(seen[0].ip(), address("10.43.0.3"));
            assert_eq!(through(0)[0].ip(), address(CLIENT[0]), "the other's are kept apart");
        }
    });
}
