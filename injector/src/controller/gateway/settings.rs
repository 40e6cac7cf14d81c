//! Timeouts and retries, in the words of a sidecar's file.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::route::Problem;

/// Longest time that a sidecar takes.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Longest first pause before a retry.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Most retries of a request.
const MAX_RETRIES: u64 = 10;

/// `timeouts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Timeouts {
    request: Option<String>,
    backend_request: Option<String>,
}

/// `retry`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Retry {
    codes: Option<Vec<u16>>,
    attempts: Option<u64>,
    backoff: Option<String>,
}

/// The keys `request_timeout` and `retry`.
pub(super) fn read(timeouts: Option<&Timeouts>, retry: Option<&Retry>) -> Result<Map<String, Json>, Problem> {
    let (mut words, mut repeated) = (Map::new(), Map::new());
    if let Some(timeouts) = timeouts {
        if let Some(text) = &timeouts.request {
            words.insert("request_timeout".to_owned(), limit(text).map_err(|it| it.at("timeouts.request"))?);
        }
        if let Some(text) = &timeouts.backend_request {
            let limit = limit(text).map_err(|it| it.at("timeouts.backendRequest"))?;
            repeated.insert("per_try_timeout".to_owned(), limit);
        }
    }
    if let Some(retry) = retry {
        if let Some(codes) = &retry.codes {
            repeated.insert("statuses".to_owned(), json!(codes));
        }
        if let Some(attempts) = retry.attempts {
            repeated.insert("max_retries".to_owned(), json!(attempts.min(MAX_RETRIES)));
        }
        if let Some(text) = &retry.backoff {
            let pause = duration(text).map_err(|it| it.at("retry.backoff"))?;
            let pause = pause.clamp(Duration::from_millis(1), MAX_BACKOFF);
            repeated.insert("backoff_base".to_owned(), milliseconds(pause));
        }
    }
    if !repeated.is_empty() {
        words.insert("retry".to_owned(), Json::Object(repeated));
    }
    Ok(words)
}

/// A time limit; 0 is none, and what a sidecar would take for a typing error is the longest that there is.
fn limit(text: &str) -> Result<Json, Problem> {
    let found = duration(text)?;
    Ok(if found.is_zero() { json!("none") } else { milliseconds(found.min(MAX_TIMEOUT)) })
}

fn milliseconds(duration: Duration) -> Json {
    json!(format!("{}ms", duration.as_millis()))
}

/// A duration of the Gateway API (GEP-2257): up to four numbers of at most five digits, each with h, m, s or ms.
fn duration(text: &str) -> Result<Duration, Problem> {
    let is_of_api =
        text.len() <= 28 && text.bytes().all(|byte| byte.is_ascii_digit() || b"hms".contains(&byte));
    let found = humantime::parse_duration(text).ok().filter(|_| is_of_api);
    found.ok_or_else(|| Problem::value(format!("{:?} is not a duration such as 10s or 1h30m", shown(text))))
}

/// The beginning of a text that may be of any length.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
