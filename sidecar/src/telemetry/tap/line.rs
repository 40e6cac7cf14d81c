//! One request as a line of JSON.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Version;
use serde_json::{Value, json};

use crate::telemetry::{
    escape::{shown, shown_bytes},
    trail::{Caller, Traffic, Trail},
};

/// Characters of a path, or of an error.
const MAX_TEXT: usize = 512;
/// Characters of what should be short.
const MAX_NAME: usize = 256;

/// The line of a request that came `at`, its end included. Its query is left out: that may hold secrets.
pub(super) fn of(trail: &Trail, at: SystemTime) -> Bytes {
    let mut line = value(trail, at).to_string();
    line.push('\n');
    line.into()
}

fn value(trail: &Trail, at: SystemTime) -> Value {
    let asked = trail.asked.as_ref();
    let delivered = trail.delivered().map(|(_, attempt)| attempt);
    let name = |text: &str| shown(text, MAX_NAME);
    json!({
        "at": humantime::format_rfc3339_millis(at).to_string(),
        "direction": trail.direction.label(),
        "kind": kind(trail.kind),
        "listener": &*trail.listener,
        "source": source(&trail.caller),
        "client": trail.client.map(|client| client.to_string()),
        "method": asked.map(|asked| name(asked.method.as_str())),
        "authority": asked.map(|asked| name(&asked.authority)),
        "path": path(trail),
        "version": asked.map(|asked| version(asked.version)),
        "cluster": trail.cluster.as_ref().map(|cluster| cluster.as_str()),
        "route": trail.route.as_deref(),
        "status": trail.status,
        "grpc_status": trail.grpc_status,
        "flag": trail.flag.map(|flag| flag.letters()),
        "reason": trail.reason.as_deref().map(name),
        "error": trail.error.as_deref().map(|error| shown(error, MAX_TEXT)),
        "failed": trail.is_failed(),
        "answered_ms": trail.answered.map(millis),
        "duration_ms": millis(trail.ended),
        "attempts": trail.attempts.len(),
        "endpoint": delivered.map(|attempt| attempt.endpoint.to_string()),
        "peer": delivered.and_then(|attempt| attempt.peer.as_ref()).map(|peer| peer.as_str()),
        "request_bytes": trail.request_bytes,
        "response_bytes": trail.response_bytes,
        "request_id": request_id(trail),
        "trace": trail.trace.as_ref().map(|place| place.trace.to_string()),
    })
}

/// The path, without the query.
pub(crate) fn path(trail: &Trail) -> Option<String> {
    let target = trail.asked.as_ref()?.target.as_ref()?;
    Some(shown(target.path(), MAX_TEXT))
}

/// The request's ID.
pub(crate) fn request_id(trail: &Trail) -> Option<String> {
    trail.request_id.as_ref().map(|id| shown_bytes(id.as_bytes(), MAX_NAME))
}

/// Who sent it, in a word.
pub(crate) fn source(caller: &Caller) -> &str {
    match caller {
        Caller::App => "app",
        Caller::Peer(id) => id.as_str(),
        Caller::Unverified => "unverified",
    }
}

pub(crate) fn kind(kind: Traffic) -> &'static str {
    match kind {
        Traffic::Http => "http",
        Traffic::Grpc => "grpc",
        Traffic::Stream => "stream",
        Traffic::Tunnel => "tunnel",
    }
}

pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "?",
    }
}

/// In milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a request")]
    let micros = time.as_micros() as f64;
    micros / 1000.0
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, uri::PathAndQuery};

    use super::*;
    use crate::telemetry::fixture::{attempt, trail};

    #[test]
    fn a_line_tells_the_request_and_not_its_query() {
        let line = of(&trail(), SystemTime::UNIX_EPOCH);
        assert!(!String::from_utf8_lossy(&line).contains("card"));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["path"], "/items/7");
        assert_eq!((&value["status"], &value["flag"]), (&json!(503), &json!("UH")));
        assert_eq!(value["duration_ms"], 20.0);
    }

    #[test]
    fn the_endpoint_is_the_one_whose_answer_was_delivered() {
        let mut trail = trail();
        trail.attempts.extend([attempt(1, 0), attempt(2, 5)]);
        let endpoint = |trail: &Trail| value(trail, SystemTime::UNIX_EPOCH)["endpoint"].clone();
        assert_eq!(endpoint(&trail), "10.0.0.7:2", "the newest, where nothing was noted");
        trail.delivered = Some(0);
        assert_eq!(endpoint(&trail), "10.0.0.7:1");
    }

    #[test]
    fn what_a_peer_wrote_is_escaped_and_bounded() {
        let mut trail = trail();
        let asked = trail.asked.as_mut().unwrap();
        asked.target = Some(PathAndQuery::try_from(format!("/{}", "x".repeat(9000))).unwrap());
        asked.authority = "\u{9b}31mred".into();
        trail.request_id = Some(HeaderValue::from_bytes(b"a\xc2\x9b31m\xff").unwrap());
        let line = of(&trail, SystemTime::UNIX_EPOCH);
        assert!(line.len() < 4096, "{}", line.len());
        let (end, rest) = line.split_last().unwrap();
        assert_eq!(*end, b'\n');
        assert!(rest.iter().all(|byte| (b' '..=b'~').contains(byte)), "{line:?}");
    }
}
