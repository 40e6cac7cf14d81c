//! Keys of what comes from others.

use super::Choice;
use crate::model::listener::Protocol;

/// What a listener for peers carries.
pub const INBOUND_PROTOCOL: Choice<Protocol> = Choice {
    name: "protocol",
    default: ("http", Protocol::Http),
    others: &[("tcp", Protocol::Tcp), ("detect", Protocol::Detect)],
};
/// Whether anybody may come in without TLS, for as long as `plaintext_until` says.
pub const PLAINTEXT: Choice<bool> =
    Choice { name: "plaintext", default: ("refuse", false), others: &[("permissive", true)] };
/// Whether TLS that is not the mesh's goes to the app.
pub const APP_TLS: Choice<bool> =
    Choice { name: "app_tls", default: ("terminate", false), others: &[("passthrough", true)] };
