//! Every annotation that a pod may have: name, type, default, range. `docs/kubernetes.md` is compared with this table.

/// An annotation by which a pod says something about its sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The annotation's whole name.
    pub name: &'static str,
    /// What may stand there.
    pub kind: &'static str,
    /// What holds where nothing stands there, in words or as it would be written.
    pub default: &'static str,
    /// The smallest and largest value; empty if there is no such thing.
    pub range: &'static str,
}

/// Makes the constants and the list of all of them, so that none can be left out.
macro_rules! keys {
    ($($constant:ident = $name:literal: $kind:literal, $default:expr, $range:literal;)+) => {
        $(pub(crate) const $constant: Key =
            Key { name: concat!("outrider.io/", $name), kind: $kind, default: $default, range: $range };)+
        /// All annotations that pods may have, in the order of the documentation.
        pub const KEYS: &[Key] = &[$($constant),+];
    };
}

keys! {
    SERVICE = "service": "name", "the owner's name", "";
    INBOUND_EXCEPT_PORTS = "inbound-except-ports": "list of ports", "", "";
    INBOUND_EXCEPT_CIDRS = "inbound-except-cidrs": "list of addresses or ranges", "", "";
    OUTBOUND_EXCEPT_PORTS = "outbound-except-ports": "list of ports", "", "";
    OUTBOUND_EXCEPT_CIDRS = "outbound-except-cidrs": "list of addresses or ranges", "", "";
    OUTBOUND_UNKNOWN = "outbound-unknown": "`passthrough` or `deny`", "passthrough", "";
    PROTOCOLS = "protocols": "list of `port=detect`, `port=http` or `port=tcp`", "", "";
    APP_PROTOCOLS = "app-protocols": "list of `port=auto`, `port=http1` or `port=http2`", "", "";
    PLAINTEXT_PORTS = "plaintext-ports": "list of ports", "", "";
    PLAINTEXT_UNTIL = "plaintext-until": "date", "", "";
    PLAINTEXT_FROM = "plaintext-from": "list of addresses or ranges", "", "";
    PROBES = "probes": "`rewrite` or `keep`", "rewrite", "";
    DRAIN_TIME = "drain-time": "duration", "20s", "1s..=1h";
    LOG_LEVEL = "log-level": "log filter", "info", "";
    LOG_FORMAT = "log-format": "`json` or `text`", "json", "";
    TRACES_ENDPOINT = "traces-endpoint": "URL or `none`", "none", "";
    METRICS_ENDPOINT = "metrics-endpoint": "URL or `none`", "none", "";
    OTLP_PROTOCOL = "otlp-protocol": "`grpc` or `http`", "grpc", "";
    TRACE_SAMPLE_PERCENT = "trace-sample-percent": "number with at most one decimal", "1", "0..=100";
    ACCESS_LOG = "access-log": "`none`, `errors` or `all`", "none", "";
    CPU_REQUEST = "cpu-request": "quantity or `none`", "50m", "1m..=64";
    CPU_LIMIT = "cpu-limit": "quantity or `none`", "none", "1m..=64";
    MEMORY_REQUEST = "memory-request": "quantity or `none`", "48Mi", "16Mi..=1Ti";
    MEMORY_LIMIT = "memory-limit": "quantity or `none`", "256Mi", "40Mi..=1Ti";
    UID = "uid": "whole number", "4343", "1..=2147483647";
    IMAGE = "image": "image", "the installation's", "";
    INIT_IMAGE = "init-image": "image", "the installation's", "";
    IMAGE_PULL_POLICY = "image-pull-policy": "`Always`, `IfNotPresent` or `Never`", "as Kubernetes has it", "";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::PREFIX;

    #[test]
    fn names_are_unique_and_ours() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        assert!(names.iter().all(|name| name.starts_with(PREFIX)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }
}
