//! What apps are told of who is asking, as far as a configuration says so.

/// Proxies in front of us that a port may be told of, at most.
pub const MAX_TRUSTED_HOPS: usize = 16;

/// What apps are told of who is asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedSettings {
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ClientCert,
}

/// What becomes of `x-forwarded-client-cert`. From callers without a proven identity it is removed, whatever is said here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCert {
    /// Who calls us, in the place of whatever was said (Envoy's `SANITIZE_SET`); removed from what the own app sends.
    #[default]
    Replace,
    /// Who calls us, behind what a verified peer says (Envoy's `APPEND_FORWARD`); what the own app says goes to the mesh.
    Append,
    /// Removed (Envoy's `SANITIZE`).
    Off,
}

impl ClientCert {
    /// Its word in a configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Off => "off",
        }
    }
}
