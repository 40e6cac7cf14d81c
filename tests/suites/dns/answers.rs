//! What the resolver makes of answers.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use outrider::{
    discovery::dns::{Failure, Look, Lookup, Resolver},
    model::dns::{DnsRecords, DnsSettings, Family, ResolverSettings},
};

use super::{
    Answer, DnsServer,
    server::{address, alias, service},
};
use crate::harness::soon;

const TIMEOUT: Duration = Duration::from_millis(400);
const ANY: DnsRecords = DnsRecords::Addresses { family: Family::Any, port: 80 };
const V4: DnsRecords = DnsRecords::Addresses { family: Family::V4, port: 80 };

async fn look(servers: &[&DnsServer], name: &str, records: DnsRecords) -> Look {
    look_with_mark(servers, name, records, None).await
}

/// Asks these servers, twice each, once, over connections with that mark.
pub(crate) async fn look_with_mark(
    servers: &[&DnsServer],
    name: &str,
    records: DnsRecords,
    mark: Option<u32>,
) -> Look {
    let resolver = Arc::new(ResolverSettings {
        servers: servers.iter().map(|server| server.address()).collect(),
        timeout: TIMEOUT,
        attempts: 2,
        start_timeout: Duration::ZERO,
        mark,
    });
    let settings = DnsSettings {
        name: name.to_owned(),
        records,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::MAX,
        empty_after: None,
        spiffe_ids: Arc::from([]),
        resolver: Arc::clone(&resolver),
    };
    soon("the look ends", Resolver::new(resolver).look(&settings)).await
}

/// All endpoints, sorted.
fn endpoints(look: &Look) -> Vec<String> {
    let good = look.parts.iter().filter_map(|part| part.answer.as_ref().ok()).flatten();
    let mut all: Vec<SocketAddr> = good.copied().collect();
    all.sort_unstable();
    all.iter().map(ToString::to_string).collect()
}

fn failures(look: &Look) -> Vec<Failure> {
    look.parts.iter().filter_map(|part| part.answer.clone().err()).collect()
}

fn ttl(look: &Look) -> Option<u64> {
    look.ttl.map(|ttl| ttl.as_secs())
}

/// A server that knows `orders.test.` by one address.
async fn simple() -> DnsServer {
    let server = DnsServer::start().await;
    server.says(
        "orders.test.",
        RecordType::A,
        Answer::Records(vec![address("orders.test.", 60, "10.0.0.1")]),
    );
    server
}

#[tokio::test]
async fn addresses_of_both_families_are_endpoints() {
    let server = DnsServer::start().await;
    let v4 = vec![address("orders.test.", 60, "10.0.0.1"), address("orders.test.", 50, "10.0.0.2")];
    let v6 = vec![address("orders.test.", 40, "2001:db8::1")];
    server.says("orders.test.", RecordType::A, Answer::Records(v4));
    server.says("orders.test.", RecordType::AAAA, Answer::Records(v6));
    let found = look(&[&server], "Orders.TEST", ANY).await;
    assert_eq!(endpoints(&found), ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]);
    assert_eq!((ttl(&found), found.dropped), (Some(40), 0));
    let v6 = DnsRecords::Addresses { family: Family::V6, port: 81 };
    assert_eq!(endpoints(&look(&[&server], "orders.test.", v6).await), ["[2001:db8::1]:81"]);
    assert_eq!(endpoints(&look(&[&server], "orders.test.", V4).await), ["10.0.0.1:80", "10.0.0.2:80"]);
}

#[tokio::test]
async fn the_smallest_ttl_on_a_chain_of_aliases_counts() {
    let server = DnsServer::start().await;
    let whole = vec![
        alias("orders.test.", 60, "a.test."),
        alias("a.test.", 7, "b.test."),
        address("b.test.", 300, "10.0.0.1"),
    ];
    server.says("orders.test.", RecordType::A, Answer::Records(whole));
    let found = look(&[&server], "orders.test.", V4).await;
    assert_eq!((endpoints(&found), ttl(&found)), (vec!["10.0.0.1:80".to_owned()], Some(7)));
    assert_eq!(server.asked().len(), 1);

    // A server that leaves the chain to whoever asks.
    server.says("orders.test.", RecordType::A, Answer::Records(vec![alias("orders.test.", 9, "a.test.")]));
    server.says("a.test.", RecordType::A, Answer::Records(vec![alias("a.test.", 60, "b.test.")]));
    server.says("b.test.", RecordType::A, Answer::Records(vec![address("b.test.", 300, "10.0.0.2")]));
    let found = look(&[&server], "orders.test.", V4).await;
    assert_eq!((endpoints(&found), ttl(&found)), (vec!["10.0.0.2:80".to_owned()], Some(9)));
}

#[tokio::test]
async fn aliases_in_a_circle_are_a_failure_soon() {
    let server = DnsServer::start().await;
    server.says("orders.test.", RecordType::A, Answer::Records(vec![alias("orders.test.", 9, "a.test.")]));
    server.says("a.test.", RecordType::A, Answer::Records(vec![alias("a.test.", 9, "orders.test.")]));
    let found = look(&[&server], "orders.test.", V4).await;
    assert!(matches!(&failures(&found)[..], [Failure::Other(why)] if why.contains("aliases")), "{found:?}");
    assert!(server.asked().len() < 20);
}

#[tokio::test]
async fn a_service_is_the_addresses_of_its_best_targets_with_their_ports() {
    let server = DnsServer::start().await;
    let name = "_mesh._tcp.orders.test.";
    let targets = vec![
        service(name, 60, 10, ("a.test.", 4343)),
        service(name, 60, 10, ("b.test.", 4344)),
        service(name, 60, 20, ("backup.test.", 4345)),
    ];
    server.says(name, RecordType::SRV, Answer::Records(targets.clone()));
    server.says("a.test.", RecordType::A, Answer::Records(vec![address("a.test.", 60, "10.0.0.1")]));
    server.says("a.test.", RecordType::AAAA, Answer::Records(vec![address("a.test.", 60, "2001:db8::1")]));
    let to_c = vec![alias("b.test.", 8, "c.test."), address("c.test.", 60, "10.0.0.2")];
    server.says("b.test.", RecordType::A, Answer::Records(to_c));
    let found = look(&[&server], name, DnsRecords::Services).await;
    assert_eq!(endpoints(&found), ["10.0.0.1:4343", "10.0.0.2:4344", "[2001:db8::1]:4343"]);
    assert_eq!(ttl(&found), Some(8));
    assert!(server.asked().iter().all(|asked| asked.name != "backup.test."));

    // What comes along is not asked for.
    let along = vec![address("b.test.", 5, "10.0.0.9"), address("backup.test.", 1, "10.0.0.8")];
    server.says(name, RecordType::SRV, Answer::WithAdditional(targets, along));
    let before = server.asked().len();
    let found = look(&[&server], name, DnsRecords::Services).await;
    assert_eq!(endpoints(&found), ["10.0.0.1:4343", "10.0.0.9:4344", "[2001:db8::1]:4343"]);
    assert_eq!(ttl(&found), Some(5));
    assert!(server.asked()[before..].iter().all(|asked| asked.name != "b.test."));

    // There is decidedly no such service.
    server.says(name, RecordType::SRV, Answer::Records(vec![service(name, 60, 0, (".", 0))]));
    assert_eq!(failures(&look(&[&server], name, DnsRecords::Services).await), [Failure::NoData]);
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_asked_for_over_tcp() {
    let server = DnsServer::start().await;
    let many = (1..=200).map(|last| address("orders.test.", 60, &format!("10.0.0.{last}"))).collect();
    server.says("orders.test.", RecordType::A, Answer::TooLong(many));
    let found = look(&[&server], "orders.test.", V4).await;
    assert_eq!(endpoints(&found).len(), 200);
    let transports: Vec<bool> = server.asked().iter().map(|asked| asked.is_tcp).collect();
    assert_eq!(transports, [false, true]);
}

#[tokio::test]
async fn that_there_is_nothing_is_an_answer_and_no_second_server_is_asked() {
    let (first, second) = (DnsServer::start().await, simple().await);
    let found = look(&[&first, &second], "orders.test.", ANY).await;
    assert_eq!(failures(&found), [Failure::NoSuchName, Failure::NoSuchName]);
    first.says("orders.test.", RecordType::TXT, Answer::Silence);
    let found = look(&[&first, &second], "orders.test.", ANY).await;
    assert_eq!(failures(&found), [Failure::NoData, Failure::NoData]);
    assert_eq!(second.asked(), []);
    // One family of a name is enough.
    let found = look(&[&second], "orders.test.", ANY).await;
    assert_eq!(
        (endpoints(&found), failures(&found)),
        (vec!["10.0.0.1:80".to_owned()], vec![Failure::NoData])
    );
}

#[tokio::test]
async fn after_any_other_bad_answer_the_next_server_is_asked() {
    let (first, second) = (DnsServer::start().await, simple().await);
    let bad = [
        Answer::Code(ResponseCode::ServFail),
        Answer::Code(ResponseCode::Refused),
        Answer::Code(ResponseCode::NotImp),
        Answer::Code(ResponseCode::FormErr),
        Answer::Referral,
        Answer::Garbage,
        Answer::Silence,
    ];
    for answer in bad {
        first.says("orders.test.", RecordType::A, answer.clone());
        let found = look(&[&first, &second], "orders.test.", V4).await;
        assert_eq!(endpoints(&found), ["10.0.0.1:80"], "{answer:?}");
    }
    drop(second);
    first.says("orders.test.", RecordType::A, Answer::Code(ResponseCode::ServFail));
    let found = look(&[&first], "orders.test.", V4).await;
    assert_eq!(failures(&found), [Failure::Refused("Server Failure".to_owned())]);
}

#[tokio::test]
async fn a_silent_server_costs_its_timeout_and_no_more() {
    let server = simple().await;
    server.set_silent(true);
    let start = Instant::now();
    let found = look(&[&server], "orders.test.", V4).await;
    assert_eq!(failures(&found), [Failure::Timeout]);
    let taken = start.elapsed();
    assert!(taken >= TIMEOUT * 2 && taken < TIMEOUT * 4, "{taken:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_leads_to_the_next() {
    let (gone, server) = (DnsServer::start().await.gone().await, simple().await);
    let found = look(&[&gone, &server], "orders.test.", V4).await;
    assert_eq!(endpoints(&found), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn what_others_send_in_between_is_not_believed() {
    let server = DnsServer::start().await;
    let lie = vec![address("orders.test.", 60, "10.6.6.6"), address("other.test.", 60, "10.6.6.6")];
    let truth = vec![address("orders.test.", 60, "10.0.0.1")];
    server.says("orders.test.", RecordType::A, Answer::Spoofed { lie, truth });
    assert_eq!(endpoints(&look(&[&server], "orders.test.", V4).await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_family_that_is_never_answered_does_not_keep_the_other() {
    let server = simple().await;
    server.says("orders.test.", RecordType::AAAA, Answer::Silence);
    let found = look(&[&server], "orders.test.", ANY).await;
    assert_eq!(endpoints(&found), ["10.0.0.1:80"]);
    assert_eq!(failures(&found), [Failure::Timeout]);
}

#[tokio::test]
async fn records_of_other_names_and_useless_addresses_are_left_out() {
    let server = DnsServer::start().await;
    let records = vec![
        address("orders.test.", 60, "10.0.0.1"),
        address("orders.test.", 60, "0.0.0.0"),
        address("orders.test.", 60, "224.0.0.1"),
        address("evil.test.", 1, "10.6.6.6"),
    ];
    server.says("orders.test.", RecordType::A, Answer::Records(records));
    let found = look(&[&server], "orders.test.", V4).await;
    assert_eq!(
        (endpoints(&found), ttl(&found), found.dropped),
        (vec!["10.0.0.1:80".to_owned()], Some(60), 2)
    );
    server.says(
        "orders.test.",
        RecordType::A,
        Answer::Records(vec![address("orders.test.", 60, "255.255.255.255")]),
    );
    let found = look(&[&server], "orders.test.", V4).await;
    assert!(matches!(&failures(&found)[..], [Failure::Other(_)]), "{found:?}");
}
