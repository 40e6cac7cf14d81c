//! Who was ejected, why, and for how long.

use std::{sync::atomic::Ordering, time::Instant};

use serde_json::{Map, Value, json};

use crate::model::{
    Cluster, Endpoint,
    health::Standing,
    outlier::{OutlierSettings, Reason, Results},
};

/// The settings in force; `null` where nobody is ejected.
pub(super) fn settings(outlier: Option<&OutlierSettings>) -> Value {
    let duration = |time| humantime::format_duration(time).to_string();
    outlier.map_or(Value::Null, |outlier| {
        json!({
            "consecutive_gateway_failures": outlier.consecutive_gateway_failures,
            "consecutive_local_failures": outlier.consecutive_local_failures,
            "success_rate_stdev": outlier.success_rate_stdev,
            "failure_percent": outlier.failure_percent,
            "slow_factor": outlier.slow_factor,
            "slow_floor": duration(outlier.slow_floor),
            "min_requests": outlier.min_requests,
            "min_endpoints": outlier.min_endpoints,
            "window": duration(outlier.window),
            "ejection_time": duration(outlier.ejection_time),
            "max_ejection_time": duration(outlier.max_ejection_time),
            "max_ejected_percent": outlier.max_ejected_percent,
        })
    })
}

/// What happened in a cluster; only reasons that occurred. `null` where nobody is ejected.
pub(super) fn whole(cluster: &Cluster) -> Value {
    if cluster.settings.outlier.is_none() {
        return Value::Null;
    }
    let state = &cluster.runtime.outlier;
    let ejections: Map<String, Value> = Reason::ALL
        .into_iter()
        .map(|reason| (reason.label().to_owned(), state.ejected_for(reason)))
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason, count.into()))
        .collect();
    json!({ "ejections": ejections, "held_back": state.held_back.load(Ordering::Relaxed) })
}

/// What was seen of an endpoint. `ejected` is `null` while it is in.
pub(super) fn part(endpoint: &Endpoint, now: Instant) -> Value {
    let (health, seen) = (&endpoint.runtime.health, &endpoint.runtime.seen);
    let in_a_row = health.ejections.load(Ordering::Relaxed);
    let is_ejected = health.ejected_until_us.load(Ordering::Relaxed) > 0;
    // Health checks have the say in `standing`; whether it is ejected as well is told here.
    let rest_left = match endpoint.runtime.standing(true, now) {
        Standing::Resting(until) => until.saturating_duration_since(now).as_secs_f64(),
        Standing::Usable | Standing::Due | Standing::Unhealthy => 0.0,
    };
    let Results { successes, failures } = seen.lately();
    let millis = |ratio| seen.latencies.quantile(ratio).map(|latency| latency.as_secs_f64() * 1000.0);
    json!({
        "ejected": is_ejected.then(|| json!({
            "reason": seen.reason().map(Reason::label),
            "rest_left_seconds": rest_left,
        })),
        "ejections": seen.ejected.load(Ordering::Relaxed),
        "ejections_in_a_row": in_a_row,
        "consecutive_gateway_failures": seen.consecutive_gateway.load(Ordering::Relaxed),
        "consecutive_local_failures": seen.consecutive_local.load(Ordering::Relaxed),
        // Of this window and the one before.
        "lately": { "successes": successes, "failures": failures, "p50_ms": millis(0.5), "p95_ms": millis(0.95) },
        "overloaded": endpoint.runtime.is_overloaded(now),
    })
}
