//! What comes in past mutual TLS by a configuration, for `outrider check`: no list of callers and no rule holds for it.

use outrider::model::{
    ListenerKind, Settings,
    listener::{Exceptions, InterceptedInbound},
};

use super::check::few;

/// A line for each exception of each port.
pub(super) fn exceptions(settings: &Settings) -> Vec<String> {
    let mut lines: Vec<String> = intercepted(settings).into_iter().flat_map(of_ports).collect();
    if let Some(intercept) = &settings.bootstrap.intercept {
        let (ports, sources) = (&intercept.inbound.except_ports, &intercept.inbound.except_cidrs);
        lines.extend(ports.iter().map(|port| format!("port {port}: LEFT ALONE, whoever calls")));
        lines
            .extend(sources.iter().map(|source| format!("callers from {source}: LEFT ALONE, at every port")));
    }
    lines
}

fn intercepted(settings: &Settings) -> Option<&InterceptedInbound> {
    settings.listeners.iter().find_map(|listener| match &listener.kind {
        ListenerKind::InterceptedInbound(intercepted) => Some(intercepted),
        ListenerKind::OutboundHttp { .. }
        | ListenerKind::OutboundTcp { .. }
        | ListenerKind::Inbound(_)
        | ListenerKind::InterceptedOutbound { .. } => None,
    })
}

fn of_ports(intercepted: &InterceptedInbound) -> Vec<String> {
    let named = intercepted.ports.iter().map(|(port, rules)| (format!("port {port}"), rules));
    let all = named.chain([("every other port".to_owned(), &intercepted.others)]);
    all.flat_map(|(port, rules)| of_port(&port, &rules.exceptions)).collect()
}

fn of_port(port: &str, exceptions: &Exceptions) -> Vec<String> {
    let Exceptions { plaintext_until, probes, app_tls, from, trusted_hops: _ } = exceptions;
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    let from = if from.is_empty() { "anybody".to_owned() } else { few(&from) };
    let plaintext = plaintext_until.map(|until| {
        let until = humantime::format_rfc3339_seconds(until);
        format!("{port}: PLAINTEXT from {from}, until {until}")
    });
    let probes = (!probes.is_empty()).then(|| format!("{port}: probes of {} from {from}", few(probes)));
    let app_tls = app_tls.then(|| format!("{port}: TLS of the app's own from {from}"));
    [plaintext, probes, app_tls].into_iter().flatten().collect()
}
