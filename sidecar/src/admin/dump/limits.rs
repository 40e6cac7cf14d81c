//! Rate limits and faults: what is configured, and what has come of it.

use std::{sync::atomic::Ordering, time::Instant};

use serde_json::{Value, json};

use super::config::duration;
use crate::{
    model::{
        Cluster,
        fault::Fault,
        policy::Policy,
        rate_limit::{By, Caller, RateLimit, RateLimiter},
    },
    resilience::rate_limit,
};

/// Callers that are shown of one limit: those who have the least left.
const MAX_SHOWN: usize = 32;

/// `/config`: the limits of a policy.
pub(super) fn configured(policy: &Policy) -> Value {
    policy.rate_limits.iter().map(limit).collect()
}

fn limit(limit: &RateLimit) -> Value {
    json!({
        "name": &*limit.name,
        "requests": limit.requests,
        "per": duration(limit.per),
        "burst": limit.burst,
        "by": match limit.by { By::All => "all", By::Caller => "caller" },
        "headers": if limit.tells_always { "always" } else { "refused" },
    })
}

/// `/config`: the fault of a policy.
pub(super) fn fault(policy: &Policy) -> Option<Value> {
    policy.fault.as_deref().map(|fault| {
        let Fault { delay, delay_percent, abort, abort_grpc, abort_percent, header } = fault;
        let value = header.as_ref().and_then(|field| field.value.as_ref());
        json!({
            "delay": delay.map(duration),
            "delay_percent": delay_percent,
            "abort": abort.map(|status| status.as_u16()),
            "abort_grpc": abort_grpc,
            "abort_percent": abort_percent,
            "header": header.as_ref().map(|field| field.name.as_str()),
            "value": value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        })
    })
}

/// `/clusters`: what is left of each limit of a cluster.
pub(super) fn rate_limits(cluster: &Cluster, now: Instant) -> Value {
    let lists = cluster.limiters.lists();
    let all = lists.iter().flat_map(|list| list.limiters.iter().map(|it| (list.route.as_deref(), it)));
    all.map(|(route, limiter)| {
        let mut shown = self::limiter(limiter, now);
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("route".to_owned(), json!(route));
        }
        shown
    })
    .collect()
}

fn limiter(limiter: &RateLimiter, now: Instant) -> Value {
    let state = &limiter.state;
    let known = state.callers.load();
    let mut callers: Vec<_> =
        known.iter().map(|(caller, bucket)| (rate_limit::left(limiter, bucket, now), name(caller))).collect();
    callers.sort_unstable();
    let callers = callers.into_iter().take(MAX_SHOWN);
    json!({
        "limit": &*limiter.limit.name,
        "left": rate_limit::left(limiter, &state.shared, now),
        "refused": state.refused.load(Ordering::Relaxed),
        "callers": known.len(),
        "beyond": state.beyond.load(Ordering::Relaxed),
        "least_left": callers.map(|(left, name)| json!({ "caller": name, "left": left })).collect::<Vec<_>>(),
    })
}

fn name(caller: &Caller) -> String {
    match caller {
        Caller::Id(id) => id.to_string(),
        Caller::Address(address) => address.to_string(),
    }
}
