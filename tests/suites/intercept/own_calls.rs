//! Calls of a pod to itself, and to its own sidecar.

use super::pods::{Pods, State, address, pod, v6};

#[test]
fn a_pod_reaches_itself_by_loopback_by_its_address_and_by_its_service() {
    let Some(pods) = Pods::start(&[pod("users")]) else { return };
    let _server = pods.service("users", 80);
    for host in [Some("127.0.0.1".to_owned()), Some(address(0)), v6(&address(0))].into_iter().flatten() {
        let said = pods.curl("users", &format!("http://{host}/"));
        assert!(said.contains(r#""caller":null"#), "{host} is the pod's own business: {said}");
    }
    for _ in 0..10 {
        let said = pods.curl("users", "http://users/");
        assert!(said.contains("URI=spiffe://pods.outrider/users"), "as any endpoint: {said}");
    }
    // No call went round: a loop would have taken every socket there is.
    let established =
        pods.sockets("users").iter().filter(|socket| socket.state == State::Established).count();
    assert!(established < 20, "{established}");
}

#[test]
fn the_sidecars_own_ports_are_nobodys_destination() {
    let Some(pods) = Pods::start(&[pod("web"), pod("users"), pod("stranger").bare()]) else { return };
    let _server = pods.service("users", 80);
    let own = [Some("127.0.0.1".to_owned()), Some(address(0)), v6(&address(0))];
    let other = [Some(address(1)), v6(&address(1))];
    for port in [4340, 4343] {
        for host in own.iter().chain(&other).flatten() {
            pods.curl_fails("web", &format!("http://{host}:{port}/"));
        }
        for host in other.iter().flatten() {
            pods.curl_fails("stranger", &format!("http://{host}:{port}/"));
            pods.curl_fails("stranger", &format!("-k https://{host}:{port}/"));
        }
    }
    assert!(pods.curl("web", "http://users/").contains("URI=spiffe://pods.outrider/web"));
    let established = pods.sockets("web").iter().filter(|socket| socket.state == State::Established).count();
    assert!(established < 20, "{established}");
}
