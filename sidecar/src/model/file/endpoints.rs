//! `endpoints:`: the list that stands in the configuration or in a file of its own.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use outrider_certs::SpiffeId;
use serde_saphyr::Spanned;

use super::{Fault, Faults, Place, quoted, read, report_odd_keys, section};
use crate::model::{EndpointSettings, endpoint::MAX_WEIGHT, transport::ExpectedIds};

/// Endpoints of one cluster. As many as one file of `MAX_FILE_BYTES` comfortably holds.
pub const MAX_ENDPOINTS: usize = 10_000;

/// Bytes of a zone's name.
const MAX_ZONE_BYTES: usize = 128;

section! {
    /// One item of `endpoints:` as it stands in the file.
    pub struct RawEndpoint {
        /// `IP:port`.
        address: String,
        /// Who must answer there.
        spiffe_id: String,
        /// Its share of requests.
        weight: String,
        /// Where it stands.
        zone: String,
        /// Whether it takes requests.
        ready: String,
    }
}

section! {
    /// An endpoints file as it stands.
    struct RawFile {
        endpoints: Vec<Spanned<RawEndpoint>>,
    }
}

/// Reads a watched endpoints file. An empty list is valid (a service scaled to nothing); a file without the key is
/// not, so that one caught while it is being written never empties a cluster.
///
/// # Errors
/// Every fault of the file; the caller keeps its last good list.
pub fn parse_endpoints(text: &str, expected: &ExpectedIds) -> Result<Vec<EndpointSettings>, Vec<Fault>> {
    let raw: RawFile = read(text).map_err(|fault| vec![fault])?;
    let mut faults = Faults::default();
    report_odd_keys(&raw.odd_keys, RawFile::KEYS, &Place::root(), &mut faults);
    let place = Place::root().key("endpoints");
    let endpoints = match &raw.endpoints {
        Some(list) => validate_endpoints(&list.value, &place.at(list), expected, &mut faults),
        None => {
            faults.add(&place, "is missing", "write `endpoints:` with a list, or `endpoints: []` for none");
            Vec::new()
        }
    };
    if faults.is_empty() { Ok(endpoints) } else { Err(faults.into_vec()) }
}

/// Checks a list of endpoints. Those that name no SPIFFE ID get the cluster's; with none of either it is a fault,
/// because an endpoint that may be anyone is one that nobody verified. So is an ID where nobody asks for it.
pub fn validate_endpoints(
    list: &[Spanned<RawEndpoint>],
    place: &Place,
    expected: &ExpectedIds,
    faults: &mut Faults,
) -> Vec<EndpointSettings> {
    if list.len() > MAX_ENDPOINTS {
        faults.add(
            place,
            format!("{} endpoints", list.len()),
            format!("keep to {MAX_ENDPOINTS} per cluster"),
        );
        return Vec::new();
    }
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    let mut endpoints = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(endpoint) = validate_endpoint(&item.value, &place, expected, faults) else { continue };
        if let Some(first) = seen.insert(endpoint.address, index) {
            let problem = format!("{} is also the address of endpoint {first}", endpoint.address);
            faults.add(&place.key("address"), problem, "list every address once");
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn validate_endpoint(
    raw: &RawEndpoint,
    place: &Place,
    expected: &ExpectedIds,
    faults: &mut Faults,
) -> Option<EndpointSettings> {
    report_odd_keys(&raw.odd_keys, RawEndpoint::KEYS, place, faults);
    let address = validate_address(raw.address.as_ref(), &place.key("address"), faults);
    let weight = validate_weight(raw.weight.as_ref(), place, faults);
    let zone = raw.zone.as_ref().and_then(|zone| validate_zone(zone, &place.key("zone"), faults));
    let is_ready = validate_ready(raw.ready.as_ref(), place, faults);
    let place = place.key("spiffe_id");
    let spiffe_ids = match (&raw.spiffe_id, expected) {
        (Some(text), ExpectedIds::Outside) => {
            let remedy = "leave it out: outside the mesh nobody proves a SPIFFE ID";
            faults.add(&place.at(text), "is for tls: mesh only", remedy);
            None
        }
        (None, ExpectedIds::Outside) => Some(Arc::from([])),
        (Some(text), ExpectedIds::OneOf(_)) => {
            validate_spiffe_id(text, &place, faults).map(|id| Arc::from([id]))
        }
        (None, ExpectedIds::OneOf(ids)) if ids.is_empty() => {
            let remedy = "say who must answer there, here or for the whole cluster in spiffe_ids";
            faults.add(&place, "is missing", remedy);
            None
        }
        (None, ExpectedIds::OneOf(ids)) => Some(Arc::clone(ids)),
    };
    Some(EndpointSettings { address: address?, spiffe_ids: spiffe_ids?, weight, zone, is_ready })
}

fn validate_weight(raw: Option<&Spanned<String>>, place: &Place, faults: &mut Faults) -> u32 {
    let Some(raw) = raw else { return 1 };
    let weight = raw.value.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
    if weight.is_none() {
        let problem = format!("{} is not a weight", quoted(&raw.value));
        let remedy = format!("keep to 1..={MAX_WEIGHT}");
        faults.add(&place.key("weight").at(raw), problem, remedy);
    }
    weight.unwrap_or(1)
}

/// A zone's name: what operators call it, compared as it is.
pub fn validate_zone(raw: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<Arc<str>> {
    let fits = (1..=MAX_ZONE_BYTES).contains(&raw.value.len())
        && raw.value.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        let problem = format!("{} is not a zone", quoted(&raw.value));
        let remedy = format!("use 1 to {MAX_ZONE_BYTES} printable ASCII characters without spaces");
        faults.add(&place.at(raw), problem, remedy);
    }
    fits.then(|| Arc::from(raw.value.as_str()))
}

fn validate_ready(raw: Option<&Spanned<String>>, place: &Place, faults: &mut Faults) -> bool {
    let Some(raw) = raw else { return true };
    let is_ready = raw.value.parse().ok();
    if is_ready.is_none() {
        let problem = format!("{} is neither true nor false", quoted(&raw.value));
        faults.add(&place.key("ready").at(raw), problem, "write true or false");
    }
    is_ready.unwrap_or(true)
}

fn validate_address(raw: Option<&Spanned<String>>, place: &Place, faults: &mut Faults) -> Option<SocketAddr> {
    let Some(raw) = raw else {
        faults.add(place, "is missing", "give the endpoint's IP:port");
        return None;
    };
    let place = place.at(raw);
    match raw.value.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 || address.ip().is_unspecified() => {
            let problem = format!("{address} is not an address one can connect to");
            faults.add(&place, problem, "give the endpoint's own IP and port");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let problem = format!("{} is not an IP address with a port", quoted(&raw.value));
            faults.add(
                &place,
                problem,
                "write it as 10.0.0.7:4343 or [fd00::7]:4343; names are not resolved here",
            );
            None
        }
    }
}

/// Checks a list of workload SPIFFE IDs; an empty one and duplicates are faults.
pub fn validate_spiffe_ids(
    list: &Spanned<Vec<Spanned<String>>>,
    place: &Place,
    faults: &mut Faults,
) -> Vec<SpiffeId> {
    let mut ids: Vec<SpiffeId> = Vec::new();
    if list.value.is_empty() {
        faults.add(&place.at(list), "is an empty list", "list at least one SPIFFE ID, or leave the key out");
    }
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index);
        let Some(id) = validate_spiffe_id(item, &place, faults) else { continue };
        if ids.contains(&id) {
            faults.add(&place.at(item), format!("{id} stands here twice"), "list every ID once");
        } else {
            ids.push(id);
        }
    }
    ids
}

fn validate_spiffe_id(raw: &Spanned<String>, place: &Place, faults: &mut Faults) -> Option<SpiffeId> {
    let place = place.at(raw);
    match SpiffeId::parse(&raw.value) {
        Ok(id) if id.is_workload() => Some(id),
        Ok(id) => {
            let problem = format!("{:?} names a trust domain, not a workload", id.as_str());
            faults.add(&place, problem, "add the workload's path, as in spiffe://prod.example/orders");
            None
        }
        Err(error) => {
            let problem = format!("{} is not a SPIFFE ID: {error}", quoted(&raw.value));
            faults.add(&place, problem, "write it as spiffe://<trust domain>/<path>");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_ids() -> ExpectedIds {
        ExpectedIds::OneOf(Arc::from([SpiffeId::parse("spiffe://demo.outrider/orders").unwrap()]))
    }

    #[test]
    fn an_endpoint_without_an_id_inherits_the_clusters() {
        let text = "endpoints:\n- address: 10.0.0.7:4343\n- address: '[fd00::7]:4343'\n  spiffe_id: spiffe://demo.outrider/own\n";
        let endpoints = parse_endpoints(text, &default_ids()).unwrap();
        assert_eq!(endpoints[0].spiffe_ids[0].as_str(), "spiffe://demo.outrider/orders");
        assert_eq!(endpoints[1].spiffe_ids[0].as_str(), "spiffe://demo.outrider/own");
    }

    #[test]
    fn an_empty_list_is_valid_and_an_empty_file_is_not() {
        assert_eq!(parse_endpoints("endpoints: []", &default_ids()).unwrap(), []);
        for text in ["", "\n", "{}", "# soon\n", "endpoints:\n"] {
            assert!(parse_endpoints(text, &default_ids()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_fault_is_named_with_path_and_line() {
        let text = "endpoints:\n- address: orders:80\n- spiffe_id: spiffe://x\n- address: 1.2.3.4:5\n- address: 1.2.3.4:5\n- {address: '1.2.3.4:0'}\n";
        let faults = parse_endpoints(text, &default_ids()).unwrap_err();
        let found: Vec<(&str, Option<u64>)> =
            faults.iter().map(|fault| (fault.path.as_str(), fault.line)).collect();
        assert_eq!(
            found,
            [
                ("endpoints[0].address", Some(2)),
                ("endpoints[1].address", Some(3)),
                ("endpoints[1].spiffe_id", Some(3)),
                ("endpoints[3].address", Some(5)),
                ("endpoints[4].address", Some(6)),
            ]
        );
    }

    #[test]
    fn nobody_in_particular_is_a_fault() {
        let faults =
            parse_endpoints("endpoints: [{address: '1.2.3.4:5'}]", &ExpectedIds::OneOf(Arc::from([])))
                .unwrap_err();
        assert_eq!(faults[0].path, "endpoints[0].spiffe_id");
    }

    #[test]
    fn outside_the_mesh_nobody_has_an_id() {
        let text = "endpoints: [{address: '1.2.3.4:5'}]";
        assert!(parse_endpoints(text, &ExpectedIds::Outside).unwrap()[0].spiffe_ids.is_empty());
        let text = "endpoints: [{address: '1.2.3.4:5', spiffe_id: spiffe://demo.outrider/orders}]";
        let faults = parse_endpoints(text, &ExpectedIds::Outside).unwrap_err();
        assert_eq!(faults[0].path, "endpoints[0].spiffe_id");
    }
}
