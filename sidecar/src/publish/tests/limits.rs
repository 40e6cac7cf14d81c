//! What was used of rate limits is carried over.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::model::{
    policy::{Policy, Route, RouteMatch},
    rate_limit::{By, RateLimit},
};

fn limit(name: &str, requests: u32) -> RateLimit {
    let per = Duration::from_secs(1);
    RateLimit { name: name.into(), requests, per, burst: 1, by: By::All, tells_always: false }
}

fn policy(limits: &[RateLimit]) -> Arc<Policy> {
    Arc::new(Policy { rate_limits: limits.into(), ..Policy::bare() })
}

fn with(limits: &[RateLimit], route: Option<&[RateLimit]>) -> Arc<ClusterSettings> {
    let mut settings = ClusterSettings::clone(&fixed("orders", &[endpoint(1, A)]));
    settings.policy = policy(limits);
    settings.routes = vec![Route {
        name: "route".into(),
        matches: Some(RouteMatch::ANY),
        policy: route.map_or_else(|| Arc::clone(&settings.policy), policy),
    }];
    Arc::new(settings)
}

/// The state of each limit: the cluster's, then the route's.
fn states(snapshot: &Snapshot) -> Vec<Vec<*const ()>> {
    let lists = snapshot.clusters[0].limiters.lists();
    let states =
        lists.iter().map(|list| list.limiters.iter().map(|it| Arc::as_ptr(&it.state).cast()).collect());
    states.collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_used_of_a_limit_goes_with_its_settings_and_place() {
    let (a, b) = (limit("a", 1), limit("b", 2));
    let first = next(&fixture::snapshot(), &[with(&[a.clone(), b.clone()], Some(std::slice::from_ref(&a)))]);
    let before = states(&first);
    assert_ne!(before[0][0], before[1][0], "the same words in another place");

    let told = RateLimit { tells_always: true, ..a.clone() };
    let second = next(&first, &[with(&[b, told.clone()], Some(std::slice::from_ref(&a)))]);
    assert_eq!(states(&second), [vec![before[0][1], before[0][0]], vec![before[1][0]]]);
    assert!(second.clusters[0].limiters.lists()[0].limiters[1].limit.tells_always);

    let third = next(&second, &[with(&[RateLimit { burst: 2, ..told }], None)]);
    let after = states(&third);
    assert_eq!(after.len(), 1, "the route shares the cluster's");
    assert!(!before.concat().contains(&after[0][0]), "another limit");
    let cluster = &third.clusters[0];
    let of_route = cluster.limiters.of(&cluster.settings.routes[0].policy);
    assert!(Arc::ptr_eq(&of_route[0].state, &cluster.limiters.lists()[0].limiters[0].state));
    assert!(cluster.limiters.of(&Policy::bare()).is_empty());
}
