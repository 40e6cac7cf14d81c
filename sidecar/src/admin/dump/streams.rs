//! What `/config` shows of opaque streams and of the PROXY protocol.

use serde_json::{Value, json};

use crate::model::{
    ClusterName,
    proxy_protocol::{ProxyProtocol, Version},
    tcp_route::TcpRoute,
};

/// Whose word is taken for where a connection comes from.
pub(super) fn proxy_protocol(rules: &ProxyProtocol) -> Value {
    let from: Vec<String> = rules.from.iter().map(ToString::to_string).collect();
    json!({ "from": from, "required": rules.is_required })
}

/// Where opaque streams go.
pub(super) fn tcp_route(route: &TcpRoute) -> Value {
    let names = |names: &[ClusterName]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    json!({
        "name": &*route.name,
        "services": names(&route.services),
        "ports": route.ports,
        "snis": route.snis.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "clusters": route.clusters.list().iter()
            .map(|cluster| json!({ "name": cluster.name.as_str(), "weight": cluster.weight }))
            .collect::<Vec<_>>(),
    })
}

/// A version of the PROXY protocol.
pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    }
}
