//! `probes`: what is asked of the own app for whoever cannot reach it.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

use http::{HeaderName, HeaderValue, header, uri::PathAndQuery};
use serde_saphyr::Spanned;

use crate::{
    config::{
        defaults, raw,
        value::{Text, choice, name, quantity, required},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        probe::{HttpProbe, Probe, ProbeAction},
    },
};

/// Probes of one file: three for each container of a large pod.
const MAX_PROBES: usize = 256;
/// Fields of one probe's request.
const MAX_HEADERS: usize = 32;
/// Longest value of one, in bytes.
const MAX_VALUE_BYTES: usize = 4096;
/// Longest name of a gRPC service, in bytes.
const MAX_SERVICE_BYTES: usize = 256;
/// Fields that are of the connection, or say how long a body is.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
];

/// Every probe. One with a fault may be left out.
pub(super) fn probes(file: &raw::File, faults: &mut Faults) -> Vec<Probe> {
    let Some(list) = &file.probes else { return Vec::new() };
    let place = Place::root().key("probes").at(list);
    if list.value.len() > MAX_PROBES {
        faults.add(&place, format!("{} probes", list.value.len()), format!("keep to {MAX_PROBES}"));
        return Vec::new();
    }
    let mut names = HashSet::new();
    let mut found = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(probe) = probe(&item.value, &place, faults) else { continue };
        if names.insert(probe.name.clone()) {
            found.push(probe);
        } else {
            let problem = format!("{} stands here twice", quoted(&probe.name));
            faults.add(&place.key("name"), problem, "give every probe a name of its own");
        }
    }
    found
}

fn probe(raw: &raw::Probe, place: &Place, faults: &mut Faults) -> Option<Probe> {
    report_odd_keys(&raw.odd_keys, raw::Probe::KEYS, place, faults);
    let key = place.key("name");
    let name = required(raw.name.as_ref(), &key, "name it, as app/readiness", faults)
        .map(|text| name(text, &key, faults));
    let timeout = quantity(raw.timeout.as_ref(), &defaults::PROBE_TIMEOUT, place, faults);
    let given = [
        raw.http.as_ref().map(|raw| http(raw, &place.key("http"), faults)),
        raw.tcp.as_ref().map(|raw| tcp(raw, &place.key("tcp"), faults)),
        raw.grpc.as_ref().map(|raw| grpc(raw, &place.key("grpc"), faults)),
    ];
    let mut given = given.into_iter().flatten();
    let action = match (given.next(), given.next()) {
        (Some(action), None) => action,
        (first, _) => {
            let problem = if first.is_some() { "has more than one of" } else { "has none of" };
            faults.add(place, format!("{problem} http, tcp and grpc"), "give exactly one of them");
            None
        }
    };
    Some(Probe { name: name?, action: action?, timeout })
}

fn http(raw: &Spanned<raw::HttpProbe>, place: &Place, faults: &mut Faults) -> Option<ProbeAction> {
    let place = place.at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::HttpProbe::KEYS, &place, faults);
    let port = port(raw.port.as_ref(), &place, faults);
    let path = path(raw.path.as_ref(), &place, faults);
    let is_tls = choice(raw.scheme.as_ref(), &defaults::PROBE_SCHEME, &place, faults);
    let host = host(raw.host.as_ref(), &place, faults);
    let headers = headers(raw, &place, faults);
    Some(ProbeAction::Http(HttpProbe { port: port?, path, is_tls, host, headers }))
}

fn tcp(raw: &Spanned<raw::TcpProbe>, place: &Place, faults: &mut Faults) -> Option<ProbeAction> {
    let place = place.at(raw);
    report_odd_keys(&raw.value.odd_keys, raw::TcpProbe::KEYS, &place, faults);
    let port = port(raw.value.port.as_ref(), &place, faults);
    let host = host(raw.value.host.as_ref(), &place, faults);
    Some(ProbeAction::Tcp { port: port?, host })
}

fn grpc(raw: &Spanned<raw::GrpcProbe>, place: &Place, faults: &mut Faults) -> Option<ProbeAction> {
    let place = place.at(raw);
    report_odd_keys(&raw.value.odd_keys, raw::GrpcProbe::KEYS, &place, faults);
    let port = port(raw.value.port.as_ref(), &place, faults);
    let text = raw.value.service.as_ref();
    let service = text.map(|text| text.value.clone()).unwrap_or_default();
    if service.len() > MAX_SERVICE_BYTES || !service.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!("{} is not the name of a gRPC service", quoted(&service));
        faults.add(&place.key("service"), problem, "write it as orders.v1.Orders");
    }
    Some(ProbeAction::Grpc { port: port?, service })
}

fn port(text: Text<'_>, place: &Place, faults: &mut Faults) -> Option<u16> {
    let key = place.key("port");
    let text = required(text, &key, "give the app's port", faults)?;
    let port = text.value.parse().ok().filter(|port| *port != 0);
    if port.is_none() {
        let problem = format!("{} is not a port", quoted(&text.value));
        faults.add(&key.at(text), problem, "give a number from 1 to 65535");
    }
    port
}

fn path(text: Text<'_>, place: &Place, faults: &mut Faults) -> String {
    let Some(text) = text else { return defaults::PROBE_PATH.to_owned() };
    let is_path = text.value.starts_with('/')
        && !text.value.contains('#')
        && text.value.bytes().all(|byte| byte.is_ascii_graphic())
        && text.value.parse::<PathAndQuery>().is_ok();
    if !is_path {
        let problem = format!("{} is not a path", quoted(&text.value));
        faults.add(&place.key("path").at(text), problem, "write it as /healthz or /ready?full=1");
    }
    text.value.clone()
}

/// Where in the place of the address that was asked. Probes leave the pod for nobody.
fn host(text: Text<'_>, place: &Place, faults: &mut Faults) -> Option<IpAddr> {
    let text = text?;
    if text.value.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let host = text.value.parse().ok().filter(IpAddr::is_loopback);
    if host.is_none() {
        let problem = format!("{} is not this host", quoted(&text.value));
        let remedy = "leave it out: the address that is asked is used; or name a loopback address. Whom a request \
                      is for is said by a header host";
        faults.add(&place.key("host").at(text), problem, remedy);
    }
    host
}

fn headers(raw: &raw::HttpProbe, place: &Place, faults: &mut Faults) -> Vec<(HeaderName, HeaderValue)> {
    let Some(list) = &raw.headers else { return Vec::new() };
    let place = place.key("headers").at(list);
    if list.value.len() > MAX_HEADERS {
        faults.add(&place, format!("{} fields", list.value.len()), format!("keep to {MAX_HEADERS}"));
        return Vec::new();
    }
    let items = list.value.iter().enumerate();
    items.filter_map(|(index, item)| field(item, &place.item(index).at(item), faults)).collect()
}

fn field(
    raw: &Spanned<raw::NameAndValue>,
    place: &Place,
    faults: &mut Faults,
) -> Option<(HeaderName, HeaderValue)> {
    report_odd_keys(&raw.value.odd_keys, raw::NameAndValue::KEYS, place, faults);
    let key = place.key("name");
    let text = required(raw.value.name.as_ref(), &key, "name the field", faults);
    let name = text.and_then(|text| {
        let name = HeaderName::from_bytes(text.value.as_bytes()).ok().filter(|name| !OURS.contains(name));
        if name.is_none() {
            let problem = format!("{} is not a field that a probe can have", quoted(&text.value));
            faults.add(
                &key.at(text),
                problem,
                "name one as x-probe or host; none of the connection or the body",
            );
        }
        name
    });
    let key = place.key("value");
    let text = required(raw.value.value.as_ref(), &key, "give the field a value", faults)?;
    let value = HeaderValue::from_str(&text.value).ok().filter(|_| text.value.len() <= MAX_VALUE_BYTES);
    if value.is_none() {
        let remedy = format!("use printable ASCII characters, at most {MAX_VALUE_BYTES}");
        faults.add(&key.at(text), "is not the value of a field", remedy);
    }
    let mut value = value?;
    // It may be a credential: it is shown nowhere.
    value.set_sensitive(true);
    Some((name?, value))
}
