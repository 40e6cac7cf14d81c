//! `inbound` and `outbound`: listeners, and the clusters of the own app behind the inbound ones.

use std::{net::SocketAddr, sync::Arc};

use serde_saphyr::Spanned;

use super::{MAX_LISTENERS, own_app, proxy_protocol::proxy_protocol};
use crate::{
    config::{
        defaults, raw,
        value::{Text, address, choice, name, required},
    },
    model::{
        cluster::{ClusterName, ClusterSettings, EndpointSettings},
        file::{Faults, Place, report_odd_keys},
        listener::{Listener, ListenerKind, Protocol},
    },
};

/// Every inbound listener with its own-app cluster.
pub(super) fn inbound(file: &raw::File, faults: &mut Faults) -> Vec<(Listener, ClusterSettings)> {
    items(file.inbound.as_ref(), "inbound", faults)
        .into_iter()
        .enumerate()
        .filter_map(|(index, (raw, place))| inbound_listener(raw, index, &place, faults))
        .collect()
}

/// Every outbound listener.
pub(super) fn outbound(file: &raw::File, faults: &mut Faults) -> Vec<Listener> {
    items(file.outbound.as_ref(), "outbound", faults)
        .into_iter()
        .enumerate()
        .filter_map(|(index, (raw, place))| outbound_listener(raw, index, &place, faults))
        .collect()
}

/// The items of a list with their places; none, with a fault, if there are too many.
pub(super) fn items<'a, T>(
    list: Option<&'a Spanned<Vec<Spanned<T>>>>,
    key: &str,
    faults: &mut Faults,
) -> Vec<(&'a T, Place)> {
    let Some(list) = list else { return Vec::new() };
    let place = Place::root().key(key).at(list);
    if list.value.len() > MAX_LISTENERS {
        let problem = format!("{} listeners", list.value.len());
        faults.add(&place, problem, format!("keep to {MAX_LISTENERS}"));
        return Vec::new();
    }
    list.value.iter().enumerate().map(|(index, item)| (&item.value, place.item(index).at(item))).collect()
}

fn inbound_listener(
    raw: &raw::Inbound,
    index: usize,
    place: &Place,
    faults: &mut Faults,
) -> Option<(Listener, ClusterSettings)> {
    report_odd_keys(&raw.odd_keys, raw::Inbound::KEYS, place, faults);
    let name = listener_name(raw.name.as_ref(), "inbound", index, place, faults);
    let listen =
        required_address(raw.listen.as_ref(), &place.key("listen"), "give the IP:port to accept on", faults);
    let app = app_address(raw.app.as_ref(), &place.key("app"), faults);
    let protocol = choice(raw.protocol.as_ref(), &defaults::INBOUND_PROTOCOL, place, faults);
    let endpoints = app.map(|address| EndpointSettings::new(address, Arc::from([])));
    let app = (&*name, protocol, endpoints.into_iter().collect());
    let (rules, cluster) = own_app::inbound(&raw.into(), app, place, faults);
    let kind = ListenerKind::Inbound(Arc::new(rules));
    Some((Listener { name, address: listen?, kind, proxy_protocol: None }, cluster))
}

fn app_address(text: Text<'_>, place: &Place, faults: &mut Faults) -> Option<SocketAddr> {
    let app = required_address(text, place, "give the own app's IP:port", faults)?;
    if app.port() == 0 || app.ip().is_unspecified() {
        let place = text.map_or_else(|| place.clone(), |text| place.at(text));
        let problem = format!("{app} is not an address one can connect to");
        faults.add(&place, problem, "give the own app's IP and port, as 127.0.0.1:8080");
    }
    Some(app)
}

fn outbound_listener(
    raw: &raw::Outbound,
    index: usize,
    place: &Place,
    faults: &mut Faults,
) -> Option<Listener> {
    report_odd_keys(&raw.odd_keys, raw::Outbound::KEYS, place, faults);
    let name = listener_name(raw.name.as_ref(), "outbound", index, place, faults);
    let listen =
        required_address(raw.listen.as_ref(), &place.key("listen"), "give the IP:port to accept on", faults);
    let protocol = choice(raw.protocol.as_ref(), &defaults::PROTOCOL, place, faults);
    let cluster = raw.cluster.as_ref().map(|text| ClusterName::new(&text.value));
    let proxy_protocol = proxy_protocol(raw.proxy_protocol.as_ref(), place, faults);
    let kind = match (protocol, cluster) {
        (Protocol::Http | Protocol::Detect, default_cluster) => {
            ListenerKind::OutboundHttp { default_cluster }
        }
        (Protocol::Tcp, Some(cluster)) => ListenerKind::OutboundTcp { cluster },
        (Protocol::Tcp, None) => {
            faults.add(&place.key("cluster"), "is missing", "name the cluster that the bytes go to");
            return None;
        }
    };
    Some(Listener { name, address: listen?, kind, proxy_protocol })
}

fn listener_name(
    text: Text<'_>,
    direction: &str,
    index: usize,
    place: &Place,
    faults: &mut Faults,
) -> Arc<str> {
    text.map_or_else(|| format!("{direction}-{index}"), |text| name(text, &place.key("name"), faults)).into()
}

fn required_address(text: Text<'_>, place: &Place, remedy: &str, faults: &mut Faults) -> Option<SocketAddr> {
    required(text, place, remedy, faults).and_then(|text| address(text, place, faults))
}
