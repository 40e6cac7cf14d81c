//! Rate limits and faults, and what cannot hold together of what one section says.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{TOP, assert_faults, settings};
use crate::model::{
    ClusterSettings,
    rate_limit::{By, RateLimit},
};

fn cluster(keys: &str) -> Arc<ClusterSettings> {
    let settings = settings(&format!("{TOP}{}", file(keys)));
    Arc::clone(settings.clusters.last().unwrap())
}

fn file(keys: &str) -> String {
    format!(
        "outbound: [{{listen: '127.0.0.1:0'}}]\nclusters: [{{name: c, spiffe_ids: ['spiffe://demo.outrider/c'], \
         endpoints: [{{address: '1.2.3.4:5'}}], {keys}}}]\n"
    )
}

fn inbound(keys: &str) -> String {
    format!("inbound: [{{name: api, listen: '127.0.0.1:0', app: '127.0.0.1:1', {keys}}}]\n")
}

#[test]
fn a_limit_says_little_and_means_much() {
    let text = inbound(
        "rate_limits: [{requests: 5}, {requests: 9, per: 1m, burst: 2, by: caller, headers: always}]",
    );
    let settings = settings(&format!("{TOP}{text}"));
    let all = RateLimit {
        name: "all".into(),
        requests: 5,
        per: Duration::from_secs(1),
        burst: 5,
        by: By::All,
        tells_always: false,
    };
    let each = RateLimit {
        name: "caller".into(),
        requests: 9,
        per: Duration::from_secs(60),
        burst: 2,
        by: By::Caller,
        tells_always: true,
    };
    assert_eq!(*settings.clusters[0].policy.rate_limits, [all, each]);
}

#[test]
fn what_makes_no_limit_is_named() {
    assert_faults(
        &inbound(
            "rate_limits: [{per: 1s}, {requests: 0, by: us}, {requests: 1, name: 'a b'}, {requests: 1}]",
        ),
        &[
            "inbound[0].rate_limits[0].requests (4): is missing",
            "inbound[0].rate_limits[1].requests (4): 0 is out of range",
            "inbound[0].rate_limits[1].by (4): \"us\" is not known",
            "inbound[0].rate_limits[1].name (4): a second limit of the name all",
            "inbound[0].rate_limits[2].name (4): \"a b\" is not a name",
            "inbound[0].rate_limits[3].name (4): a second limit of the name all",
        ],
    );
    let five = "{name: a, requests: 1}, {name: b, requests: 1}, {name: c, requests: 1}, {name: d, requests: 1}, {name: e, requests: 1}";
    assert_faults(&file(&format!("rate_limits: [{five}]")), &["clusters[0].rate_limits (5): 5 limits"]);
    assert_faults(&file("rate_limits: [{requests: 1, by: caller}]"), &["clusters[0].rate_limits[0].by"]);
}

#[test]
fn a_route_without_limits_or_fault_shares_its_clusters() {
    let keys = "rate_limits: [{requests: 5}], fault: {abort: 503}, routes: [{path: /a}, {path: /b, rate_limits: [], \
                fault: {}}, {path: /c, rate_limits: [{requests: 5}], fault: {delay: 1s}}]";
    let cluster = cluster(keys);
    let of = |path: &str| {
        let route = cluster.routes.iter().find(|route| format!("{:?}", route.matches).contains(path));
        Arc::clone(&route.unwrap().policy)
    };
    let (same, none, own) = (of("/a"), of("/b"), of("/c"));
    assert!(Arc::ptr_eq(&same.rate_limits, &cluster.policy.rate_limits));
    assert!(none.rate_limits.is_empty() && none.fault.is_none());
    assert_eq!(own.rate_limits, cluster.policy.rate_limits);
    assert!(!Arc::ptr_eq(&own.rate_limits, &cluster.policy.rate_limits), "the same words, another bucket");
    assert_eq!(same.fault, cluster.policy.fault);
    assert_eq!(same.fault.as_ref().unwrap().abort, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(own.fault.as_ref().unwrap().abort, None);
}

#[test]
fn what_makes_no_fault_is_named() {
    let keys = "fault: {abort: 200, abort_grpc: 17, delay_percent: 101, delay: 2h, header: 'x y', value: a}";
    assert_faults(
        &file(keys),
        &["fault.abort (", "fault.abort_grpc (", "fault.delay_percent (", "fault.delay (", "fault.header ("],
    );
    assert_faults(&file("fault: {abort: 500, value: a}"), &["fault.value (5): stands without header"]);
    assert_faults(&file("fault: {abort: 500, header: x-outrider-attempt}"), &["fault.header ("]);
}

#[test]
fn a_share_of_nothing_is_a_fault() {
    let shares =
        ["fault.delay_percent (5): stands without delay", "fault.abort_percent (5): stands without abort"];
    assert_faults(&file("fault: {delay_percent: 1, abort_percent: 1}"), &shares);
    assert_faults(&file("fault: {delay: none, delay_percent: 1, abort_grpc: 14, abort_percent: 1}"), &[]);
}

#[test]
fn an_attempt_has_no_more_time_than_all_of_them() {
    let longer = "per_try_timeout (5): 2s is longer than request_timeout";
    assert_faults(&file("request_timeout: 1s, retry: {per_try_timeout: 2s}"), &[longer]);
    let route = "routes: [{path: /a, request_timeout: 1s, retry: {per_try_timeout: 2s}}]";
    assert_faults(&file(route), &[&format!("routes[0].retry.{longer}")]);
    // As long is no longer, and what is inherited was said of others, too.
    assert_faults(&file("request_timeout: 2s, retry: {per_try_timeout: 2s}"), &[]);
    let inherited = "retry: {per_try_timeout: 2s}, routes: [{path: /a, request_timeout: 1s}]";
    assert_faults(&file(inherited), &[]);
    assert_faults(&file("request_timeout: none, retry: {per_try_timeout: 2s}"), &[]);
}

#[test]
fn a_second_attempt_that_could_never_be_made_is_a_fault() {
    let hedged = |keys: &str, expected: &[&str]| assert_faults(&file(keys), expected);
    let at = "clusters[0].retry.hedge (5)";
    hedged("retry: {max_retries: 0, hedge: p95}", &[&format!("{at}: stands beside max_retries: 0")]);
    hedged("retry: {methods: none, hedge: 50ms}", &[&format!("{at}: stands beside methods: none")]);
    let late = format!("{at}: 1s is not below per_try_timeout");
    hedged("request_timeout: 1s, retry: {per_try_timeout: 1s, hedge: 1s}", &[&late]);
    hedged("request_timeout: 1s, retry: {hedge: 2s}", &[&format!("{at}: 2s is not below request_timeout")]);
    let off =
        "retry: {max_retries: 0, methods: none, hedge: none}, routes: [{path: /a, retry: {hedge: p95}}]";
    hedged(off, &[]);
    hedged("retry: {hedge: 50ms}, routes: [{path: /a, retry: {max_retries: 0}}]", &[]);
    hedged("request_timeout: 1s, retry: {per_try_timeout: 500ms, hedge: 100ms}", &[]);
}

#[test]
fn a_floor_under_nothing_is_a_fault() {
    let at = "outlier_detection.slow_floor (5): stands beside slow_factor: none";
    assert_faults(&file("outlier_detection: {slow_factor: none, slow_floor: 1s}"), &[at]);
    assert_faults(&file("outlier_detection: {slow_floor: 1s}"), &[]);
}
