//! Routing: which cluster a request goes to, and what holds for it there.
//!
//! A cluster is found by the authority, compared exactly after one normalisation, or by the [rules](table) of its host or
//! service. What holds is the cluster's policy, that of one of its [routes](mod@policy), or that of the rule.
//! Only outbound requests are routed: an inbound listener has one cluster, its own app, and what a downstream writes
//! into an authority must never lead there.

pub mod matching;
pub mod mirror;
mod policy;
mod query;
pub mod rewrite;
pub mod table;
pub mod tcp;
pub mod weighted;

use std::{net::SocketAddr, sync::Arc};

use crate::{
    canonical::{self, host},
    model::{Cluster, ClusterName, Endpoint, Snapshot, cluster::ServiceAddress, transport::Transport},
};

pub use policy::{ByRule, Chosen, chosen, chosen_again, most_specific_first, policy};

/// Finds the cluster for an authority (`host` or `host:port`).
///
/// The authority is compared in its [canonical](canonical::authority) form: first as it is, then its host alone, whatever the port; the
/// keys of `snapshot.routes` are in that form. What no cluster names goes to `default`, also an empty authority.
///
/// `None`: there is no such cluster, or the text is not an authority (this is not sent to `default` either), or the
/// cluster is the own app's. Two or three hash look-ups; no allocation if the authority came in canonical form.
#[must_use]
pub fn find<'a>(
    snapshot: &'a Snapshot,
    authority: &str,
    default: Option<&ClusterName>,
) -> Option<&'a Arc<Cluster>> {
    let name = if authority.is_empty() {
        None
    } else {
        let authority = canonical::authority(authority)?;
        snapshot.routes.get(&*authority).or_else(|| snapshot.routes.get(host(&authority)))
    };
    let cluster = snapshot.cluster(name.or(default)?)?;
    match &cluster.settings.transport {
        Transport::Mesh(..) | Transport::Public(_) | Transport::Plain(_) => Some(cluster),
        Transport::App => None,
    }
}

/// Who is at an address.
#[derive(Clone, Copy, Debug)]
pub enum AtAddress<'a> {
    /// A service: any endpoint of the cluster will do.
    Service(&'a Arc<Cluster>),
    /// This endpoint of the cluster: whoever dialled it has chosen already.
    Endpoint(&'a Arc<Cluster>, &'a Arc<Endpoint>),
    /// Nobody that we know.
    Unknown,
}

/// Finds who is at the address that a connection was made to: a service by address and port, then by its address
/// alone, then one endpoint. Two or three hash look-ups.
#[must_use]
pub fn at_address(snapshot: &Snapshot, address: SocketAddr) -> AtAddress<'_> {
    let known = &snapshot.addresses;
    let service = |port| known.services.get(&ServiceAddress { ip: address.ip(), port });
    if let Some(cluster) = service(Some(address.port())).or_else(|| service(None)) {
        return snapshot.cluster(cluster).map_or(AtAddress::Unknown, AtAddress::Service);
    }
    let Some((cluster, endpoint)) = known.endpoints.get(&address) else { return AtAddress::Unknown };
    snapshot.cluster(cluster).map_or(AtAddress::Unknown, |cluster| AtAddress::Endpoint(cluster, endpoint))
}

#[cfg(test)]
mod tests;
