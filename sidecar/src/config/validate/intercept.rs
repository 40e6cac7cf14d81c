//! `intercept`: what the kernel brings to us, and the listeners that take it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use ipnet::IpNet;
use serde_saphyr::Spanned;

use super::{
    bootstrap::{section, to_u32},
    own_app,
};
use crate::{
    config::{
        defaults, raw,
        units::Unit,
        value::{choice, is_port, quantity, required},
    },
    model::{
        cluster::{
            AppProtocol, Balance, Balancing, Caps, ClusterName, ClusterSettings, EndpointSource, Timeouts,
        },
        file::{Faults, Place, quoted, report_odd_keys},
        intercept::{InboundRules, InterceptSettings, MARK_MAX, Mode, OutboundRules, Own, TPROXY_MARK},
        listener::{Inbound, InterceptedInbound, Listener, ListenerKind},
        policy::{Policy, RetryBudget},
        transport::Transport,
    },
};

/// Entries of one list. The kernel looks up ports and users at once, and goes through ranges one by one, for the first packet
/// of a connection only.
const MAX_ENTRIES: usize = 1000;
/// Unknown services may be far away; an app that is in a hurry has a time of its own.
const PASSTHROUGH_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Names of the listeners that interception makes.
pub(super) const LISTENERS: [&str; 2] = ["intercept-outbound", "intercept-inbound"];

/// What `intercept` makes: the rules for the kernel, the listeners, and clusters for what they take.
pub(super) struct Intercept {
    pub(super) settings: InterceptSettings,
    pub(super) listeners: [Listener; 2],
    pub(super) clusters: Vec<ClusterSettings>,
}

/// Checks the section; `None` if there is none.
pub(super) fn intercept(file: &raw::File, faults: &mut Faults) -> Option<Intercept> {
    let raw = file.intercept.as_ref()?;
    let place = section(Some(raw), "intercept");
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::Intercept::KEYS, &place, faults);
    let mode = choice(raw.mode.as_ref(), &defaults::INTERCEPT_MODE, &place, faults);
    let own = own(raw, &place, faults);
    let (outbound, outbound_place) = part(raw.outbound.as_ref(), place.key("outbound"));
    let (inbound, inbound_place) = part(raw.inbound.as_ref(), place.key("inbound"));
    let outbound_rules = outbound_rules(&outbound, &outbound_place, faults);
    let unknown = choice(outbound.unknown.as_ref(), &defaults::UNKNOWN, &outbound_place, faults);
    let inbound_rules = inbound_rules(&inbound, &inbound_place, faults);
    let (ports, mut clusters) = ports(&inbound, (&inbound_place, mode), faults);
    clusters.push(passthrough());
    let [outbound_name, inbound_name] = LISTENERS.map(Arc::from);
    let listeners = [
        Listener {
            name: outbound_name,
            address: any(outbound_rules.port),
            kind: ListenerKind::InterceptedOutbound { unknown },
            proxy_protocol: None,
        },
        Listener {
            name: inbound_name,
            address: any(inbound_rules.port),
            kind: ListenerKind::InterceptedInbound(ports),
            proxy_protocol: None,
        },
    ];
    let settings = InterceptSettings { mode, own, outbound: outbound_rules, inbound: inbound_rules };
    Some(Intercept { settings, listeners, clusters })
}

/// A section that may be missing: as if it were empty.
fn part<T: Default + Clone>(raw: Option<&Spanned<T>>, place: Place) -> (T, Place) {
    match raw {
        Some(raw) => (raw.value.clone(), place.at(raw)),
        None => (T::default(), place),
    }
}

/// Every address of the host, of both families where there are both.
fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

fn own(raw: &raw::Intercept, place: &Place, faults: &mut Faults) -> Own {
    let by_mark = choice(raw.own.as_ref(), &defaults::INTERCEPT_OWN, place, faults);
    let uid = to_u32(quantity(raw.uid.as_ref(), &defaults::INTERCEPT_UID, place, faults));
    let mark = to_u32(quantity(raw.mark.as_ref(), &defaults::INTERCEPT_MARK, place, faults));
    let (other, key) = if by_mark { (raw.uid.as_ref(), "uid") } else { (raw.mark.as_ref(), "mark") };
    if let Some(text) = other {
        let problem = format!("has no meaning with own: {}", if by_mark { "mark" } else { "uid" });
        faults.add(&place.key(key).at(text), problem, "leave one of the two out");
    }
    if let Some(text) = raw.mark.as_ref().filter(|_| (TPROXY_MARK..=MARK_MAX).contains(&mark)) {
        let problem = format!("{mark} is one of those that the rules use themselves");
        let remedy = format!("choose one outside {TPROXY_MARK}..={MARK_MAX}");
        faults.add(&place.key("mark").at(text), problem, remedy);
    }
    if by_mark { Own::Mark(mark) } else { Own::Uid(uid) }
}

fn outbound_rules(raw: &raw::InterceptOutbound, place: &Place, faults: &mut Faults) -> OutboundRules {
    report_odd_keys(&raw.odd_keys, raw::InterceptOutbound::KEYS, place, faults);
    let uid = |text: &str| {
        let uid = <u64 as Unit>::parse(text).and_then(|uid| u32::try_from(uid).ok());
        uid.filter(|uid| *uid < u32::MAX)
    };
    OutboundRules {
        port: port(raw.port.as_ref(), &defaults::OUTBOUND_PORT, place, faults),
        except_ports: entries(raw.except_ports.as_ref(), place.key("except_ports"), PORT, to_port, faults),
        except_cidrs: entries(raw.except_cidrs.as_ref(), place.key("except_cidrs"), CIDR, to_cidr, faults),
        except_uids: entries(
            raw.except_uids.as_ref(),
            place.key("except_uids"),
            ("the number of a user", "write it as 1001"),
            uid,
            faults,
        ),
    }
}

fn inbound_rules(raw: &raw::InterceptInbound, place: &Place, faults: &mut Faults) -> InboundRules {
    report_odd_keys(&raw.odd_keys, raw::InterceptInbound::KEYS, place, faults);
    InboundRules {
        port: port(raw.port.as_ref(), &defaults::INBOUND_PORT, place, faults),
        except_ports: entries(raw.except_ports.as_ref(), place.key("except_ports"), PORT, to_port, faults),
        except_cidrs: entries(raw.except_cidrs.as_ref(), place.key("except_cidrs"), CIDR, to_cidr, faults),
    }
}

fn port(text: Option<&Spanned<String>>, key: &defaults::Key<u64>, place: &Place, faults: &mut Faults) -> u16 {
    u16::try_from(quantity(text, key, place, faults)).unwrap_or(u16::MAX)
}

/// What an entry must be, and how to write one.
pub(super) type Kind = (&'static str, &'static str);
pub(super) const PORT: Kind = ("a port", "write it as 6379");
pub(super) const CIDR: Kind = ("an address or a range", "write it as 10.0.0.0/8, 192.0.2.7 or fd00::/8");

pub(super) fn to_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| is_port(text))
}

/// A range by its first address: host bits that stand there are taken for a slip of the pen. IPv4 in the clothes of IPv6
/// is in no packet, so that nothing would be left alone.
pub(super) fn to_cidr(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    (net.trunc() == net && net.addr().to_canonical() == net.addr()).then_some(net)
}

/// The entries of a list, each at most once.
pub(super) fn entries<T: PartialEq>(
    list: Option<&Spanned<raw::Texts>>,
    place: Place,
    (what, remedy): Kind,
    parse: impl Fn(&str) -> Option<T>,
    faults: &mut Faults,
) -> Vec<T> {
    let Some(list) = list else { return Vec::new() };
    let place = place.at(list);
    if list.value.len() > MAX_ENTRIES {
        faults.add(&place, format!("{} entries", list.value.len()), format!("keep to {MAX_ENTRIES}"));
        return Vec::new();
    }
    let mut found = Vec::with_capacity(list.value.len());
    for (index, text) in list.value.iter().enumerate() {
        let place = place.item(index).at(text);
        match parse(&text.value) {
            None => faults.add(&place, format!("{} is not {what}", quoted(&text.value)), remedy),
            Some(entry) if found.contains(&entry) => {
                faults.add(&place, format!("{} stands here twice", text.value), "list every one once");
            }
            Some(entry) => found.push(entry),
        }
    }
    found
}

/// The rules of every port, and the clusters of the app behind them.
fn ports(
    raw: &raw::InterceptInbound,
    (place, mode): (&Place, Mode),
    faults: &mut Faults,
) -> (InterceptedInbound, Vec<ClusterSettings>) {
    let mut clusters = Vec::new();
    let mut rules = |raw: &raw::Port, name: &str, place: &Place, faults: &mut Faults| {
        report_odd_keys(&raw.odd_keys, raw::Port::KEYS, place, faults);
        let protocol = choice(raw.protocol.as_ref(), &defaults::INTERCEPTED_PROTOCOL, place, faults);
        let app = (name, protocol, Vec::new());
        let (rules, cluster) = own_app::inbound(&raw.into(), app, place, faults);
        clusters.push(cluster);
        Arc::new(Inbound { exceptions: own_app::exceptions(raw, place, faults), ..rules })
    };
    let mut ports = IndexMap::new();
    let list = raw.ports.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
    for (index, item) in list.iter().enumerate().take(MAX_ENTRIES) {
        let place = place.key("ports").item(index).at(item);
        let text = required(item.value.port.as_ref(), &place.key("port"), "give the app's port", faults);
        let port = text.and_then(|text| to_port(&text.value));
        if let (Some(text), None) = (text, port) {
            let problem = format!("{} is not {}", quoted(&text.value), PORT.0);
            faults.add(&place.key("port").at(text), problem, PORT.1);
        }
        let Some(port) = port else { continue };
        let found = rules(&item.value, &port.to_string(), &place, faults);
        if ports.insert(port, found).is_some() {
            faults.add(&place, format!("port {port} stands here twice"), "list every port once");
        }
    }
    if list.len() > MAX_ENTRIES {
        let problem = format!("{} ports", list.len());
        faults.add(&place.key("ports"), problem, format!("keep to {MAX_ENTRIES}"));
    }
    let (other, other_place) = part(raw.other_ports.as_ref(), place.key("other_ports"));
    if let Some(text) = &other.port {
        faults.add(&other_place.key("port").at(text), "has no meaning here", "leave it out");
    }
    let others = rules(&other, "other", &other_place, faults);
    (InterceptedInbound { mode, ports, others }, clusters)
}

/// The cluster of destinations that no other has: what its endpoints are says each connection.
pub(super) fn passthrough() -> ClusterSettings {
    let count = |key: &defaults::Key<u64>| to_u32(key.default.unwrap_or(key.max));
    ClusterSettings {
        name: ClusterName::passthrough(),
        authorities: Vec::new(),
        addresses: Vec::new(),
        protocol: defaults::INTERCEPTED_PROTOCOL.default.1,
        source: EndpointSource::Static(Vec::new()),
        transport: Transport::Plain(AppProtocol::Auto),
        balance: Balance::RoundRobin,
        balancing: Balancing::bare(),
        timeouts: Timeouts {
            connect: PASSTHROUGH_CONNECT_TIMEOUT,
            queue: Duration::ZERO,
            stream_idle: defaults::NEVER,
            half_open: defaults::HALF_OPEN_TIMEOUT.default,
            pool_idle: defaults::POOL_IDLE_TIMEOUT.default.unwrap_or(defaults::POOL_IDLE_TIMEOUT.min),
            connection_age: defaults::NEVER,
        },
        // The app's own business.
        policy: Arc::new(Policy::bare()),
        routes: Vec::new(),
        retry_budget: RetryBudget::NONE,
        outlier: None,
        caps: Caps {
            max_requests: count(&defaults::LISTENER_CONNECTIONS),
            max_per_peer: count(&defaults::LISTENER_CONNECTIONS),
            max_connections: count(&defaults::LISTENER_CONNECTIONS),
            max_pending: count(&defaults::LISTENER_CONNECTIONS),
        },
        health_check: None,
    }
}
