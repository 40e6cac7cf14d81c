//! A pod whose sidecar was killed neither speaks nor hears.

use super::pods::{Pods, address, pod, v6};

#[test]
fn a_caller_without_its_sidecar_sends_nothing_and_goes_on_when_it_is_back() {
    let plans = [pod("web"), pod("users"), pod("outside").bare()];
    let Some(pods) = Pods::start(&plans) else { return };
    let _servers = [pods.service("users", 80), pods.service("outside", 8000)];
    assert!(pods.curl("web", "http://users/").contains("spiffe://pods.outrider/web"));

    pods.kill_sidecar("web");
    let capture = pods.capture("");
    for host in [Some(address(1)), v6(&address(1)), Some("users".to_owned())].into_iter().flatten() {
        pods.curl_fails("web", &format!("http://{host}/"));
    }
    pods.curl_fails("web", "http://outside.pod:8000/");
    let passed = capture.end();
    assert!(!passed.iter().any(|passed| passed.is_of(0)), "{passed:?}");

    pods.start_sidecar("web");
    assert!(pods.curl("web", "http://users/").contains("spiffe://pods.outrider/web"));
    assert!(pods.curl("web", "http://outside.pod:8000/").contains(r#""service":"outside""#));
}

#[test]
fn a_callee_without_its_sidecar_hears_nothing() {
    let Some(pods) = Pods::start(&[pod("web"), pod("users"), pod("stranger").bare()]) else { return };
    let _server = pods.service("users", 80);
    pods.kill_sidecar("users");
    let capture = pods.capture("marker-in-words");
    let complaint = pods.curl_fails("web", "http://users/marker-in-words");
    assert!(complaint.contains("503"), "web's own sidecar says so: {complaint}");
    for host in [Some(address(1)), v6(&address(1))].into_iter().flatten() {
        pods.curl_fails("stranger", &format!("http://{host}/"));
    }
    let passed = capture.end();
    assert!(passed.iter().all(|passed| passed.found == 0 && passed.kind == "tls"), "{passed:?}");
    pods.start_sidecar("users");
    assert!(pods.curl("web", "http://users/").contains("spiffe://pods.outrider/web"));
}
