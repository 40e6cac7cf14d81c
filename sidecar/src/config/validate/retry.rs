//! What may be repeated: of a cluster's requests, or of a route's.

use serde_saphyr::Spanned;

use super::bootstrap::{to_u32, to_usize};
use crate::{
    config::{
        defaults, raw,
        units::{Bytes, Unit as _},
        value::{choice, quantity, quantity_or_none, word},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        policy::{Hedge, RetryBudget, RetryPolicy},
        statuses::{self, GRPC_NAMES, GrpcStatuses, Statuses},
    },
};

/// The keys that a route's `retry` cannot have: they bound all that a cluster repeats.
const OF_CLUSTERS: [&str; 3] = ["budget_percent", "budget_min_per_second", "max_active"];

/// What a cluster's `retry` says.
pub(super) fn of_cluster(
    raw: Option<&Spanned<raw::Retry>>,
    place: &Place,
    faults: &mut Faults,
) -> (RetryPolicy, RetryBudget) {
    let policy = policy(raw, &by_default(), place, faults);
    let empty = raw::Retry::default();
    let (raw, place) = open(raw, &empty, place);
    let mut count = |text, key| to_u32(quantity::<u64>(text, key, &place, faults));
    let budget_percent = count(raw.budget_percent.as_ref(), &defaults::BUDGET_PERCENT);
    let budget = RetryBudget {
        ratio: f64::from(budget_percent) / 100.0,
        min_per_second: count(raw.budget_min_per_second.as_ref(), &defaults::BUDGET_MIN_PER_SECOND),
        max_active: count(raw.max_active.as_ref(), &defaults::MAX_ACTIVE),
    };
    (policy, budget)
}

/// What bounds the repetitions of a cluster that has no `retry`.
pub(super) fn budget_by_default() -> RetryBudget {
    RetryBudget {
        ratio: defaults::BUDGET_PERCENT.default.map_or(0.0, |percent| percent as f64 / 100.0),
        min_per_second: to_u32(defaults::BUDGET_MIN_PER_SECOND.default.unwrap_or(0)),
        max_active: to_u32(defaults::MAX_ACTIVE.default.unwrap_or(0)),
    }
}

/// What a route's `retry` says; what it does not say is as in `base`, its cluster's.
pub(super) fn of_route(
    raw: Option<&Spanned<raw::Retry>>,
    base: &RetryPolicy,
    place: &Place,
    faults: &mut Faults,
) -> RetryPolicy {
    let policy = policy(raw, base, place, faults);
    let empty = raw::Retry::default();
    let (raw, place) = open(raw, &empty, place);
    let said = [&raw.budget_percent, &raw.budget_min_per_second, &raw.max_active];
    for (key, text) in OF_CLUSTERS.into_iter().zip(said) {
        if let Some(text) = text {
            let remedy = "say it in the cluster's own `retry`: it bounds what all of its routes repeat";
            faults.add(&place.key(key).at(text), "is not a route's", remedy);
        }
    }
    policy
}

/// What the section says, over `base`.
fn policy(
    raw: Option<&Spanned<raw::Retry>>,
    base: &RetryPolicy,
    place: &Place,
    faults: &mut Faults,
) -> RetryPolicy {
    let empty = raw::Retry::default();
    let (raw, place) = open(raw, &empty, place);
    report_odd_keys(&raw.odd_keys, raw::Retry::KEYS, &place, faults);
    let max_retries = defaults::MAX_RETRIES.or(Some(u64::from(base.max_retries)));
    let per_try_timeout = defaults::PER_TRY_TIMEOUT.or(base.per_try_timeout);
    let replay_bytes = defaults::REPLAY_BYTES.or(Some(Bytes(base.replay_bytes as u64)));
    let backoff_base = defaults::BACKOFF_BASE.or(Some(base.backoff_base));
    RetryPolicy {
        max_retries: to_u32(quantity(raw.max_retries.as_ref(), &max_retries, &place, faults)),
        per_try_timeout: quantity_or_none(raw.per_try_timeout.as_ref(), &per_try_timeout, &place, faults),
        statuses: raw.statuses.as_ref().map_or(base.statuses, |list| http(list, &place, faults)),
        grpc_statuses: raw
            .grpc_statuses
            .as_ref()
            .map_or(base.grpc_statuses, |list| grpc(list, &place, faults)),
        methods: match &raw.methods {
            Some(text) => choice(Some(text), &defaults::METHODS, &place, faults),
            None => base.methods,
        },
        replay_bytes: to_usize(quantity::<Bytes>(raw.replay_bytes.as_ref(), &replay_bytes, &place, faults).0),
        backoff_base: quantity(raw.backoff_base.as_ref(), &backoff_base, &place, faults),
        hedge: hedge(raw.hedge.as_ref(), base.hedge, &place, faults),
    }
}

/// What holds where nothing is said.
fn by_default() -> RetryPolicy {
    let named = |name: &&str| GRPC_NAMES.iter().find(|(known, _)| known == name).map(|(_, status)| *status);
    RetryPolicy {
        max_retries: to_u32(defaults::MAX_RETRIES.default.unwrap_or(0)),
        per_try_timeout: defaults::PER_TRY_TIMEOUT.default,
        statuses: defaults::STATUSES.iter().copied().collect(),
        grpc_statuses: defaults::GRPC_STATUSES.iter().filter_map(named).collect(),
        methods: defaults::METHODS.default.1,
        replay_bytes: defaults::REPLAY_BYTES.default.map_or(0, |bytes| to_usize(bytes.0)),
        backoff_base: defaults::BACKOFF_BASE.default.unwrap_or(defaults::BACKOFF_BASE.min),
        hedge: defaults::HEDGE.default.map_or(Hedge::Never, Hedge::After),
    }
}

fn open<'a>(
    raw: Option<&'a Spanned<raw::Retry>>,
    empty: &'a raw::Retry,
    place: &Place,
) -> (&'a raw::Retry, Place) {
    let place = place.key("retry");
    match raw {
        Some(raw) => (&raw.value, place.at(raw)),
        None => (empty, place),
    }
}

fn http(list: &Spanned<raw::Texts>, place: &Place, faults: &mut Faults) -> Statuses {
    let mut statuses = Statuses::NONE;
    let place = place.key("statuses");
    for (index, text) in list.value.iter().enumerate() {
        let status = u64::parse(&text.value).and_then(|status| u16::try_from(status).ok());
        match status {
            Some(status) if (statuses::FIRST..=statuses::LAST).contains(&status) => statuses.insert(status),
            _ if text.value == "5xx" => (500..=statuses::LAST).for_each(|status| statuses.insert(status)),
            _ => {
                let problem = format!("{} is no status that can be repeated", quoted(&text.value));
                faults.add(&place.item(index).at(text), problem, "list statuses of 400 to 599, or 5xx");
            }
        }
    }
    statuses
}

fn grpc(list: &Spanned<raw::Texts>, place: &Place, faults: &mut Faults) -> GrpcStatuses {
    let place = place.key("grpc_statuses");
    let known = |(index, text): (usize, &Spanned<String>)| {
        word(text, &GRPC_NAMES, &place.item(index).at(text), faults)
    };
    list.value.iter().enumerate().filter_map(known).collect()
}

fn hedge(text: Option<&Spanned<String>>, base: Hedge, place: &Place, faults: &mut Faults) -> Hedge {
    match text {
        None => base,
        Some(text) if text.value == "p95" => Hedge::P95,
        text => quantity_or_none(text, &defaults::HEDGE, place, faults).map_or(Hedge::Never, Hedge::After),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::policy::Methods;

    fn section(text: &str) -> Spanned<raw::Retry> {
        serde_saphyr::from_str(text).unwrap()
    }

    /// What a cluster with this section has, and the paths of its faults.
    fn cluster(text: &str) -> (RetryPolicy, RetryBudget, Vec<String>) {
        let mut faults = Faults::default();
        let (policy, budget) = of_cluster(Some(&section(text)), &Place::default(), &mut faults);
        (policy, budget, paths(faults))
    }

    fn paths(faults: Faults) -> Vec<String> {
        faults.into_vec().into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let (policy, budget, faults) = cluster("{max_active: 7}");
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(policy.statuses.iter().collect::<Vec<_>>(), [502, 503, 504]);
        assert_eq!(policy.grpc_statuses.names().collect::<Vec<_>>(), ["UNAVAILABLE"]);
        assert_eq!((policy.methods, policy.hedge), (Methods::Idempotent, Hedge::Never));
        assert_eq!((policy.per_try_timeout, policy.max_retries), (None, 2));
        assert_eq!((budget.max_active, budget.min_per_second), (7, 10));
        assert_eq!(budget_by_default(), RetryBudget { max_active: 1024, ..budget });
    }

    #[test]
    fn what_a_route_does_not_say_is_its_clusters() {
        let all = "{max_retries: 5, per_try_timeout: 1s, statuses: [5xx, 429], grpc_statuses: [ABORTED], \
                   methods: any, replay_bytes: 1MiB, backoff_base: 3ms, hedge: p95}";
        let (base, _budget, faults) = cluster(all);
        assert!(faults.is_empty(), "{faults:?}");
        assert!(base.statuses.contains(429) && base.statuses.contains(500) && base.statuses.contains(599));
        let mut faults = Faults::default();
        let mut route = |text: Option<&str>| {
            let section = text.map(section);
            of_route(section.as_ref(), &base, &Place::default(), &mut faults)
        };
        assert_eq!(route(None), base);
        assert_eq!(route(Some("{}")), base);
        let one = |key: &str| format!("{{{key}}}");
        for (key, expected) in [
            ("max_retries: 0", RetryPolicy { max_retries: 0, ..base.clone() }),
            ("per_try_timeout: none", RetryPolicy { per_try_timeout: None, ..base.clone() }),
            ("statuses: []", RetryPolicy { statuses: Statuses::NONE, ..base.clone() }),
            ("grpc_statuses: []", RetryPolicy { grpc_statuses: GrpcStatuses::NONE, ..base.clone() }),
            ("methods: idempotent", RetryPolicy { methods: Methods::Idempotent, ..base.clone() }),
            ("replay_bytes: 0", RetryPolicy { replay_bytes: 0, ..base.clone() }),
            ("backoff_base: 1s", RetryPolicy { backoff_base: Duration::from_secs(1), ..base.clone() }),
            ("hedge: none", RetryPolicy { hedge: Hedge::Never, ..base.clone() }),
            ("hedge: 30ms", RetryPolicy { hedge: Hedge::After(Duration::from_millis(30)), ..base.clone() }),
        ] {
            assert_eq!(route(Some(&one(key))), expected, "{key}");
        }
        assert!(paths(faults).is_empty());
    }

    #[test]
    fn a_route_cannot_bound_what_its_cluster_repeats() {
        let (base, ..) = cluster("{}");
        let mut faults = Faults::default();
        let text = section("{budget_percent: 1, budget_min_per_second: 1, max_active: 1}");
        of_route(Some(&text), &base, &Place::default(), &mut faults);
        assert_eq!(paths(faults), OF_CLUSTERS.map(|key| format!("retry.{key}")));
    }

    #[test]
    fn what_cannot_be_repeated_is_a_fault() {
        let text =
            "{statuses: [200, 600, abc, 503], grpc_statuses: [OK, unavailable], methods: get, hedge: 0s}";
        let (policy, _budget, faults) = cluster(text);
        let expected = ["statuses[0]", "statuses[1]", "statuses[2]", "grpc_statuses[0]", "grpc_statuses[1]"];
        let expected = expected.into_iter().chain(["methods", "hedge"]).map(|key| format!("retry.{key}"));
        assert_eq!(faults, expected.collect::<Vec<_>>());
        assert!(policy.statuses.contains(503));
    }
}
