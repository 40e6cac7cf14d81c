//! How a cluster stands now.

use std::{sync::atomic::Ordering, time::Instant};

use serde_json::{Value, json};

use crate::model::{
    Cluster, Endpoint,
    health::{Standing, Tally},
    outlier::Reason,
};

/// Endpoints that are told of one by one; as a rule those that explain something are few.
const MAX_TOLD: usize = 8;

/// How many of its endpoints may be asked.
pub(super) fn endpoints(tally: &Tally) -> Value {
    json!({
        "all": tally.listed,
        "usable": usable(tally),
        "not_ready": tally.not_ready,
        "unhealthy": tally.unhealthy,
        "ejected": tally.ejected,
    })
}

fn usable(tally: &Tally) -> usize {
    tally.listed.saturating_sub(tally.not_ready + tally.unhealthy + tally.ejected)
}

/// What is under way against its cap, cap by cap.
pub(super) fn breaker(cluster: &Cluster) -> Value {
    let (caps, runtime) = (&cluster.settings.caps, &cluster.runtime);
    let cap = |name: &str, counter: &std::sync::atomic::AtomicU32, cap: u32| {
        let now = counter.load(Ordering::Relaxed);
        json!({ "cap": name, "now": now, "most": cap, "open": now >= cap })
    };
    json!([
        cap("max_requests", &runtime.in_flight, caps.max_requests),
        cap("max_connections", &runtime.connections, caps.max_connections),
        cap("max_pending", &runtime.pending, caps.max_pending),
        cap("retry.max_active", &runtime.repeats.active, cluster.settings.retry_budget.max_active),
    ])
}

/// The same in sentences, with the endpoints that may not be asked.
pub(super) fn lines(cluster: &Cluster, now: Instant) -> Vec<String> {
    let tally = Tally::of(&cluster.endpoints, now);
    let name = cluster.name();
    let mut lines = vec![match tally.listed {
        0 => format!("cluster `{name}` has no endpoint"),
        all => format!(
            "cluster `{name}` has {all} endpoint(s): {} usable, {} not ready, {} unhealthy, {} ejected",
            usable(&tally),
            tally.not_ready,
            tally.unhealthy,
            tally.ejected,
        ),
    }];
    lines.extend(cluster.runtime.discovery.error().map(|error| format!("its discovery fails: {error}")));
    let odd = cluster.endpoints.iter().filter_map(|endpoint| odd(endpoint, now));
    lines.extend(odd.take(MAX_TOLD));
    let in_flight = cluster.runtime.in_flight.load(Ordering::Relaxed);
    if in_flight >= cluster.settings.caps.max_requests {
        lines.push(format!("it is at its cap: {in_flight} requests in flight (`max_requests`)"));
    }
    lines
}

/// Why an endpoint may not be asked; `None`: it may.
fn odd(endpoint: &Endpoint, now: Instant) -> Option<String> {
    let address = endpoint.address();
    let runtime = &endpoint.runtime;
    let is_ready = endpoint.settings.is_ready;
    let reason = || runtime.seen.reason().map_or("unknown", Reason::label);
    match runtime.standing(is_ready, now) {
        Standing::Usable => None,
        Standing::Resting(until) => {
            let left = until.saturating_duration_since(now).as_secs();
            Some(format!("{address} is ejected (`{}`) for another {left} s", reason()))
        }
        Standing::Due => {
            Some(format!("{address} was ejected (`{}`); the next request tries whether it is back", reason()))
        }
        Standing::Unhealthy if !is_ready => Some(format!("{address} is not ready, says discovery")),
        Standing::Unhealthy => {
            let found = runtime.health.checks().last;
            let found = found.map(|last| format!(": {}", last.text)).unwrap_or_default();
            Some(format!("{address} is unhealthy, say health checks{found}"))
        }
    }
}
