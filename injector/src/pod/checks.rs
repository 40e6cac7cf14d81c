//! What makes a pod one that cannot have a sidecar, and what its owner should know.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    denial::{Faults, quoted},
    json::{items, name, nothing},
    names::{CONFIG, INIT, INJECT, INJECTED, PORTS, SIDECAR, VOLUMES},
    settings::Settings,
};

/// Where a pod's containers stand.
const LISTS: [(&str, &str); 3] = [
    ("/spec/initContainers", "init container"),
    ("/spec/containers", "container"),
    ("/spec/ephemeralContainers", "ephemeral container"),
];

/// Notes everything in a pod without sidecar that forbids one.
pub(super) fn check(pod: &Value, settings: &Settings, faults: &mut Faults) {
    host_network(pod, faults);
    names_in_use(pod, faults);
    for (list, what) in LISTS {
        for container in items(pod, list) {
            let place = format!("{what} {}", quoted(name(container)));
            user(container, &place, settings, faults);
            ports(container, &place, faults);
        }
    }
    user(pod.get("spec").unwrap_or(&Value::Null), "the pod", settings, faults);
}

/// Notes what is no pod at all; nothing else needs to be looked at then.
pub(super) fn shape(pod: &Value, faults: &mut Faults) {
    let wrong = |value: Option<&Value>, is: fn(&Value) -> bool| value.is_some_and(|v| !v.is_null() && !is(v));
    let remedy = "see the API reference of Pod";
    if !pod.get("spec").is_some_and(Value::is_object) {
        faults.add("spec", "is missing, or no object", remedy);
    }
    for pointer in ["/metadata", "/metadata/labels", "/metadata/annotations"] {
        if wrong(pod.pointer(pointer), Value::is_object) {
            faults.add(pointer, "is no object", remedy);
        }
    }
    for pointer in ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers", "/spec/volumes"]
    {
        if wrong(pod.pointer(pointer), Value::is_array) {
            faults.add(pointer, "is no list", remedy);
        }
    }
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    for (key, value) in annotations.into_iter().flatten() {
        if key.starts_with(crate::names::PREFIX) && !value.is_string() {
            faults.add(&format!("annotation {}", quoted(key)), "is no text", "write the value in quotes");
        }
    }
}

fn host_network(pod: &Value, faults: &mut Faults) {
    if pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        let remedy = format!(
            "take hostNetwork out, or leave the pod outside the mesh with the label {INJECT}: disabled"
        );
        faults.add(
            "spec.hostNetwork",
            "is true: the rules that bring connections to the sidecar would be the whole node's",
            remedy,
        );
    }
    if crate::json::text(pod, "/spec/os/name") == Some("windows") {
        let remedy = format!("leave the pod outside the mesh with the label {INJECT}: disabled");
        faults.add("spec.os.name", "is windows, where there is no sidecar", remedy);
    }
}

fn names_in_use(pod: &Value, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (list, what) in LISTS {
        for container in items(pod, list) {
            let name = name(container);
            let place = format!("{what} {}", quoted(name));
            if [SIDECAR, INIT].contains(&name) {
                let remedy = "give it another name, or leave out what was injected by hand";
                faults.add(&place, "has a name of the sidecar's, and was not injected", remedy);
            }
            if !seen.insert(name) {
                faults.add(&place, "has a name that another one has, too", "give each its own");
            }
        }
    }
    for volume in items(pod, "/spec/volumes").iter().filter(|volume| VOLUMES.contains(&name(volume))) {
        let place = format!("volume {}", quoted(name(volume)));
        faults.add(&place, "has a name of the sidecar's", "give it another name");
    }
    for (pointer, key, what) in
        [("/metadata/labels", INJECTED, "label"), ("/metadata/annotations", CONFIG, "annotation")]
    {
        let there = pod.pointer(pointer).and_then(Value::as_object);
        if there.is_some_and(|there| nothing(there, key).is_none()) {
            let problem = "is the injector's to write, and this pod was not injected";
            faults.add(&format!("{what} {key}"), problem, "take it out");
        }
    }
}

/// Whoever runs as the sidecar's user passes the rules.
fn user(of: &Value, place: &str, settings: &Settings, faults: &mut Faults) {
    let user = of.pointer("/securityContext/runAsUser").and_then(Value::as_u64);
    if user == Some(u64::from(settings.uid)) {
        let problem = format!(
            "runs as user {}, the sidecar's: the kernel could not tell its connections from the sidecar's, and they \
             would pass the mesh",
            settings.uid
        );
        faults.add(place, problem, "run it as another user, or give the sidecar one with outrider.io/uid");
    }
}

fn ports(container: &Value, place: &str, faults: &mut Faults) {
    for port in items(container, "/ports") {
        let number = port.get("containerPort").and_then(Value::as_u64);
        let Some(port) = PORTS.into_iter().find(|port| number == Some(u64::from(*port))) else { continue };
        faults.add(place, format!("has port {port}, which is the sidecar's"), "let it listen elsewhere");
    }
}

/// What the pod's owner should know: it works, and perhaps not as they think.
pub(super) fn warnings(pod: &Value, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (list, what) in LISTS {
        for container in items(pod, list) {
            let place = format!("{what} {}", quoted(name(container)));
            for hook in ["postStart", "preStop"] {
                for handler in ["httpGet", "tcpSocket"] {
                    let there = container.pointer(&format!("/lifecycle/{hook}/{handler}"));
                    if there.is_some_and(Value::is_object) {
                        warnings.push(format!(
                            "{place}: lifecycle.{hook}.{handler} is called by the kubelet without mutual TLS, and the \
                             sidecar refuses it: use exec, or except its port with outrider.io/inbound-except-ports"
                        ));
                    }
                }
            }
            if may_change_rules(container) {
                warnings.push(format!(
                    "{place}: may change the network's rules (privileged, NET_ADMIN or NET_RAW), and so pass the mesh"
                ));
            }
        }
    }
    let except = &settings.inbound_except;
    let ports: Vec<_> = except.ports.iter().map(ToString::to_string).collect();
    for (name, what, items) in
        [("ports", "what comes to", &ports), ("cidrs", "who comes from", &except.cidrs)]
    {
        if !items.is_empty() {
            warnings.push(format!(
                "outrider.io/inbound-except-{name}: {what} {} does not go by the sidecar: plaintext, which no policy judges",
                items.join(", ")
            ));
        }
    }
    if !settings.are_probes_rewritten && has_probes(pod) {
        warnings.push(
            "outrider.io/probes: keep leaves probes to the kubelet, which the sidecar refuses unless their ports are \
             excepted with outrider.io/inbound-except-ports"
                .to_owned(),
        );
    }
    warnings
}

fn may_change_rules(container: &Value) -> bool {
    let added = items(container, "/securityContext/capabilities/add");
    let is_one = |name: &Value| {
        let name = name.as_str().unwrap_or_default().trim_start_matches("CAP_");
        ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "ALL"].contains(&name)
    };
    let is_privileged = container.pointer("/securityContext/privileged").and_then(Value::as_bool);
    is_privileged == Some(true) || added.iter().any(is_one)
}

fn has_probes(pod: &Value) -> bool {
    let has = |container: &Value, key: &str| {
        let handlers = ["httpGet", "tcpSocket", "grpc"];
        handlers.iter().any(|handler| container.pointer(&format!("/{key}/{handler}")).is_some())
    };
    let keys = ["startupProbe", "readinessProbe", "livenessProbe"];
    LISTS.iter().flat_map(|(list, _)| items(pod, list)).any(|one| keys.iter().any(|key| has(one, key)))
}
