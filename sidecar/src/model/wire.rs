//! Names and times on the wire between two sidecars. Version N talks to N−1; a new version gets a new ALPN name.

use std::time::Duration;

/// Every ALPN name of ours begins so.
pub const ALPN_PREFIX: &[u8] = b"outrider-";
/// HTTP as HTTP/2 streams, whatever version the apps speak.
pub const ALPN_H2: &[u8] = b"outrider-h2/1";
/// HTTP/1.1, a request at a time: where a request must keep that version, as one with `Upgrade`.
pub const ALPN_H1: &[u8] = b"outrider-h1/1";
/// Opaque streams in frames.
pub const ALPN_TCP: &[u8] = b"outrider-tcp/1";
/// HTTP/2 with a standard mTLS peer (RFC 9113).
pub const ALPN_STANDARD_H2: &[u8] = b"h2";
/// HTTP/1.1 with a standard mTLS peer (RFC 7301 registry).
pub const ALPN_STANDARD_H1: &[u8] = b"http/1.1";

/// Every header that sidecars speak to each other with begins so. Stripped where an app or an unverified
/// network peer sends it.
pub const RESERVED_PREFIX: &str = "x-outrider-";
/// Request, sidecar to sidecar: the HTTP version that the calling app spoke (`1.0`, `1.1` or `2`).
pub const APP_VERSION: &str = "x-outrider-app-version";
/// Request, sidecar to sidecar: which attempt this is, counted from 1, so that the next hop does not retry a retry.
pub const ATTEMPT: &str = "x-outrider-attempt";
/// Request, sidecar to sidecar, sidecar to its app, and app to its sidecar: for how many milliseconds its sender still
/// waits for the answer's head. It only ever gets less.
pub const TIMEOUT_MS: &str = "x-outrider-timeout-ms";
/// Response: why a sidecar answered instead of the app, from the closed list of `pipeline::error`.
pub const REASON: &str = "x-outrider-reason";
/// Response, sidecar to sidecar: the status of an app that declined a switch of protocols with a success (200..=299). As the
/// status of the answer to an extended CONNECT it would say that the switch was made.
pub const DECLINED: &str = "x-outrider-declined";
/// Response, sidecar to sidecar: whether the app may have seen the request (`no` or `maybe`).
pub const PROCESSED: &str = "x-outrider-processed";

/// So much later than its caller's sidecar does a sidecar end a request whose time is over: the caller's ends it itself,
/// knows why, and says so. This one's end is for a caller that does not.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(10);
/// Pings on a quiet HTTP/2 connection between sidecars, from both ends (Linkerd's interval): a dead path is noticed
/// before a request finds out, and requests that wait on one are repeated elsewhere.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A ping unanswered for so long ends the connection. Linkerd has 3 s; a peer whose machine is overloaded needs more.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
