//! What keeps requests of one kind with one endpoint: the key by which the balancer chooses.
//!
//! A cookie that we issue holds a key that leads to the endpoint that answered, whichever that was: so it means the same to
//! every sidecar, worker and process of the cluster, and nothing is stored. It says nothing of who that endpoint is.

use std::net::IpAddr;

use http::{HeaderMap, header::SET_COOKIE, request::Parts};

use super::{
    attempt::Answer,
    door::{Door, From},
};
use crate::{
    headers::cookie,
    model::{Cluster, Snapshot, balance::AffinityBy, maglev::hash},
};

/// What is known of where a request belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// What leads to its endpoint; `None`: nothing yet.
    pub(super) key: Option<u64>,
    /// Its answer is to carry a cookie that does, from then on.
    pub(super) needs_cookie: bool,
}

/// Where a request belongs, by its head as it came.
pub(super) fn of_request(cluster: &Cluster, door: &Door, snapshot: &Snapshot, head: &Parts) -> Kept {
    let Some(affinity) = &cluster.settings.balancing.affinity else { return Kept::default() };
    let key = match &affinity.by {
        AffinityBy::Header(name) => head.headers.get(name).map(|value| hash(value.as_bytes())),
        AffinityBy::Cookie { name, .. } => {
            let key = cookie::value(&head.headers, name).map(cookie_key);
            return Kept { key, needs_cookie: key.is_none() };
        }
        AffinityBy::Source | AffinityBy::SpiffeId => of_connection(cluster, door, snapshot),
    };
    Kept { key, needs_cookie: false }
}

/// Where a stream belongs that is no HTTP: by where it came from. `None` where only a head would tell.
pub(super) fn of_connection(cluster: &Cluster, door: &Door, snapshot: &Snapshot) -> Option<u64> {
    match &cluster.settings.balancing.affinity.as_ref()?.by {
        AffinityBy::Header(_) | AffinityBy::Cookie { .. } => None,
        AffinityBy::Source => Some(match door.source().to_canonical() {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        }),
        AffinityBy::SpiffeId => match &door.from {
            From::Peer { peer, .. } => Some(hash(peer.id().as_str().as_bytes())),
            From::App { .. } | From::Plain { .. } => {
                let own = snapshot.identity.as_ref()?;
                Some(hash(own.svid.id().as_str().as_bytes()))
            }
        },
    }
}

/// Gives an answer the cookie that leads to the endpoint which gave it. Not an answer of that endpoint's sidecar: it may be
/// in no state to be led to.
pub(super) fn issue(cluster: &Cluster, answer: &mut Answer, rng: &mut fastrand::Rng) {
    if answer.processed.is_some() {
        return;
    }
    let address = answer.held.in_flight.endpoint().address();
    let headers = answer.response.headers_mut();
    if let Some(cookie) = cookie_to(cluster, address, headers, rng) {
        headers.append(SET_COOKIE, cookie);
    }
}

/// The cookie that leads to the endpoint at that address, unless the app has set one of that name itself.
fn cookie_to(
    cluster: &Cluster,
    address: std::net::SocketAddr,
    headers: &HeaderMap,
    rng: &mut fastrand::Rng,
) -> Option<http::HeaderValue> {
    let AffinityBy::Cookie { name, ttl } = &cluster.settings.balancing.affinity.as_ref()?.by else {
        return None;
    };
    let is_ours = |value: &http::HeaderValue| {
        value.as_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    if headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return None;
    }
    let place = cluster.endpoints.iter().position(|endpoint| endpoint.address() == address)?;
    let key = cluster.maglev.as_ref()?.key_to(u32::try_from(place).ok()?, rng.u64(..))?;
    cookie::set(name, &format!("{key:016x}"), *ttl)
}

/// The key of a cookie's value: what stands there if it is ours, else what it comes to: an app may set it itself.
fn cookie_key(value: &[u8]) -> u64 {
    let ours = std::str::from_utf8(value).ok().filter(|text| text.len() == 16);
    ours.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or_else(|| hash(value))
}
