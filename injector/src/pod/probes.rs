//! Probes of the app go by the sidecar: the kubelet has no certificate, and a strict sidecar would refuse it.
//!
//! A probe that opens a connection (`httpGet`, `tcpSocket`, `grpc`) becomes an `httpGet` of the sidecar, which performs
//! the original beside the app. Times and thresholds stay the kubelet's. A probe that runs a program stays as it is.

use serde_json::{Map, Value, json};

use super::mark::Mark;
use crate::{
    denial::{Faults, quoted},
    json::{name, set},
    names::{ADMIN_PORT, PORTS, PROBE_PATH},
};

/// The kinds of probes: the key, and what the sidecar calls it.
const KINDS: [(&str, &str); 3] =
    [("startupProbe", "startup"), ("readinessProbe", "readiness"), ("livenessProbe", "liveness")];
/// What opens a connection.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Probes as the sidecar's configuration has them.
pub(super) type Performed = Vec<Value>;

/// Rewrites the probes of these containers; what they were goes into the mark, and what the sidecar has to do is
/// returned.
pub(super) fn rewrite(containers: &mut [Value], mark: &mut Mark, faults: &mut Faults) -> Performed {
    let mut performed = Vec::new();
    for container in containers {
        let of = container.clone();
        for (key, kind) in KINDS {
            let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) else { continue };
            let Some(handler) = handler(probe).filter(|handler| is_of_this_pod(probe, handler)) else {
                continue;
            };
            let name = format!("{}/{kind}", name(&of));
            match describe(&of, probe, handler) {
                Ok(what) => {
                    let mut entry = json!({"name": name.clone()});
                    if let (Some(entry), Value::Object(what)) = (entry.as_object_mut(), what) {
                        entry.extend(what);
                    }
                    performed.push(entry);
                    replace(probe, handler, &name, mark);
                }
                Err((problem, remedy)) => {
                    faults.add(&format!("container {} {key}", quoted(self::name(&of))), problem, remedy);
                }
            }
        }
    }
    performed
}

/// Gives these containers back what their probes were, where they are still what injection made of them.
pub(super) fn restore(containers: &mut [Value], mark: &Mark) {
    for container in containers {
        let of = name(container).to_owned();
        for (key, kind) in KINDS {
            let name = format!("{of}/{kind}");
            let Some(original) = mark.probes.get(&name).and_then(Value::as_object) else { continue };
            let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) else { continue };
            if !leads_to(probe.get("httpGet"), &name) {
                continue;
            }
            for (key, value) in std::mem::take(probe) {
                if key == "httpGet" { probe.extend(original.clone()) } else { drop(probe.insert(key, value)) }
            }
        }
    }
}

/// Whether that is the handler that stands for the probe of this name.
fn leads_to(handler: Option<&Value>, name: &str) -> bool {
    let Some(handler) = handler else { return false };
    handler.get("path").and_then(Value::as_str) == Some(format!("{PROBE_PATH}{name}").as_str())
        && handler.get("port").and_then(Value::as_u64) == Some(u64::from(ADMIN_PORT))
}

/// The one handler of a probe that opens a connection. Two would be refused by the API server.
fn handler(probe: &Map<String, Value>) -> Option<&'static str> {
    let mut found = HANDLERS.into_iter().filter(|key| probe.get(*key).is_some_and(Value::is_object));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Whether the probe asks the pod itself. One that names another host goes there and not by the sidecar, and stays.
fn is_of_this_pod(probe: &Map<String, Value>, handler: &str) -> bool {
    let host =
        probe.get(handler).and_then(|what| what.get("host")).and_then(Value::as_str).unwrap_or_default();
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    host.is_empty() || host.eq_ignore_ascii_case("localhost") || is_loopback
}

fn replace(probe: &mut Map<String, Value>, handler: &str, name: &str, mark: &mut Mark) {
    let ours = json!({"path": format!("{PROBE_PATH}{name}"), "port": ADMIN_PORT, "scheme": "HTTP"});
    // Where the handler stood, so that a reader finds it there.
    let mut changed = Map::new();
    let mut original = Map::new();
    for (key, value) in std::mem::take(probe) {
        if key == handler {
            changed.insert("httpGet".to_owned(), ours.clone());
            original.insert(key, value);
        } else if key == "httpGet" {
            // `null`, beside another handler.
            original.insert(key, value);
        } else {
            changed.insert(key, value);
        }
    }
    *probe = changed;
    mark.probes.insert(name.to_owned(), Value::Object(original));
}

/// What the sidecar has to do instead of the kubelet.
fn describe(container: &Value, probe: &Map<String, Value>, handler: &str) -> Result<Value, (String, String)> {
    let what = probe.get(handler).unwrap_or(&Value::Null);
    let port = port(container, what.get("port"))?;
    if PORTS.contains(&port) {
        // It would ask the sidecar whether the sidecar is well, or for itself.
        let problem = format!("asks port {port}, which is the sidecar's");
        return Err((problem, "ask a port of the app; the sidecar has probes of its own".to_owned()));
    }
    let text = |key: &str| what.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut inside = json!({"port": port});
    let name = match handler {
        "grpc" => {
            if let Some(service) = text("service") {
                set(&mut inside, "service", json!(service));
            }
            "grpc"
        }
        "tcpSocket" => "tcp",
        _ => {
            set(&mut inside, "path", json!(path(text("path").unwrap_or("/"))));
            set(&mut inside, "scheme", json!(text("scheme").unwrap_or("HTTP").to_ascii_lowercase()));
            let headers = crate::json::items(what, "/httpHeaders");
            if !headers.is_empty() {
                let pair = |header: &Value| {
                    let value = header.get("value").and_then(Value::as_str).unwrap_or_default();
                    json!({"name": name(header), "value": value})
                };
                set(&mut inside, "headers", headers.iter().map(pair).collect::<Value>());
            }
            "http"
        }
    };
    // The kubelet asks the pod's own address unless it is told another.
    if let Some(host) = text("host") {
        set(&mut inside, "host", json!(host));
    }
    let seconds = probe.get("timeoutSeconds").and_then(Value::as_u64).filter(|seconds| *seconds > 0);
    let mut described = Map::new();
    described.insert(name.to_owned(), inside);
    described.insert("timeout".to_owned(), json!(format!("{}s", seconds.unwrap_or(1))));
    Ok(Value::Object(described))
}

/// A path that begins with a slash, as the kubelet makes it.
fn path(text: &str) -> String {
    if text.starts_with('/') { text.to_owned() } else { format!("/{text}") }
}

/// The number of a port that may be given by name, as the kubelet finds it: a name of this container's ports, or else
/// digits.
fn port(container: &Value, given: Option<&Value>) -> Result<u16, (String, String)> {
    let range = "give a number from 1 to 65535, or the name of one of the container's ports";
    let number = match given {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(named)) => {
            let ports = crate::json::items(container, "/ports");
            let found = ports.iter().find(|port| name(port) == named);
            match found {
                Some(port) => port.get("containerPort").and_then(Value::as_u64),
                None => named.parse().ok(),
            }
        }
        None | Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
    port.ok_or_else(|| {
        let given = given.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        (
            format!("the port {} is none that the container has", quoted(given.trim_matches('"'))),
            range.to_owned(),
        )
    })
}
