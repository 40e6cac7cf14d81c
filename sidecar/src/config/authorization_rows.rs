//! The keys of `authorization`, as `docs/config.md` shows them.

use super::{
    defaults::authorization::MODE,
    row::{Row, plain},
};

/// Every key of the section.
pub(super) fn authorization_rows() -> Vec<Row> {
    let rule = |name, kind, default| plain("authorization.rules[]", name, kind, default);
    vec![
        MODE.row("authorization"),
        plain("authorization", "rules", "list of sections", "none"),
        rule("name", "name", "required"),
        rule("from", "list of SPIFFE IDs", ""),
        rule("from_namespaces", "list of namespaces", ""),
        rule("from_trust_domains", "list of trust domains", ""),
        rule("ports", "list of ports", "any"),
        rule("hosts", "list of `host` or `host:port`", "any"),
        rule("methods", "list of methods", "any"),
        rule("paths", "list of paths", "any"),
        rule("path_prefixes", "list of paths", "any"),
        rule("headers", "list of sections", ""),
        rule("grpc", "list of `service` or `service/method`", ""),
        plain("authorization.rules[].headers[]", "name", "name of a field", "required"),
        plain("authorization.rules[].headers[]", "value", "value of a field", ""),
    ]
}
