//! `tcp_routes`: where opaque streams go.

use std::sync::Arc;

use serde_saphyr::Spanned;

use super::{
    intercept::{PORT, entries, to_port},
    references::cluster_names,
    weighted,
};
use crate::{
    canonical,
    config::{
        raw,
        value::{name, required},
    },
    model::{
        cluster::ClusterName,
        file::{Faults, Place, quoted, report_odd_keys},
        tcp_route::{Sni, TcpRoute, TcpRoutes},
    },
};

/// Routes of one file: each stream looks at all of them.
const MAX_ROUTES: usize = 1000;
/// What a name of a TLS server is, and how to write one.
const SNI: (&str, &str) =
    ("a name that a TLS client says", "write it as db.example, or *.db.example for all below");

/// Checks the section.
pub(super) fn tcp_routes(file: &raw::File, faults: &mut Faults) -> TcpRoutes {
    let Some(list) = &file.tcp_routes else { return TcpRoutes::default() };
    let place = Place::root().key("tcp_routes").at(list);
    if list.value.len() > MAX_ROUTES {
        let problem = format!("{} routes", list.value.len());
        faults.add(&place, problem, format!("keep to {MAX_ROUTES}"));
        return TcpRoutes::default();
    }
    let known = cluster_names(file);
    let mut routes: Vec<TcpRoute> = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(route) = route(&item.value, &known, &place, faults) else { continue };
        if routes.iter().any(|other| other.name == route.name) {
            let problem = format!("{} is also the name of another", quoted(&route.name));
            faults.add(&place.key("name"), problem, "give every route its own name");
        }
        routes.push(route);
    }
    TcpRoutes(routes)
}

fn route(raw: &raw::TcpRoute, known: &[&str], place: &Place, faults: &mut Faults) -> Option<TcpRoute> {
    report_odd_keys(&raw.odd_keys, raw::TcpRoute::KEYS, place, faults);
    let text = required(raw.name.as_ref(), &place.key("name"), "give the route a name", faults);
    let route_name: Arc<str> =
        text.map(|text| name(text, &place.key("name"), faults)).unwrap_or_default().into();
    let lists = [("services", &raw.services), ("ports", &raw.ports), ("snis", &raw.snis)];
    for (key, list) in lists {
        if let Some(list) = list.as_ref().filter(|list| list.value.is_empty()) {
            // It would read as "none" and mean "any".
            let remedy = "list at least one, or leave the key out";
            faults.add(&place.key(key).at(list), "is an empty list", remedy);
        }
    }
    if lists.iter().all(|(_, list)| list.is_none()) {
        let remedy = "give services, ports or snis: without any it would be every stream's";
        faults.add(place, "has no condition", remedy);
    }
    let services = services(raw.services.as_ref(), known, &place.key("services"), faults);
    let ports = entries(raw.ports.as_ref(), place.key("ports"), PORT, to_port, faults);
    let snis = entries(raw.snis.as_ref(), place.key("snis"), SNI, sni, faults);
    let Some(list) = &raw.clusters else {
        faults.add(&place.key("clusters"), "is missing", "list the clusters that the streams go to");
        return None;
    };
    let clusters = weighted::clusters(list, known, place, faults)?;
    Some(TcpRoute { name: route_name, services, ports, snis, clusters })
}

fn services(
    list: Option<&Spanned<raw::Texts>>,
    known: &[&str],
    place: &Place,
    faults: &mut Faults,
) -> Vec<ClusterName> {
    let Some(list) = list else { return Vec::new() };
    for (index, text) in list.value.iter().enumerate() {
        weighted::is_known(text, known, &place.item(index).at(text), faults);
    }
    let any = |text: &str| Some(ClusterName::new(text));
    entries(Some(list), place.clone(), ("the name of a cluster", "name one under clusters"), any, faults)
}

/// A name as a ClientHello says it, which is never an address (RFC 6066 §3); wildcards are of whole labels.
fn sni(text: &str) -> Option<Sni> {
    let (is_wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let canonical = canonical::authority(name)?;
    let is_name =
        canonical.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
            && canonical.parse::<std::net::Ipv4Addr>().is_err()
            && !canonical.is_empty();
    is_name.then(|| {
        if is_wildcard { Sni::Under(format!(".{canonical}").into()) } else { Sni::Exact(canonical.into()) }
    })
}
