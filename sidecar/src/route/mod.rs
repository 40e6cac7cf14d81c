//! Routing: which cluster a request goes to.
//!
//! The whole match is the authority, compared exactly after one normalisation; there are no patterns to be clever with.
//! Only outbound requests are routed: an inbound listener has one cluster, its own app, and what a downstream writes
//! into an authority must never lead there.

mod authority;

use std::sync::Arc;

use crate::model::{Cluster, ClusterName, Snapshot, transport::Transport};

use authority::host;
pub use authority::{canonical, port};

/// Finds the cluster for an authority (`host` or `host:port`).
///
/// The authority is compared in its [`canonical`] form: first as it is, then its host alone, whatever the port; the
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
        let authority = canonical(authority)?;
        snapshot.routes.get(&*authority).or_else(|| snapshot.routes.get(host(&authority)))
    };
    let cluster = snapshot.cluster(name.or(default)?)?;
    match &cluster.settings.transport {
        Transport::Mesh(..) | Transport::Public(_) | Transport::Plain(_) => Some(cluster),
        Transport::App => None,
    }
}

#[cfg(test)]
mod tests;
