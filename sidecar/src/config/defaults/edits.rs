//! Keys of what routes change, and of what apps are told of callers.

use http::StatusCode;

use super::{Choice, Key, key};
use crate::model::forwarded::{ClientCert, MAX_TRUSTED_HOPS};

/// The status by which a caller is sent elsewhere (as the Gateway API).
pub const REDIRECT_STATUS: Choice<StatusCode> = Choice {
    name: "status",
    default: ("302", StatusCode::FOUND),
    others: &[
        ("301", StatusCode::MOVED_PERMANENTLY),
        ("303", StatusCode::SEE_OTHER),
        ("307", StatusCode::TEMPORARY_REDIRECT),
        ("308", StatusCode::PERMANENT_REDIRECT),
    ],
};
/// The port that it is sent to.
pub const REDIRECT_PORT: Key<u64> = key("port", 80, 1, 65_535);
/// Schemes that it is sent to.
pub const REDIRECT_SCHEMES: &[(&str, &str)] = &[("http", "http"), ("https", "https")];
/// What becomes of `x-forwarded-client-cert`.
pub const CLIENT_CERT: Choice<ClientCert> = Choice {
    name: "client_cert",
    default: ("replace", ClientCert::Replace),
    others: &[("append", ClientCert::Append), ("off", ClientCert::Off)],
};
/// Proxies in front of a port that are believed (as Envoy's `xff_num_trusted_hops`: none).
pub const TRUSTED_HOPS: Key<u64> = key("trusted_hops", 0, 0, MAX_TRUSTED_HOPS as u64);
