//! `GET /explain`: why requests failed, with what became of each, step by step.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{State, routes::refusal},
    now,
    tap::flag,
};
use crate::{
    model::Snapshot,
    telemetry::{
        explain::{MAX_TRAILS, Question, REASONS, Remedy, of_flag, of_reason, of_trail, tell},
        tap::line::{kind, millis, path, request_id, source},
        trail::Trail,
    },
};

/// Requests that are told, unless the request says otherwise: those with one ID are few.
const TOLD: usize = 10;
/// The most that it may say.
const MAX_TOLD: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    id: Option<String>,
    flag: Option<String>,
    reason: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn explain(Shared(state): Shared<Arc<State>>, Query(asked): Query<Asked>) -> Response {
    let limit = asked.limit.unwrap_or(TOLD).clamp(1, MAX_TOLD);
    let (question, about) = match question(asked) {
        Ok(asked) => asked,
        Err(problem) => return refusal(StatusCode::BAD_REQUEST, &problem),
    };
    let snapshot = state.snapshots.load();
    let found = state.insight.explained.find(&question, limit);
    let status = match question {
        Question::Id(_) if found.is_empty() => StatusCode::NOT_FOUND,
        Question::Id(_) | Question::Latest | Question::Flag(_) | Question::Reason(_) => StatusCode::OK,
    };
    let requests: Vec<_> = found.iter().map(|found| request(&state, &snapshot, found)).collect();
    let answer = json!({
        "kept": kept(&state),
        "about": about.map(remedy),
        "requests": requests,
    });
    (status, Json(answer)).into_response()
}

fn question(asked: Asked) -> Result<(Question, Option<&'static Remedy>), String> {
    match (asked.id, asked.flag, asked.reason) {
        (None, None, None) => Ok((Question::Latest, None)),
        (Some(id), None, None) => Ok((Question::Id(id), None)),
        (None, Some(letters), None) => {
            let flag = flag(&letters)?;
            Ok((Question::Flag(flag), Some(of_flag(flag))))
        }
        (None, None, Some(reason)) => {
            let about = of_reason(&reason).ok_or_else(|| {
                let all = REASONS.map(|(name, _)| name).join(", ");
                format!("there is no such reason; there are {all}")
            })?;
            Ok((Question::Reason(reason), Some(about)))
        }
        _ => Err("only one of id, flag and reason".to_owned()),
    }
}

/// What could be found: so that nobody takes "not kept" for "never was".
fn kept(state: &State) -> Value {
    let extent = state.insight.explained.extent();
    let age = |began| state.clock.now().saturating_duration_since(began).as_secs_f64();
    json!({
        "requests": extent.trails,
        "most": MAX_TRAILS,
        "oldest_seconds": extent.oldest.map(age),
    })
}

fn remedy(remedy: &Remedy) -> Value {
    json!({ "means": remedy.means, "causes": remedy.causes, "next": remedy.next })
}

fn request(state: &State, snapshot: &Snapshot, (number, trail): &(u64, Trail)) -> Value {
    let at = state.clock.wall() - state.clock.now().saturating_duration_since(trail.started);
    let story =
        tell(trail).into_iter().map(|told| json!({ "after_ms": millis(told.after), "text": told.text }));
    let cluster = trail.cluster.as_ref().and_then(|name| snapshot.cluster(name));
    let now = cluster.map(|cluster| now::lines(cluster, state.clock.now())).unwrap_or_default();
    json!({
        "number": number,
        "at": humantime::format_rfc3339_millis(at).to_string(),
        "ago_seconds": state.clock.now().saturating_duration_since(trail.started).as_secs_f64().round(),
        "direction": trail.direction.label(),
        "kind": kind(trail.kind),
        "source": source(&trail.caller),
        "method": trail.asked.as_ref().map(|asked| asked.method.as_str()),
        "path": path(trail),
        "cluster": trail.cluster.as_ref().map(|cluster| cluster.as_str()),
        "route": trail.route.as_deref(),
        "request_id": request_id(trail),
        "trace": trail.trace.as_ref().map(|place| place.trace.to_string()),
        "status": trail.status,
        "grpc_status": trail.grpc_status,
        "flag": trail.flag.map(|flag| flag.letters()),
        "reason": trail.reason.as_deref().map(|reason| crate::telemetry::escape::shown(reason, 64)),
        "failed": trail.is_failed(),
        "attempts": trail.attempts.len(),
        "duration_ms": millis(trail.ended.max(Duration::ZERO)),
        "story": story.collect::<Vec<_>>(),
        "remedy": remedy(of_trail(trail)),
        // The cluster as it is at this moment, not as it was.
        "now": now,
    })
}
