//! The two containers that injection adds, and their volumes.

use serde_json::{Map, Value, json};

use crate::{
    names::{
        ADMIN_PORT, API_TOKEN_FOLDER, BUNDLE_CONFIG_MAP, BUNDLE_FILE, BUNDLE_FOLDER, BUNDLE_VOLUME, CONFIG,
        CONFIG_FILE, CONFIG_FOLDER, CONFIG_VOLUME, INIT, NO_TOKEN_VOLUME, RUN_FOLDER, RUN_VOLUME, SIDECAR,
        TOKEN_AUDIENCE, TOKEN_FOLDER, TOKEN_SECONDS, TOKEN_VOLUME,
    },
    settings::{Quantity, Resources, Settings},
};

/// Looks of the kubelet, one a second, until a sidecar that is not ready is started anew. The app waits that long for
/// identity, listeners and the controller's first word.
const STARTUP_LOOKS: u32 = 120;

/// The init container that loads the kernel's rules; it runs first, and as root, and may change the rules of the pod's
/// network and nothing else.
pub(super) fn init(settings: &Settings) -> Value {
    let mut container = json!({
        "name": INIT,
        "image": settings.init_image,
        "command": ["outrider", "intercept", "apply"],
        "args": ["--config", config_path()],
        "resources": resources(&settings.resources),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            mount(CONFIG_VOLUME, CONFIG_FOLDER),
            mount(NO_TOKEN_VOLUME, API_TOKEN_FOLDER),
        ],
    });
    pull(&mut container, settings);
    container
}

/// The sidecar: an init container that goes on (Kubernetes 1.29), so that it is there before the app and after it.
pub(super) fn sidecar(settings: &Settings) -> Value {
    let wait = humantime::format_duration(settings.drain_time).to_string().replace(' ', "");
    let mut container = json!({
        "name": SIDECAR,
        "image": settings.image,
        "command": ["outrider", "run"],
        "args": [
            "--config", config_path(),
            "--log-level", settings.log_level,
            "--log-format", settings.log_format,
        ],
        "restartPolicy": "Always",
        "env": environment(),
        "ports": [{"name": "outrider-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        "startupProbe": probe("/ready", 1, 3, STARTUP_LOOKS),
        "readinessProbe": probe("/ready", 5, 3, 3),
        "livenessProbe": probe("/live", 10, 5, 6),
        "lifecycle": {
            "preStop": {"exec": {"command": ["outrider", "drain", "--inbound", "--wait", wait]}},
        },
        "resources": resources(&settings.resources),
        "securityContext": {
            "runAsUser": settings.uid,
            "runAsGroup": settings.uid,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            mount(CONFIG_VOLUME, CONFIG_FOLDER),
            mount(BUNDLE_VOLUME, BUNDLE_FOLDER),
            mount(TOKEN_VOLUME, TOKEN_FOLDER),
            {"name": RUN_VOLUME, "mountPath": RUN_FOLDER},
            mount(NO_TOKEN_VOLUME, API_TOKEN_FOLDER),
        ],
    });
    pull(&mut container, settings);
    container
}

/// The volumes of both.
pub(super) fn volumes() -> Vec<Value> {
    let config = json!({
        "path": CONFIG_FILE,
        "fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.annotations['{CONFIG}']")},
    });
    let token = json!({
        "path": "token",
        "audience": TOKEN_AUDIENCE,
        "expirationSeconds": TOKEN_SECONDS,
    });
    let bundle = json!({"name": BUNDLE_CONFIG_MAP, "items": [{"key": BUNDLE_FILE, "path": BUNDLE_FILE}]});
    vec![
        json!({"name": CONFIG_VOLUME, "downwardAPI": {"items": [config]}}),
        json!({"name": BUNDLE_VOLUME, "configMap": bundle}),
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}),
        json!({"name": RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}),
        // Kubernetes mounts no token for its API where something is mounted already.
        // In memory, for the Cluster Autoscaler leaves nodes alone whose pods have something on their disks.
        json!({"name": NO_TOKEN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ]
}

fn config_path() -> String {
    format!("{CONFIG_FOLDER}/{CONFIG_FILE}")
}

fn mount(volume: &str, folder: &str) -> Value {
    json!({"name": volume, "mountPath": folder, "readOnly": true})
}

fn probe(path: &str, period: u32, timeout: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    })
}

/// What the sidecar is told of its pod: who it is for the controller, and where telemetry comes from (the names of
/// OpenTelemetry's semantic conventions).
fn environment() -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let attributes = [
        ("k8s.namespace.name", "OUTRIDER_POD_NAMESPACE"),
        ("k8s.pod.name", "OUTRIDER_POD_NAME"),
        ("k8s.pod.uid", "OUTRIDER_POD_UID"),
        ("k8s.node.name", "OUTRIDER_NODE_NAME"),
    ];
    let text: Vec<String> = attributes.iter().map(|(key, name)| format!("{key}=$({name})")).collect();
    json!([
        field("OUTRIDER_POD_NAME", "metadata.name"),
        field("OUTRIDER_POD_NAMESPACE", "metadata.namespace"),
        field("OUTRIDER_POD_UID", "metadata.uid"),
        field("OUTRIDER_POD_IPS", "status.podIPs"),
        field("OUTRIDER_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("OUTRIDER_NODE_NAME", "spec.nodeName"),
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": text.join(",")},
    ])
}

fn resources(resources: &Resources) -> Value {
    let list = |cpu: &Option<Quantity>, memory: &Option<Quantity>| {
        let mut list = Map::new();
        for (name, quantity) in [("cpu", cpu), ("memory", memory)] {
            if let Some(quantity) = quantity {
                list.insert(name.to_owned(), Value::String(quantity.text.clone()));
            }
        }
        list
    };
    let mut both = Map::new();
    for (name, list) in [
        ("requests", list(&resources.cpu_request, &resources.memory_request)),
        ("limits", list(&resources.cpu_limit, &resources.memory_limit)),
    ] {
        if !list.is_empty() {
            both.insert(name.to_owned(), Value::Object(list));
        }
    }
    Value::Object(both)
}

fn pull(container: &mut Value, settings: &Settings) {
    if let (Some(policy), Some(container)) = (settings.image_pull_policy, container.as_object_mut()) {
        container.insert("imagePullPolicy".to_owned(), Value::String(policy.to_owned()));
    }
}
