//! Which of a rule's clusters: by chance and by weight, or always the same for the same caller.

use http::Version;

use super::{Shop, get, of_orders};
use crate::{harness::eventually, metrics::scrape};

const CANARY: &str = "{name: canary, clusters: [{name: v1, weight: 90}, {name: v2, weight: 10}]}";

#[tokio::test]
async fn a_canary_gets_the_share_that_its_weight_says_and_is_counted_by_route_and_cluster() {
    const CALLS: u32 = 1000;
    let shop = Shop::new(&of_orders(CANARY)).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = shop.client(version).await;
        for _ in 0..CALLS / 2 {
            get(&mut client, "/", &[]).await;
        }
    }
    let [orders, stable, canary] = shop.counts()[..] else { panic!() };
    assert_eq!((orders, stable + canary), (0, 1000));
    // Binomial with n = 1000 and p = 0.1: six standard deviations are 57.
    assert!((43..=157).contains(&canary), "{canary} of {CALLS} with a tenth of the weight");
    let ended = || scrape(&shop.web).sum("outrider_edge_requests_total", &[("route", "shop/canary")]);
    eventually("all are counted", || ended() == f64::from(CALLS)).await;
    let told = scrape(&shop.web);
    let of_v2 = [("route", "shop/canary"), ("destination", "v2")];
    let counted = told.sum("outrider_edge_requests_total", &of_v2);
    assert_eq!(counted, f64::from(u32::try_from(canary).unwrap()));
}

#[tokio::test]
async fn a_cluster_without_weight_gets_nothing() {
    let rule = "{clusters: [{name: v1, weight: 0}, {name: v2}], sticky: {header: x-user}}";
    let shop = Shop::new(&of_orders(rule)).await;
    let mut client = shop.client(Version::HTTP_2).await;
    for user in 0..50 {
        get(&mut client, "/", &[("x-user", &user.to_string())]).await;
        get(&mut client, "/", &[]).await;
    }
    assert_eq!(shop.counts(), [0, 0, 100]);
}

/// What becomes of 60 users, each asked for twice over different connections.
async fn of_users(shop: &Shop, fields: impl Fn(&str) -> (&'static str, String)) -> Vec<String> {
    let mut clients = [shop.client(Version::HTTP_11).await, shop.client(Version::HTTP_2).await];
    let mut clusters = Vec::new();
    for user in 0..60 {
        let (name, value) = fields(&format!("user-{user}"));
        let [first, second] = &mut clients;
        let cluster = get(first, "/", &[(name, &value)]).await;
        assert_eq!(get(second, "/other", &[(name, &value)]).await, cluster, "{user}");
        clusters.push(cluster);
    }
    clusters
}

#[tokio::test]
async fn a_sticky_split_keeps_a_user_and_a_growing_canary_takes_nobody_back() {
    let rule = |canary: u32, sticky: &str| {
        let stable = 100 - canary;
        of_orders(&format!(
            "{{clusters: [{{name: v1, weight: {stable}}}, {{name: v2, weight: {canary}}}], sticky: {{{sticky}}}}}"
        ))
    };
    let mut shop = Shop::new(&rule(20, "header: x-user")).await;
    let by_header = |user: &str| ("x-user", user.to_owned());
    let few = of_users(&shop, by_header).await;
    shop.reload(&rule(60, "header: x-user")).await;
    let many = of_users(&shop, by_header).await;
    let count = |clusters: &[String]| clusters.iter().filter(|cluster| *cluster == "v2").count();
    assert!(count(&few) > 0 && count(&few) < count(&many) && count(&many) < 60, "{few:?} {many:?}");
    let is_kept = |(few, many): (&String, &String)| few == "v1" || many == "v2";
    assert!(few.iter().zip(&many).all(is_kept), "{few:?} {many:?}");
    shop.reload(&rule(60, "cookie: user")).await;
    let by_cookie = of_users(&shop, |user| ("cookie", format!("a=b; user={user}"))).await;
    assert_eq!(by_cookie, many, "the value counts, and not where it stands");
}

#[tokio::test]
async fn a_user_is_where_another_sidecar_has_them_too() {
    let rule = "{clusters: [{name: v1}, {name: v2}], sticky: {header: x-user}}";
    let (one, other) = (Shop::new(&of_orders(rule)).await, Shop::new(&of_orders(rule)).await);
    let by_header = |user: &str| ("x-user", user.to_owned());
    assert_eq!(of_users(&one, by_header).await, of_users(&other, by_header).await);
}
