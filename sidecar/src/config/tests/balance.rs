//! How endpoints share requests, as a file says it.

use super::*;
use crate::model::balance::{Affinity, AffinityBy, Balancing};

/// A cluster with these keys.
fn with(keys: &str) -> String {
    format!("outbound: [{{listen: '127.0.0.1:1'}}]\nclusters: [{{name: x, endpoints_file: f, {keys}}}]\n")
}

fn balancing(keys: &str) -> (Balance, Balancing) {
    let settings = settings(&format!("{TOP}{}", with(keys)));
    (settings.clusters[0].balance, settings.clusters[0].balancing.clone())
}

#[test]
fn what_a_file_leaves_out_is_as_documented() {
    let none = Balancing { affinity: None, panic_percent: 50, slow_start: None, prefers_zone: true };
    assert_eq!(balancing(""), (Balance::PeakEwma, none));
    let all = "balance: least_request, panic_percent: 0, slow_start: 30s, zones: ignore";
    let slow_start = Some(Duration::from_secs(30));
    let all_set = Balancing { affinity: None, panic_percent: 0, slow_start, prefers_zone: false };
    assert_eq!(balancing(all), (Balance::LeastRequest, all_set));
}

#[test]
fn an_affinity_is_by_one_of_four() {
    let affinity =
        |keys: &str| balancing(&format!("balance: maglev, affinity: {{{keys}}}")).1.affinity.unwrap();
    let by = |by| Affinity { by, max_load_percent: None };
    let header = AffinityBy::Header(http::HeaderName::from_static("x-user"));
    assert_eq!(affinity("by: header, name: X-User"), by(header));
    assert_eq!(affinity("by: source"), by(AffinityBy::Source));
    let limited = Affinity { by: AffinityBy::SpiffeId, max_load_percent: Some(150) };
    assert_eq!(affinity("by: spiffe_id, max_load_percent: 150"), limited);
    let cookie = |ttl| by(AffinityBy::Cookie { name: "Stick".into(), ttl });
    assert_eq!(affinity("by: cookie, name: Stick"), cookie(None));
    assert_eq!(affinity("by: cookie, name: Stick, ttl: 1h"), cookie(Some(Duration::from_secs(3600))));
}

#[test]
fn what_belongs_to_another_affinity_or_to_none_is_a_fault() {
    let faults = |keys: &str, expected: &[&str]| assert_faults(&with(keys), expected);
    faults("balance: maglev", &["clusters[0].affinity (5): is missing"]);
    faults("affinity: {by: source}", &["clusters[0].affinity (5): is for balance: maglev only"]);
    faults("balance: maglev, affinity: {}", &["clusters[0].affinity.by (5): is missing"]);
    faults("balance: maglev, affinity: {by: path}", &["affinity.by (5): \"path\" is not known here"]);
    faults("balance: maglev, affinity: {by: header}", &["affinity.name (5): is missing"]);
    let with_name = "balance: maglev, affinity: {by: source, name: a, ttl: 1h}";
    faults(
        with_name,
        &["affinity.name (5): is for by: header and", "affinity.ttl (5): is for by: cookie only"],
    );
    for name in ["'a b'", "'a=b'", "'a;b'", "''"] {
        let keys = format!("balance: maglev, affinity: {{by: cookie, name: {name}}}");
        faults(&keys, &["is not the name of a header field or a cookie"]);
    }
    let zoned = "balance: maglev, affinity: {by: source}, zones:";
    faults(&format!("{zoned} prefer"), &["clusters[0].zones (5): has no part in balance: maglev"]);
    faults(&format!("{zoned} ignore"), &[]);
    let between = "balance: maglev, affinity: {by: header, name: X-Outrider-Attempt}";
    faults(between, &["is a field between sidecars"]);
}
