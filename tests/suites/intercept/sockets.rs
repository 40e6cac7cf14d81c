//! The sidecar's sockets under rules written by hand: whom a connection was made to, and what rules know ours by.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    path::Path,
};

use hickory_resolver::proto::rr::RecordType;
use outrider::{
    admin,
    model::dns::{DnsRecords, Family},
    net::{HandoverNet, Listener, Marks, Net, Offers, Purpose, Stream, Tracked},
};
use tokio::{io::AsyncReadExt, task::JoinHandle};

use super::namespace::{Host, claim, has, ip, nft, packets, sysctl};
use crate::{
    dns::{Answer, DnsServer, address, look_with_mark},
    processes::DEADLINE,
};

/// Where what leaves is brought to.
const OUTBOUND: u16 = 4340;
/// What rules know our connections by.
const MARK: u32 = 4343;
/// An address that nobody has, on a network that we are on.
const NOBODY: [&str; 2] = ["10.42.0.9:9000", "[fd42::9]:9000"];

/// A network of our own, with nobody else on it.
async fn network() {
    network_of_ipv4();
    ip("address add fd42::1/64 dev cable nodad");
    has(&["10.42.0.1", "fd42::1"]).await;
}

fn network_of_ipv4() {
    ip("link add cable type veth peer name loose");
    ip("address add 10.42.0.1/24 dev cable");
    ip("link set loose up");
    ip("link set cable up");
}

fn net(marks: Marks) -> HandoverNet {
    successor(Path::new("/none"), marks)
}

fn successor(predecessor: &Path, marks: Marks) -> HandoverNet {
    HandoverNet::new(predecessor.to_owned(), NonZeroUsize::MIN, marks)
}

fn any(port: u16) -> SocketAddr {
    format!("[::]:{port}").parse().expect("an address")
}

async fn accepted<L: Listener>(listener: &L) -> (L::Stream, SocketAddr) {
    let accepted = tokio::time::timeout(DEADLINE, listener.accept()).await;
    accepted.expect("a connection comes").expect("it is accepted")
}

/// A connection that is not ours, and how it was accepted.
async fn brought(listener: &impl Listener<Stream = Tracked>, to: &str) -> (TcpStream, Tracked, SocketAddr) {
    let app = TcpStream::connect(to).expect("somebody is there");
    let (stream, peer) = accepted(listener).await;
    assert_eq!(peer, app.local_addr().expect("an address"), "the app's own address");
    (app, stream, peer)
}

#[test]
fn the_kernel_tells_whom_a_redirected_connection_was_made_to() {
    claim(&[], async || {
        network().await;
        nft(&format!(
            "table inet t {{ chain c {{ type nat hook output priority -100;
             meta mark {MARK} accept; tcp dport 9000 redirect to :{OUTBOUND} ; }} ; }}"
        ));
        let net = net(Marks { mark: Some(MARK), ..Marks::default() });
        let listener = net.bind(any(OUTBOUND)).expect("bound");
        for address in NOBODY {
            let (_app, stream, _peer) = brought(&listener, address).await;
            assert_eq!(stream.original_destination(), Some(address.parse().unwrap()));
            let local = stream.local_address().expect("an address");
            assert!(local.ip().is_loopback() && local.port() == OUTBOUND, "{local}");
        }
        drop(listener);
        let of_ipv4 = net.bind(([0, 0, 0, 0], OUTBOUND).into()).expect("bound");
        let (_app, stream, _peer) = brought(&of_ipv4, NOBODY[0]).await;
        assert_eq!(stream.original_destination(), Some(NOBODY[0].parse().unwrap()));
    });
}

#[test]
fn a_connection_that_nobody_redirected_was_made_to_us() {
    claim(&[], async || {
        network().await;
        let net = net(Marks::default());
        let listener = net.bind(any(OUTBOUND)).expect("bound");
        let direct = [format!("10.42.0.1:{OUTBOUND}"), format!("[fd42::1]:{OUTBOUND}")];
        for address in &direct {
            let (_app, stream, _peer) = brought(&listener, address).await;
            assert_eq!(stream.original_destination(), None, "nobody keeps account of connections yet");
            assert_eq!(stream.local_address(), Some(address.parse().unwrap()));
        }
        nft(
            "table inet t { chain c { type nat hook output priority -100; tcp dport 9000 redirect to :4340 ; } ; }",
        );
        for address in &direct {
            let (_app, stream, _peer) = brought(&listener, address).await;
            assert_eq!(stream.original_destination(), stream.local_address(), "now the kernel does");
        }
    });
}

#[test]
fn connections_to_the_app_carry_their_dscp_from_the_first_packet_and_others_none() {
    claim(&[], async || {
        network().await;
        nft("table inet t { counter v4 { } ; counter v6 { } ; chain c { type filter hook output priority 0;
             tcp flags & (syn|ack) == syn ip dscp 43 counter name v4 ;
             tcp flags & (syn|ack) == syn ip6 dscp 43 counter name v6 ; } ; }");
        let net = net(Marks { app_dscp: Some(43), ..Marks::default() });
        for (address, counter) in [("10.42.0.1:8080", "v4"), ("[fd42::1]:8080", "v6")] {
            let app = TcpListener::bind(address).expect("bound");
            let to = app.local_addr().expect("an address");
            net.connect(to, Purpose::Any, DEADLINE).await.expect("connected");
            assert_eq!(packets("t", counter), 0);
            net.connect(to, Purpose::App, DEADLINE).await.expect("connected");
            assert_eq!(packets("t", counter), 1, "{address}");
        }
    });
}

#[test]
fn every_packet_of_ours_carries_the_mark_and_nobody_elses_does() {
    claim(&[], async || {
        network().await;
        nft("table inet t { counter ours { } ; counter others { } ; chain c { type filter hook output priority 0;
             tcp dport 8080 meta mark 4343 counter name ours accept ; tcp dport 8080 counter name others ; } ; }");
        let net = net(Marks { mark: Some(MARK), ..Marks::default() });
        for (count, (address, purpose)) in
            [("10.42.0.1:8080", Purpose::Any), ("[fd42::1]:8080", Purpose::App)].into_iter().enumerate()
        {
            let app = TcpListener::bind(address).expect("bound");
            let made = net.connect(app.local_addr().expect("an address"), purpose, DEADLINE).await;
            assert!(packets("t", "ours") > 2 * count as u64, "{address}: {made:?}");
            drop(made.expect("connected"));
        }
        assert_eq!(packets("t", "others"), 0);
        let _app = TcpListener::bind("10.42.0.1:8080").expect("bound");
        drop(TcpStream::connect("10.42.0.1:8080").expect("connected"));
        assert!(packets("t", "others") > 0);
    });
}

#[test]
fn questions_to_dns_servers_over_tcp_carry_the_mark() {
    claim(&[], async || {
        nft("table inet t { counter ours { } ; counter others { } ; chain c { type filter hook output priority 0;
             tcp flags & (syn|ack) == syn meta mark 4343 counter name ours accept ;
             tcp flags & (syn|ack) == syn counter name others ; } ; }");
        let server = DnsServer::start().await;
        let truth = vec![address("orders.test.", 60, "10.0.0.1")];
        server.says("orders.test.", RecordType::A, Answer::TooLong(truth));
        let records = DnsRecords::Addresses { family: Family::V4, port: 80 };
        let found = look_with_mark(&[&server], "orders.test.", records, Some(MARK)).await;
        assert!(found.parts[0].answer.is_ok(), "{found:?}");
        assert_eq!((packets("t", "ours"), packets("t", "others")), (1, 0));
    });
}

#[test]
fn where_ipv6_is_switched_off_every_address_is_that_of_ipv4() {
    claim(&[], async || {
        sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        network_of_ipv4();
        let net = net(Marks { transparent_port: Some(4343), ..Marks::default() });
        let listener = net.bind(any(4343)).expect("bound, transparent as it is");
        let (_app, stream, _peer) = brought(&listener, "10.42.0.1:4343").await;
        assert_eq!(stream.local_address(), Some("10.42.0.1:4343".parse().unwrap()));
    });
}

#[test]
fn an_own_address_is_one_that_this_namespace_has_now() {
    claim(&[], async || {
        network().await;
        let net = net(Marks::default());
        let is_own = |address: &str| net.is_own(address.parse().expect("an address"));
        assert!(["10.42.0.1:80", "[fd42::1]:80", "127.0.0.1:80", "[::1]:80"].into_iter().all(is_own));
        assert!(!["10.42.0.9:80", "[fd42::9]:80", "0.0.0.0:80", "[::]:80"].into_iter().any(is_own));
        ip("address add 10.42.0.9/32 dev cable");
        assert!(is_own("10.42.0.9:80"));
        assert_eq!(outrider::net::nonlocal_bind(), None);
        sysctl("net/ipv4/ip_nonlocal_bind", "1");
        assert!(is_own("192.0.2.1:80"), "then nobody can tell");
        assert_eq!(outrider::net::nonlocal_bind(), Some("/proc/sys/net/ipv4/ip_nonlocal_bind"));
    });
}

/// Offers this network's sockets as a process does.
async fn offering(net: &HandoverNet, path: &Path) -> JoinHandle<()> {
    let socket = admin::bind_socket(path).expect("bound");
    let offers: Offers = net.offers().clone();
    tokio::spawn(admin::serve_handover(socket, offers, std::future::pending()))
}

#[test]
fn a_successor_that_listens_for_ipv6_does_not_take_a_socket_of_ipv4_alone() {
    claim(&[], async || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock.fd");
        let old = net(Marks::default());
        let _of_ipv4 = old.bind(([0, 0, 0, 0], 4343).into()).expect("bound");
        let offering = offering(&old, &path).await;
        let new = tokio::task::spawn_blocking(move || {
            successor(&path, Marks::default()).bind(any(4343)).expect("bound")
        });
        let new = new.await.expect("no panic");
        let (_app, stream, _peer) = brought(&new, "[::1]:4343").await;
        assert_eq!(stream.local_address(), Some("[::1]:4343".parse().unwrap()));
        offering.abort();
    });
}

/// Rules of transparent proxying, by hand.
fn proxied(port: u16) {
    nft(&format!(
        "table inet t {{ chain arriving {{ type filter hook prerouting priority -150;
         iifname cable tcp dport 8080 tproxy to :{port} accept ; }} ;
         chain answers {{ type route hook output priority -150;
         fib saddr type != local fib daddr type local ct mark set 7 accept ;
         ct direction reply ct mark 7 meta mark set 7 ; }} ; }}"
    ));
    for family in ["-4", "-6"] {
        ip(&format!("{family} route add local default dev lo table 7"));
        ip(&format!("{family} rule add fwmark 7 lookup 7"));
    }
}

/// Connects from another host to `to`, and says a word there.
fn say_a_word(host: &Host, to: &str) -> TcpStream {
    host.run(|| {
        let mut stream =
            TcpStream::connect_timeout(&to.parse().expect("an address"), DEADLINE).expect("connected");
        stream.write_all(b"word").expect("sent");
        stream
    })
}

#[test]
fn a_transparent_socket_that_was_redirects_before_takes_what_was_dialled_elsewhere() {
    claim(&[], async || {
        let host = Host::joined().await;
        proxied(4343);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock.fd");
        let old = net(Marks::default());
        let _redirects = old.bind(any(4343)).expect("bound");
        let offering = offering(&old, &path).await;
        let marks = Marks { transparent_port: Some(4343), ..Marks::default() };
        let new =
            tokio::task::spawn_blocking(move || successor(&path, marks).bind(any(4343)).expect("bound"));
        let new = new.await.expect("no panic");
        for (address, client) in [("10.43.0.1:8080", "10.43.0.2"), ("[fd43::1]:8080", "fd43::2")] {
            let _client = tokio::task::block_in_place(|| say_a_word(&host, address));
            let (mut stream, peer) = accepted(&new).await;
            assert_eq!(stream.local_address(), Some(address.parse().unwrap()), "as it was dialled");
            assert_eq!(peer.ip().to_string(), client);
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.expect("read");
            assert_eq!(&word, b"word");
        }
        offering.abort();
    });
}

#[test]
fn the_app_sees_the_client_in_whose_name_it_is_called_and_its_answers_come_back() {
    claim(&[], async || {
        let _host = Host::joined().await;
        proxied(4343);
        let net = net(Marks { app_dscp: Some(43), transparent_port: Some(4343), ..Marks::default() });
        for (address, client) in [("10.43.0.1:8080", "10.43.0.2"), ("[fd43::1]:8080", "fd43::2")] {
            let app = TcpListener::bind(address).expect("bound");
            let purpose = Purpose::AppFor(client.parse().expect("an address"));
            let to = app.local_addr().expect("an address");
            let mut made = net.connect(to, purpose, DEADLINE).await.expect("connected");
            let (mut stream, peer) = app.accept().expect("accepted");
            assert_eq!(peer.ip().to_string(), client);
            assert!((1024..32768).contains(&peer.port()), "{peer}: clients themselves call from others");
            stream.write_all(b"answer").expect("sent");
            let mut answer = [0; 6];
            made.read_exact(&mut answer).await.expect("it comes back");
            assert_eq!(&answer, b"answer");
        }
    });
}

#[test]
fn a_port_in_use_for_a_client_is_passed_over() {
    claim(&[], async || {
        let _host = Host::joined().await;
        proxied(4343);
        let app = TcpListener::bind("10.43.0.1:8080").expect("bound");
        let to = app.local_addr().expect("an address");
        let purpose = Purpose::AppFor("10.43.0.2".parse().expect("an address"));
        let marks = Marks { transparent_port: Some(4343), ..Marks::default() };
        // Both begin with the same port: they are of one process.
        let (one, other) = (net(marks), net(marks));
        let mut made = Vec::new();
        for net in [&one, &other] {
            for _ in 0..8 {
                made.push(net.connect(to, purpose, DEADLINE).await.expect("connected"));
            }
        }
        let ports: std::collections::HashSet<_> =
            made.iter().map(|stream| stream.local_address().expect("an address").port()).collect();
        assert_eq!(ports.len(), made.len());
        // Where each leads somewhere else, they may have the same.
        let second = TcpListener::bind("10.43.0.1:8081").expect("bound");
        let elsewhere = net(marks).connect(second.local_addr().expect("an address"), purpose, DEADLINE).await;
        let port = elsewhere.expect("connected").local_address().expect("an address").port();
        assert!(ports.contains(&port));
    });
}

#[test]
fn what_we_have_made_is_known_as_ours_until_it_ends() {
    claim(&[], async || {
        network().await;
        let net = net(Marks { app_dscp: Some(43), ..Marks::default() });
        for (address, purpose) in [("10.42.0.1:8080", Purpose::Any), ("[fd42::1]:8080", Purpose::App)] {
            let app = TcpListener::bind(address).expect("bound");
            let to = app.local_addr().expect("an address");
            let made = net.connect(to, purpose, DEADLINE).await.expect("connected");
            let from = made.local_address().expect("an address");
            assert_eq!(net.made(from, to), Some(purpose));
            assert_eq!(net.made(to, from), None);
            drop(made);
            assert_eq!(net.made(from, to), None);
        }
        let knows = || format!("{net:?}").contains(NOBODY[0]);
        let mut given_up =
            Box::pin(net.connect(NOBODY[0].parse().expect("an address"), Purpose::Any, DEADLINE));
        assert!(futures_util::poll!(&mut given_up).is_pending() && knows(), "from its first packet");
        drop(given_up);
        assert!(!knows());
    });
}

#[test]
fn a_stream_to_an_app_in_a_clients_name_ends_as_any_other() {
    claim(&[], async || {
        let _host = Host::joined().await;
        proxied(4343);
        let app = TcpListener::bind("10.43.0.1:8080").expect("bound");
        let net = net(Marks { transparent_port: Some(4343), ..Marks::default() });
        let purpose = Purpose::AppFor("10.43.0.2".parse().expect("an address"));
        let mut made =
            net.connect(app.local_addr().expect("an address"), purpose, DEADLINE).await.expect("connected");
        let (mut stream, _peer) = app.accept().expect("accepted");
        tokio::io::AsyncWriteExt::shutdown(&mut made).await.expect("half closed");
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        stream.write_all(b"last").expect("sent");
        drop(stream);
        let mut all = Vec::new();
        made.read_to_end(&mut all).await.expect("read");
        assert_eq!(all, b"last");
    });
}
