//! `outrider route explain` and `outrider check`: what they say is what happens.

use std::{fs, path::PathBuf};

use http::{Method, Version};
use tokio::process::Command;

use super::{Shop, ask, of_orders, yaml};
use crate::{harness::TestMesh, processes::process::program};

/// What the command says of a request by that configuration, and how it ends.
async fn explained(config: &PathBuf, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program("outrider"));
    command.args(["route", "explain", "--config"]).arg(config).args(arguments);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

const RULES: &str = "\
    {name: canary, matches: [{path_prefix: /cart, headers: [{name: x-team, value: red}]}], \
     clusters: [{name: v1, weight: 3}, {name: v2}], sticky: {cookie: user}, request_timeout: 7s}, \
    {name: gone, matches: [{path: /gone}], redirect: {host: new.example}}, \
    {matches: [{path_prefix: /cart, query: [{name: v, value: '2'}]}], clusters: [{name: v2}], retry: {max_retries: 5}, \
     rewrite: {host: carts.internal, path_prefix: /v2}, request_headers: {set: [{name: x-key, value: sesame}], remove: [x-debug]}, \
     response_headers: {add: [{name: vary, value: x-team}]}}";

/// A shop with [`RULES`], and its configuration as a file.
async fn shop() -> (Shop, PathBuf) {
    let routes = of_orders(RULES);
    let shop = Shop::new(&routes).await;
    let file = shop.mesh.dir().join("web.yaml");
    fs::write(&file, TestMesh::config("web", &yaml(&shop.callees, "", &routes))).unwrap();
    (shop, file)
}

#[tokio::test]
async fn it_names_the_rule_its_clusters_and_why_the_others_do_not_fit() {
    let (_shop, file) = shop().await;
    let asked = ["GET", "http://ORDERS:80/x/../cart/1?v=2", "-H", "x-team: red", "-H", "cookie: user=anna"];
    let (code, text) = explained(&file, &asked).await;
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "rule      shop/canary: path_prefix /cart, field x-team: red",
        "sticky    by the cookie user, always to v",
        "to        v1 (75.0 %)",
        "to        v2 (25.0 %)",
        "timeout 7s, 2 retries",
        "shop/gone: path /gone: its path is another",
        "shop/2: path_prefix /cart, query v=2: fits, but is less specific",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let (code, text) = explained(&file, &["GET", "http://orders/gone"]).await;
    assert!(code == Some(0) && text.contains("redirect  302 to http://new.example/gone"), "{text}");
    let (code, text) = explained(&file, &["GET", "http://orders/cart/%31?v=2"]).await;
    for line in [
        "timeout none, 5 retries",
        "rewritten: host carts.internal, target /v2/1?v=2",
        "fields of the request: x-key set, x-debug removed",
        "fields of the answer: vary added",
    ] {
        assert!(code == Some(0) && text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("sesame"), "{text}");
    let (code, text) = explained(&file, &["GET", "http://orders/other"]).await;
    assert!(code == Some(1) && text.contains("none: 404, no_rule"), "{text}");
    let (code, text) = explained(&file, &["GET", "http://nobody/"]).await;
    assert!(code == Some(1) && text.contains("404, no_route"), "{text}");
    let (code, text) = explained(&file, &["GET", "http://v1/"]).await;
    assert!(code == Some(0) && text.contains("to        v1, the whole service"), "{text}");
    for (arguments, complaint) in [
        (&["GET", "http://orders/", "-H", "x"][..], "no colon in the field"),
        (&["GET", "http://orders/", "--listener", "in"], "no outbound listener \"in\""),
        (&["G T", "http://orders/"], "that is not a method"),
    ] {
        let (code, text) = explained(&file, arguments).await;
        assert!(code == Some(1) && text.contains(complaint), "{text}");
    }
}

#[tokio::test]
async fn the_address_that_was_dialled_comes_before_the_host() {
    let mesh = TestMesh::new();
    let file = mesh.dir().join("web.yaml");
    let sections = "intercept: {outbound: {unknown: deny}}\n\
        clusters:\n\
        - {name: orders, addresses: ['10.96.0.10:80'], spiffe_ids: ['spiffe://test.outrider/orders'], endpoints: [{address: '10.0.0.7:4343'}]}\n\
        - {name: v2, spiffe_ids: ['spiffe://test.outrider/v2'], endpoints: [{address: '10.0.0.9:4343'}]}\n\
        routes: [{name: shop, services: [orders], rules: [{clusters: [{name: v2}]}]}]";
    fs::write(&file, TestMesh::config("web", sections)).unwrap();
    for (host, to, code, line) in [
        ("v2", "10.96.0.10:80", 0, "rule      shop/0: everything\n  to        v2 (100.0 %)"),
        ("v2", "10.0.0.7:4343", 0, "to        orders, the endpoint 10.0.0.7:4343 that was dialled"),
        ("orders", "192.0.2.1:80", 0, "rule      shop/0: everything"),
        ("nobody.example", "192.0.2.1:80", 1, "404, no_route"),
    ] {
        let (found, text) = explained(&file, &["GET", &format!("http://{host}/a"), "--to", to]).await;
        assert!(found == Some(code) && text.contains(line), "{host} at {to}: {found:?}\n{text}");
    }
}

#[tokio::test]
async fn whom_it_says_a_user_is_kept_with_is_who_answers_them() {
    let (shop, file) = shop().await;
    let mut client = shop.client(Version::HTTP_11).await;
    for user in ["anna", "ben", "carla", "dora", "emil", "franz"] {
        let cookie = format!("user={user}");
        let fields = [("x-team", "red"), ("cookie", cookie.as_str())];
        let (_, service, _) = ask(&mut client, Method::GET, "/cart", &fields).await;
        let cookie = format!("cookie: {cookie}");
        let asked = ["GET", "http://orders/cart", "-H", "x-team: red", "-H", &cookie];
        let (_, text) = explained(&file, &asked).await;
        assert!(text.contains(&format!("always to {service}\n")), "{user}: {service}\n{text}");
    }
}

#[tokio::test]
async fn check_sums_routes_up() {
    let (_shop, file) = shop().await;
    let mut command = Command::new(program("outrider"));
    command.args(["check", "--config"]).arg(&file);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = "routes: 1\n  shop of service orders: 3 rule(s) with 3 match(es), to v1, v2\n";
    assert!(text.contains(line) && !text.contains("outrider/redirect"), "{text}");
}
