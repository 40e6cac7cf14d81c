//! Keys of the PROXY protocol.

use super::Choice;
use crate::model::proxy_protocol::Version;

/// Whether a connection from a listed address must begin with a PROXY protocol header.
pub const PROXY_REQUIRED: Choice<bool> =
    Choice { name: "required", default: ("true", true), others: &[("false", false)] };
/// By which PROXY protocol header the own app is told who calls.
pub const APP_PROXY_PROTOCOL: Choice<Option<Version>> = Choice {
    name: "app_proxy_protocol",
    default: ("none", None),
    others: &[("v1", Some(Version::V1)), ("v2", Some(Version::V2))],
};
