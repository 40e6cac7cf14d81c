//! Destinations that no cluster has.

use super::pods::{Pods, address, pod, v6};

#[test]
fn unknown_destinations_pass_through_as_they_are_and_are_counted() {
    let Some(pods) = Pods::start(&[pod("web"), pod("outside").bare()]) else { return };
    let _servers = [pods.service("outside", 8000), pods.greeter("outside", 25)];
    let capture = pods.capture("marker-in-words");
    for host in [Some(address(1)), v6(&address(1))].into_iter().flatten() {
        let said = pods.curl("web", &format!("-H x-forwarded-for:me http://{host}:8000/marker-in-words"));
        assert!(said.contains(r#""service":"outside""#) && said.contains(r#""caller":null"#), "{said}");
    }
    let said = pods.text("web", ["bash", "-c", "read -r line </dev/tcp/outside.pod/25; echo $line"]);
    assert_eq!(said, "220 outside\r\n");
    let passed = capture.end();
    assert!(passed.iter().any(|passed| passed.found == 1 && passed.kind == "plain"), "{passed:?}");
    let seen = pods.metric("web", "outrider_unencrypted_connections_total", &[r#"cluster="passthrough""#]);
    assert!(seen >= 3.0, "{seen}");
}

#[test]
fn unknown_destinations_are_refused_where_the_configuration_says_so() {
    let web = pod("web").intercept("outbound: { unknown: deny }");
    let Some(pods) = Pods::start(&[web, pod("users"), pod("outside").bare()]) else { return };
    let _servers = [pods.service("users", 80), pods.service("outside", 8000), pods.greeter("outside", 25)];
    let capture = pods.capture("");
    for host in [Some(address(2)), v6(&address(2))].into_iter().flatten() {
        pods.curl_fails("web", &format!("http://{host}:8000/"));
        pods.curl_fails("web", &format!("-k https://{host}:8000/"));
    }
    let said = pods.exec("web", ["bash", "-c", "exec 3<>/dev/tcp/outside.pod/25; echo hello >&3; cat <&3"]);
    assert!(!said.status.success() && said.stdout.is_empty(), "{said:?}");
    // Whoever waits for the server to speak first is not kept waiting for nobody.
    let said = pods.exec("web", ["timeout", "10", "bash", "-c", "exec 3<>/dev/tcp/outside.pod/25; cat <&3"]);
    assert_eq!((said.status.code(), said.stdout.is_empty()), (Some(1), true), "{said:?}");
    let passed = capture.end();
    assert!(!passed.iter().any(|passed| passed.is_of(2)), "{passed:?}");
    assert!(pods.curl("web", "http://users/").contains("spiffe://pods.outrider/web"), "the rest goes on");
}
