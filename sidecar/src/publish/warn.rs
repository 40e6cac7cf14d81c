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
    for (port, exceptions) in new_exceptions(previous, next) {
        tracing::warn!(
            port = port.map_or_else(|| "other".to_owned(), |port| port.to_string()),
            plaintext_until = exceptions.plaintext_until.map(date),
            probes = ?exceptions.probes,
            app_tls = if exceptions.app_tls { "passthrough" } else { "terminate" },
            from = ?exceptions.from,
            trusted_hops = exceptions.trusted_hops,
            "callers of this port may come in without mutual TLS: nobody proves who they are"
        );
    }
}

/// The ports whose exceptions were not in force before; `None` stands for those without rules of their own.
fn new_exceptions<'a>(previous: &Snapshot, next: &'a Snapshot) -> Vec<(Option<u16>, &'a Exceptions)> {
    // Before the first there was nothing in force.
    let before = if previous.version == 0 { None } else { intercepted(previous) };
    let Some(after) = intercepted(next) else { return Vec::new() };
    let ports = after.ports.keys().map(|port| Some(*port)).chain([None]);
    let is_new = |port, exceptions: &Exceptions| {
        !exceptions.is_none() && before.is_none_or(|before| of(before, port) != exceptions)
    };
    ports.map(|port| (port, of(after, port))).filter(|(port, found)| is_new(*port, found)).collect()
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

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{config, model::Generation};

    fn snapshot(version: u64, inbound: &str) -> Snapshot {
        let yaml = format!(
            "service: a\ntrust_domain: t\nidentity: {{file: {{certificate: a, key: b, bundle: c}}}}\n\
             intercept: {{inbound: {{{inbound}}}}}"
        );
        let settings = config::parse(&yaml, Path::new("/")).unwrap();
        Snapshot { version, ..Snapshot::empty(Arc::new(Generation::first(Arc::new(settings)))) }
    }

    fn named(previous: &Snapshot, next: &Snapshot) -> Vec<Option<u16>> {
        new_exceptions(previous, next).into_iter().map(|(port, _)| port).collect()
    }

    #[test]
    fn each_port_with_an_exception_is_named_when_it_comes_into_force_and_not_again() {
        let probes = "{port: 1, probes: [/healthz]}";
        let first = format!("ports: [{probes}, {{port: 2}}, {{port: 3, app_tls: passthrough}}]");
        // What a process begins with is the configuration that is about to come into force.
        assert_eq!(named(&snapshot(0, &first), &snapshot(1, &first)), [Some(1), Some(3)]);
        assert_eq!(named(&snapshot(1, &first), &snapshot(2, &first)), []);
        let second = format!(
            "ports: [{probes}, {{port: 2, probes: [/]}}, {{port: 3}}], other_ports: {{app_tls: passthrough}}"
        );
        assert_eq!(named(&snapshot(2, &first), &snapshot(3, &second)), [Some(2), None]);
        // A port that had the rules of the others and has the same as its own is nothing new.
        let third = "ports: [{port: 4, app_tls: passthrough}], other_ports: {app_tls: passthrough}";
        assert_eq!(named(&snapshot(3, &second), &snapshot(4, third)), []);
        let open_end = "other_ports: {plaintext: permissive, plaintext_until: 2999-01-01}";
        assert_eq!(named(&snapshot(4, third), &snapshot(5, open_end)), [None]);
    }
}
