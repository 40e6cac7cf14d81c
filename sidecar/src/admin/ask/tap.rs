//! `GET /tap`: live requests as they end, a line of JSON each, until somebody has enough.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State as Shared},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Sleep;

use super::super::{State, routes::refusal, server::Life};
use crate::{
    model::{edge::Direction, flag::ResponseFlag},
    telemetry::tap::{Filter, MAX_PER_SECOND, MAX_WATCHERS, PER_SECOND, StatusFilter, Tap, Wish},
};

/// The longest that one lasts.
const MAX_SECONDS: u64 = 3600;
/// After so much silence there is an empty line, so that both ends know of each other.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    direction: Option<String>,
    cluster: Option<String>,
    source: Option<String>,
    route: Option<String>,
    method: Option<String>,
    path: Option<String>,
    status: Option<String>,
    flag: Option<String>,
    min_duration: Option<String>,
    #[serde(default)]
    failed: bool,
    limit: Option<u64>,
    per_second: Option<u32>,
    seconds: Option<u64>,
}

pub(super) async fn tap(
    Shared(state): Shared<Arc<State>>,
    Extension(life): Extension<Life>,
    Query(asked): Query<Asked>,
) -> Response {
    let seconds = asked.seconds.unwrap_or(MAX_SECONDS);
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return refusal(StatusCode::BAD_REQUEST, &format!("seconds must be 1 to {MAX_SECONDS}"));
    }
    let wish = match wish(asked) {
        Ok(wish) => wish,
        Err(problem) => return refusal(StatusCode::BAD_REQUEST, &problem),
    };
    let Some(tap) = Tap::new(&state.insight, &state.observer, wish, state.clock.now()) else {
        let problem = format!("{MAX_WATCHERS} watch already, and no more may; end one of them, or try again");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &problem);
    };
    let until = Box::pin(tokio::time::sleep(Duration::from_secs(seconds)));
    let watching = Watching { tap, life, until, is_over: false };
    let lines = stream::unfold(watching, |mut watching| async move {
        let line = watching.next().await?;
        Some((Ok::<_, Infallible>(line), watching))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

struct Watching {
    tap: Tap,
    life: Life,
    until: Pin<Box<Sleep>>,
    is_over: bool,
}

impl Watching {
    /// The next line; asked for only when the one before has been written.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        self.life.renew();
        let ended = tokio::select! {
            biased;
            line = self.tap.next() => match line {
                Some(line) => return Some(line),
                None => "limit",
            },
            () = &mut self.until => "time",
            () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(b"\n")),
        };
        self.is_over = true;
        let left_out = self.tap.left_out();
        let end = json!({ "end": {
            "because": ended,
            "left_out": { "over_per_second": left_out.over_rate, "read_too_slowly": left_out.unread },
        }});
        Some(format!("{end}\n").into())
    }
}

fn wish(asked: Asked) -> Result<Wish, String> {
    let direction = match asked.direction.as_deref() {
        None => None,
        Some("inbound") => Some(Direction::Inbound),
        Some("outbound") => Some(Direction::Outbound),
        Some(other) => return Err(format!("`{other}` is no direction: inbound or outbound")),
    };
    let method = asked.method.map(|method| Method::from_bytes(method.as_bytes())).transpose();
    let duration = asked.min_duration.as_deref().map(humantime::parse_duration).transpose();
    let per_second = asked.per_second.unwrap_or(PER_SECOND);
    if !(1..=MAX_PER_SECOND).contains(&per_second) {
        return Err(format!("per_second must be 1 to {MAX_PER_SECOND}"));
    }
    if asked.limit == Some(0) {
        return Err("limit must be 1 or more".to_owned());
    }
    let filter = Filter {
        direction,
        cluster: asked.cluster,
        source: asked.source,
        route: asked.route,
        method: method.map_err(|_wrong| "method is none of HTTP".to_owned())?,
        path: asked.path,
        status: asked.status.as_deref().map(str::parse::<StatusFilter>).transpose()?,
        flag: asked.flag.as_deref().map(flag).transpose()?,
        min_duration: duration.map_err(|error| format!("min_duration: {error}"))?.unwrap_or_default(),
        is_failed: asked.failed,
    };
    Ok(Wish { filter, limit: asked.limit, per_second })
}

/// The flag of that name.
///
/// # Errors
/// There is none; all that there are.
pub(super) fn flag(letters: &str) -> Result<ResponseFlag, String> {
    let found = ResponseFlag::ALL.into_iter().find(|flag| flag.letters() == letters);
    found.ok_or_else(|| {
        let all = ResponseFlag::ALL.map(ResponseFlag::letters).join(", ");
        format!("there is no such flag; there are {all}")
    })
}
