//! The sidecar's configuration file, made of what the pod and the installation say.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::probes::Performed;
use crate::{
    documents::{self, yaml},
    installation::Installation,
    json::set,
    names::{
        ADMIN_PORT, BUNDLE_FILE, BUNDLE_FOLDER, INBOUND_PORT, OUTBOUND_PORT, RUN_FOLDER, TOKEN_FOLDER, UID,
    },
    settings::{Except, Settings, Telemetry},
};

/// Seconds that are left when the app has ended: what is under way then is under way to nobody.
pub(super) const LAST_SECONDS: u64 = 5;

/// The key with ports that the kernel's rules leave alone.
const EXCEPT_PORTS: &str = "except_ports";
/// Ports that are believed of a file.
const MAX_PORTS: usize = 256;

/// The file as YAML.
pub(super) fn text(
    service: &str,
    settings: &Settings,
    installation: &Installation,
    probes: Performed,
) -> String {
    let mut file = json!({
        "service": service,
        "trust_domain": installation.trust_domain,
        "state_dir": format!("{RUN_FOLDER}/state"),
        "identity": {"ca": {
            "address": installation.ca_address(),
            "service_account_token_file": format!("{TOKEN_FOLDER}/token"),
            "bundle_file": format!("{BUNDLE_FOLDER}/{BUNDLE_FILE}"),
        }},
        "controller": {
            "address": installation.controller_address(),
            "spiffe_id": installation.controller_id(),
        },
        "intercept": intercept(settings),
        "admin": {"socket": format!("{RUN_FOLDER}/admin.sock"), "listen": format!("[::]:{ADMIN_PORT}")},
        "drain": {"deadline": format!("{LAST_SECONDS}s")},
    });
    let telemetry = telemetry(&settings.telemetry);
    if !telemetry.is_empty() {
        set(&mut file, "telemetry", Value::Object(telemetry));
    }
    if !probes.is_empty() {
        set(&mut file, "probes", Value::Array(probes));
    }
    yaml(&file)
}

/// What is told of requests. Records go to standard output, where Kubernetes looks for logs.
fn telemetry(telemetry: &Telemetry) -> Map<String, Value> {
    let mut section = Map::new();
    let export = |endpoint: &String| {
        let mut export = json!({"endpoint": endpoint});
        if telemetry.protocol != "grpc" {
            set(&mut export, "protocol", json!(telemetry.protocol));
        }
        export
    };
    if let Some(endpoint) = &telemetry.traces {
        let mut traces = export(endpoint);
        let (whole, tenth) = (telemetry.sample_permille / 10, telemetry.sample_permille % 10);
        let percent =
            if tenth == 0 { json!(whole) } else { json!(f64::from(telemetry.sample_permille) / 10.0) };
        set(&mut traces, "sample_percent", percent);
        section.insert("traces".to_owned(), traces);
    }
    if let Some(endpoint) = &telemetry.metrics {
        section.insert("metrics".to_owned(), export(endpoint));
    }
    if let Some(of) = telemetry.access_log {
        section.insert("access_log".to_owned(), json!({"of": of}));
    }
    section
}

fn intercept(settings: &Settings) -> Value {
    let mut outbound = json!({"port": OUTBOUND_PORT, "unknown": settings.outbound_unknown});
    except(&mut outbound, &settings.outbound_except);
    let mut inbound = json!({"port": INBOUND_PORT});
    except(&mut inbound, &settings.inbound_except);
    let ports = ports(settings);
    if !ports.is_empty() {
        set(&mut inbound, "ports", Value::Array(ports));
    }
    let mut section = Map::new();
    if settings.uid != UID {
        section.insert("uid".to_owned(), json!(settings.uid));
    }
    section.insert("outbound".to_owned(), outbound);
    section.insert("inbound".to_owned(), inbound);
    Value::Object(section)
}

/// The ports that such a file keeps from what the kernel brings to the sidecar of what others send. Who may change a pod's
/// annotations may have written it: what is no such file has none.
#[must_use]
pub fn inbound_except_ports(text: &str) -> Vec<u16> {
    // Most have none, and need not be read.
    if !text.contains(EXCEPT_PORTS) {
        return Vec::new();
    }
    let file = documents::small(text);
    let listed = file.as_ref().and_then(|file| file.pointer("/intercept/inbound/except_ports")?.as_array());
    let number = |port: &Value| u16::try_from(port.as_u64()?).ok();
    listed.into_iter().flatten().filter_map(number).take(MAX_PORTS).collect()
}

fn except(section: &mut Value, except: &Except) {
    if !except.ports.is_empty() {
        set(section, EXCEPT_PORTS, json!(except.ports));
    }
    if !except.cidrs.is_empty() {
        set(section, "except_cidrs", json!(except.cidrs));
    }
}

/// Rules of the ports that have any.
fn ports(settings: &Settings) -> Vec<Value> {
    let plaintext = settings.plaintext.as_ref();
    let mut all: BTreeSet<u16> =
        settings.protocols.keys().chain(settings.app_protocols.keys()).copied().collect();
    all.extend(plaintext.iter().flat_map(|plaintext| &plaintext.ports));
    let rules = |port: u16| {
        let mut rules = json!({"port": port});
        if let Some(protocol) = settings.protocols.get(&port) {
            set(&mut rules, "protocol", json!(protocol));
        }
        if let Some(protocol) = settings.app_protocols.get(&port) {
            set(&mut rules, "app_protocol", json!(protocol));
        }
        if let Some(plaintext) = plaintext.filter(|plaintext| plaintext.ports.contains(&port)) {
            set(&mut rules, "plaintext", json!("permissive"));
            set(&mut rules, "plaintext_until", json!(plaintext.until));
            if !plaintext.from.is_empty() {
                set(&mut rules, "plaintext_from", json!(plaintext.from));
            }
        }
        rules
    };
    all.into_iter().map(rules).collect()
}
