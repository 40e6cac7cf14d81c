//! Names that injector, controller, sidecar and manifests agree on.

/// What labels and annotations of ours begin with.
pub const PREFIX: &str = "outrider.io/";
/// Label of namespaces and pods: `enabled` or `disabled`.
pub const INJECT: &str = "outrider.io/inject";
/// Label (`"true"`) and annotation (what was changed) of pods that have a sidecar.
pub const INJECTED: &str = "outrider.io/injected";
/// Label of the mesh's own programs, by which people find them.
pub const CONTROL_PLANE: &str = "outrider.io/control-plane";
/// Where Kubernetes has its own pods, whom the mesh needs: none of them gets a sidecar by the webhook.
pub const KUBERNETES_NAMESPACE: &str = "kube-system";
/// Annotation that holds the sidecar's configuration file.
pub const CONFIG: &str = "outrider.io/config";

/// The sidecar's container.
pub const SIDECAR: &str = "outrider";
/// The init container that has the kernel bring connections to the sidecar.
pub const INIT: &str = "outrider-init";

/// User and group of the sidecar, by which the kernel knows its own connections.
pub const UID: u32 = 4343;
/// Where the kernel brings what the app sends.
pub const OUTBOUND_PORT: u16 = 4340;
/// Where the kernel brings what others send.
pub const INBOUND_PORT: u16 = 4343;
/// Health, metrics and probes.
pub const ADMIN_PORT: u16 = 4391;
/// Ports of the sidecar, none of which an app may have.
pub const PORTS: [u16; 3] = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT];

/// Audience of the service-account tokens by which pods prove themselves to the CA.
pub const TOKEN_AUDIENCE: &str = "outrider-ca";
/// Seconds that such a token is good for; the shortest that Kubernetes gives.
pub const TOKEN_SECONDS: u32 = 600;
/// `ConfigMap` with the roots that vouch for the mesh, in every namespace with pods of it.
pub const BUNDLE_CONFIG_MAP: &str = "outrider-trust-bundle";
/// Its key, and the name of the file.
pub const BUNDLE_FILE: &str = "bundle.pem";
/// Name of the configuration file.
pub const CONFIG_FILE: &str = "outrider.yaml";

/// Volume with the token.
pub const TOKEN_VOLUME: &str = "outrider-token";
/// Volume with the trust bundle.
pub const BUNDLE_VOLUME: &str = "outrider-bundle";
/// Volume with the configuration.
pub const CONFIG_VOLUME: &str = "outrider-config";
/// Volume for the admin socket.
pub const RUN_VOLUME: &str = "outrider-run";
/// Empty volume that stands where the API server's token would be mounted.
pub const NO_TOKEN_VOLUME: &str = "outrider-no-api-token";
/// All of them.
pub const VOLUMES: [&str; 5] = [CONFIG_VOLUME, BUNDLE_VOLUME, TOKEN_VOLUME, RUN_VOLUME, NO_TOKEN_VOLUME];

/// Folder of the token.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/outrider";
/// Folder of the trust bundle.
pub const BUNDLE_FOLDER: &str = "/etc/outrider/bundle";
/// Folder of the configuration.
pub const CONFIG_FOLDER: &str = "/etc/outrider/config";
/// Folder of the admin socket and of whatever lives as long as the container.
pub const RUN_FOLDER: &str = "/run/outrider";
/// Where Kubernetes mounts tokens for the API server, unless something is there.
pub const API_TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the sidecar performs the app's probes, at [`ADMIN_PORT`].
pub const PROBE_PATH: &str = "/probe/";

/// Whether that could be the name of a namespace, or a part of a DNS name (RFC 1123, in lower case).
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}
