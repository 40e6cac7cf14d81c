//! Reading one answer: from the name that was asked for, along its aliases, to the records and their smallest TTL.
//!
//! Answers come from the network: what does not belong to the question is passed over, chains are bounded, and
//! addresses that nobody can be connected to are dropped.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::Failure;

/// Aliases from one name to its records, over all answers. Resolvers themselves follow 8 to 16.
pub(super) const MAX_ALIASES: u32 = 16;
/// Targets of one service that are taken; the rest is left out, the same every time.
const MAX_TARGETS: usize = 256;

/// What one answer says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Records of the type that was asked for.
    Found {
        /// Their data.
        data: Vec<RData>,
        /// The smallest TTL of theirs and of the aliases before them.
        ttl: u32,
    },
    /// The name is another one's alias, and there is nothing about that one.
    Alias {
        /// That name.
        to: Name,
        /// The smallest TTL of the aliases.
        ttl: u32,
        /// How many aliases it took.
        count: u32,
    },
}

/// Reads what an answer says about `name`.
pub(super) fn read(message: &Message, name: &Name, kind: RecordType) -> Result<Reading, Failure> {
    let (mut name, mut ttl, mut count) = (name.clone(), u32::MAX, 0);
    loop {
        let of_name = |record: &&Record| record.dns_class == DNSClass::IN && record.name == name;
        let mut data = Vec::new();
        for record in message.answers.iter().filter(of_name).filter(|record| record.record_type() == kind) {
            ttl = ttl.min(record.ttl);
            data.push(record.data.clone());
        }
        if !data.is_empty() {
            return Ok(Reading::Found { data, ttl });
        }
        let alias = message.answers.iter().filter(of_name).find_map(|record| {
            let RData::CNAME(alias) = &record.data else { return None };
            Some((alias.0.clone(), record.ttl))
        });
        let Some((to, alias_ttl)) = alias else { return end(message, name, ttl, count) };
        count += 1;
        ttl = ttl.min(alias_ttl);
        name = to;
        if count > MAX_ALIASES {
            return Err(Failure::Other(format!("more than {MAX_ALIASES} aliases (CNAME) in a row")));
        }
    }
}

/// What it means that there is nothing about `name`, which it took so many aliases to come to.
fn end(message: &Message, name: Name, ttl: u32, count: u32) -> Result<Reading, Failure> {
    let code = message.metadata.response_code;
    if code == ResponseCode::NXDomain {
        Err(Failure::NoSuchName)
    } else if code != ResponseCode::NoError {
        Err(Failure::Refused(code.to_string()))
    } else if count > 0 {
        Ok(Reading::Alias { to: name, ttl, count })
    } else {
        Err(Failure::NoData)
    }
}

/// The addresses among the data that endpoints can have, and how many others there are.
pub(super) fn addresses(data: &[RData]) -> (Vec<IpAddr>, usize) {
    let all: Vec<IpAddr> = data.iter().filter_map(address).collect();
    let usable: Vec<IpAddr> = all.iter().copied().filter(is_usable).collect();
    let dropped = all.len() - usable.len();
    (usable, dropped)
}

fn address(data: &RData) -> Option<IpAddr> {
    if let RData::A(address) = data {
        return Some(address.0.into());
    }
    // An IPv4 address in IPv6's clothes is the same endpoint.
    if let RData::AAAA(address) = data { Some(IpAddr::from(address.0).to_canonical()) } else { None }
}

/// Whether a connection to the address can mean one endpoint: link-local ones lack the interface.
fn is_usable(address: &IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_broadcast || is_link_local)
}

/// A place where a service is: a name and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// Its name.
    pub(super) name: Name,
    /// Its port, never 0.
    pub(super) port: u16,
}

/// The targets with the lowest priority number, sorted, each once. Weights do not count: balancing has none.
///
/// A single target `.` says that there is no such service (RFC 2782), and so does a list of targets without a port.
pub(super) fn targets(data: &[RData]) -> Result<Vec<Target>, Failure> {
    let services =
        || data.iter().filter_map(|data| if let RData::SRV(srv) = data { Some(srv) } else { None });
    let services = || services().filter(|srv| !srv.target.is_root() && srv.port != 0);
    let lowest = services().map(|srv| srv.priority).min();
    let best = services().filter(|srv| Some(srv.priority) == lowest);
    let mut targets: Vec<Target> =
        best.map(|srv| Target { name: srv.target.to_lowercase(), port: srv.port }).collect();
    targets.sort_unstable();
    targets.dedup();
    targets.truncate(MAX_TARGETS);
    if targets.is_empty() { Err(Failure::NoData) } else { Ok(targets) }
}

/// The addresses of a target that came along with the answer about the service; `None` if none did.
pub(super) fn additional(message: &Message, target: &Name) -> Option<(Vec<RData>, u32)> {
    let mut ttl = u32::MAX;
    let mut data = Vec::new();
    let of_target = |record: &&Record| record.dns_class == DNSClass::IN && record.name == *target;
    for record in message.additionals.iter().filter(of_target) {
        if matches!(record.data, RData::A(_) | RData::AAAA(_)) {
            ttl = ttl.min(record.ttl);
            data.push(record.data.clone());
        }
    }
    (!data.is_empty()).then_some((data, ttl))
}

/// Addresses and a port as endpoints.
pub(super) fn endpoints(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::{MessageType, OpCode},
        rr::rdata::{A, AAAA, CNAME, SRV},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(of: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(name(of), ttl, data)
    }

    fn a(of: &str, ttl: u32, last: u8) -> Record {
        record(of, ttl, RData::A(A::new(10, 0, 0, last)))
    }

    fn alias(of: &str, ttl: u32, to: &str) -> Record {
        record(of, ttl, RData::CNAME(CNAME(name(to))))
    }

    fn answer(records: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.answers = records;
        message
    }

    fn ttl_and_count(records: Vec<Record>) -> (u32, usize) {
        match read(&answer(records), &name("orders.test."), RecordType::A) {
            Ok(Reading::Found { data, ttl }) => (ttl, data.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_smallest_ttl_counts_wherever_it_stands() {
        assert_eq!(ttl_and_count(vec![a("orders.test.", 60, 1), a("orders.test.", 30, 2)]), (30, 2));
        let chain = |first, second, last| {
            vec![
                a("c.test.", last, 1),
                alias("b.test.", second, "c.test."),
                alias("orders.test.", first, "b.test."),
            ]
        };
        assert_eq!(ttl_and_count(chain(5, 60, 300)), (5, 1));
        assert_eq!(ttl_and_count(chain(60, 5, 300)), (5, 1));
        assert_eq!(ttl_and_count(chain(60, 300, 5)), (5, 1));
    }

    #[test]
    fn names_are_the_same_in_any_case_and_others_are_passed_over() {
        let records = vec![
            a("ORDERS.test.", 60, 1),
            a("evil.test.", 1, 6),
            a("sub.orders.test.", 1, 7),
            record("orders.test.", 1, RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 9))),
        ];
        assert_eq!(ttl_and_count(records), (60, 1));
    }

    #[test]
    fn an_alias_without_more_is_asked_for_further() {
        let reading =
            read(&answer(vec![alias("orders.test.", 9, "b.test.")]), &name("orders.test."), RecordType::A);
        assert_eq!(reading, Ok(Reading::Alias { to: name("b.test."), ttl: 9, count: 1 }));
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let records = vec![alias("orders.test.", 9, "b.test."), alias("b.test.", 9, "orders.test.")];
        let reading = read(&answer(records), &name("orders.test."), RecordType::A);
        assert!(matches!(reading, Err(Failure::Other(_))), "{reading:?}");
    }

    #[test]
    fn an_alias_to_nowhere_is_no_such_name() {
        let mut message = answer(vec![alias("orders.test.", 9, "b.test.")]);
        message.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(read(&message, &name("orders.test."), RecordType::A), Err(Failure::NoSuchName));
    }

    #[test]
    fn addresses_that_nobody_can_connect_to_are_dropped() {
        let v4 = |octets: [u8; 4]| RData::A(A(octets.into()));
        let v6 = |text: &str| RData::AAAA(AAAA(text.parse().unwrap()));
        let data = [
            v4([0, 0, 0, 0]),
            v4([224, 0, 0, 1]),
            v4([255, 255, 255, 255]),
            v6("::"),
            v6("ff02::1"),
            v6("fe80::1"),
            v4([10, 0, 0, 1]),
            v6("2001:db8::1"),
            v6("::ffff:10.0.0.2"),
        ];
        let expected = ["10.0.0.1", "2001:db8::1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(addresses(&data), (expected.to_vec(), 6));
    }

    #[test]
    fn a_services_targets_are_those_of_the_lowest_priority_number() {
        let srv = |priority, port, to: &str| RData::SRV(SRV::new(priority, 1, port, name(to)));
        let data = [
            srv(20, 1, "backup.test."),
            srv(10, 2, "B.test."),
            srv(10, 1, "b.test."),
            srv(10, 1, "a.test."),
            srv(10, 1, "a.test."),
            srv(0, 0, "portless.test."),
            srv(0, 1, "."),
        ];
        let found: Vec<String> = targets(&data)
            .unwrap()
            .into_iter()
            .map(|target| format!("{}:{}", target.name, target.port))
            .collect();
        assert_eq!(found, ["a.test.:1", "b.test.:1", "b.test.:2"]);
        assert_eq!(targets(&[srv(0, 0, ".")]), Err(Failure::NoData));
    }

    #[test]
    fn a_targets_addresses_may_come_along() {
        let mut message = answer(Vec::new());
        message.additionals = vec![a("a.test.", 60, 1), a("a.test.", 20, 2), a("b.test.", 1, 3)];
        let (data, ttl) = additional(&message, &name("a.test.")).unwrap();
        assert_eq!((data.len(), ttl), (2, 20));
        assert_eq!(additional(&message, &name("c.test.")), None);
    }
}
