//! What a configuration lets past mutual TLS, told once: nobody should find out by chance.

use std::time::SystemTime;

use crate::model::{
    Cluster, ClusterName, ListenerKind, Snapshot,
    listener::{Exceptions, InterceptedInbound},
    transport::Transport,
};

/// Names every cluster whose traffic is not encrypted.
pub(super) fn of_unencrypted(previous: &Snapshot, next: &Snapshot) {
    // What passes through is as the app made it: nobody asked us to take anything off.
    let is_plain = |cluster: &Cluster| {
        matches!(cluster.settings.transport, Transport::Plain(_))
            && *cluster.name() != ClusterName::passthrough()
    };
    for cluster in next.clusters.values().filter(|cluster| is_plain(cluster)) {
        if !previous.cluster(cluster.name()).is_some_and(|before| is_plain(before)) {
            tracing::warn!(
                cluster = %cluster.name(),
                "tls: none: requests to this cluster leave unencrypted, and nobody proves who answers them"
            );
        }
    }
}

/// Names every port that lets callers in who do not prove who they are.
pub(super) fn of_exceptions(previous: &Snapshot, next: &Snapshot) {
    // Before the first there was nothing in force.
    let before = if previous.version == 0 { None } else { intercepted(previous) };
    let Some(after) = intercepted(next) else { return };
    let ports = after.ports.keys().map(|port| Some(*port)).chain([None]);
    for port in ports {
        let exceptions = of(after, port);
        let is_new = before.is_none_or(|before| of(before, port) != exceptions);
        if !exceptions.is_none() && is_new {
            tracing::warn!(
                port = port.map_or_else(|| "other".to_owned(), |port| port.to_string()),
                plaintext_until = exceptions.plaintext_until.map(date),
                probes = ?exceptions.probes,
                app_tls = if exceptions.app_tls { "passthrough" } else { "terminate" },
                "callers of this port may come in without mutual TLS: nobody proves who they are"
            );
        }
    }
}

fn intercepted(snapshot: &Snapshot) -> Option<&InterceptedInbound> {
    snapshot.config.listeners.values().find_map(|entry| match &entry.settings.kind {
        ListenerKind::InterceptedInbound(intercepted) => Some(intercepted),
        ListenerKind::OutboundHttp { .. }
        | ListenerKind::OutboundTcp { .. }
        | ListenerKind::Inbound(_)
        | ListenerKind::InterceptedOutbound { .. } => None,
    })
}

/// The exceptions of a port; of those without rules of their own, for `None`.
fn of(intercepted: &InterceptedInbound, port: Option<u16>) -> &Exceptions {
    let rules = port.map_or(&intercepted.others, |port| intercepted.of(port));
    &rules.exceptions
}

fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
