//! Probes of the own app, as configured.

use serde_json::{Value, json};

use super::config::duration;
use crate::model::probe::{Probe, ProbeAction};

/// Fields of its request by their names only: one may be a credential.
pub(super) fn probe(probe: &Probe) -> Value {
    let action = match &probe.action {
        ProbeAction::Http(http) => json!({
            "port": http.port,
            "path": http.path,
            "scheme": if http.is_tls { "https" } else { "http" },
            "host": http.host,
            "headers": http.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        }),
        ProbeAction::Tcp { port, host } => json!({ "port": port, "host": host }),
        ProbeAction::Grpc { port, service } => json!({ "port": port, "service": service }),
    };
    json!({ "name": probe.name, probe.action.label(): action, "timeout": duration(probe.timeout) })
}
