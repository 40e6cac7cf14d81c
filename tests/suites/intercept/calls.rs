//! Calls of apps that know nothing of the mesh arrive, by mutual TLS, whatever they were addressed by.

use super::pods::{Passed, Pods, address, pod, service_address, v6};

/// What `service` reports of a caller whose sidecar proved to be `web`.
const FROM_WEB: &str = "URI=spiffe://pods.outrider/web";

#[test]
fn calls_by_name_service_address_and_pod_address_arrive_by_mutual_tls_over_ipv4_and_ipv6() {
    let Some(pods) = Pods::start(&[pod("web"), pod("users-1"), pod("users-2")]) else { return };
    let _servers = [pods.service("users-1", 80), pods.service("users-2", 80)];
    let names = ["users", "users.default.svc", "users.default.svc.cluster.local"].map(str::to_owned);
    let (one, service) = (address(2), service_address(1));
    let numbers = [Some(service.clone()), v6(&service)].into_iter().flatten();
    for host in names.into_iter().chain(numbers) {
        let said = pods.curl("web", &format!("http://{host}/"));
        assert!(said.contains(FROM_WEB) && said.contains(r#""service":"users-"#), "{host}: {said}");
    }
    let numbers = [Some(one.clone()), v6(&one)].into_iter().flatten();
    for host in ["users-2.pod".to_owned()].into_iter().chain(numbers) {
        // Often enough that balancing would have gone elsewhere.
        for _ in 0..4 {
            let said = pods.curl("web", &format!("http://{host}/"));
            assert!(said.contains(FROM_WEB) && said.contains(r#""service":"users-2""#), "{host}: {said}");
        }
    }
}

#[test]
fn the_wire_between_pods_carries_tls_and_nothing_else() {
    let plans = [pod("web"), pod("users").ports(&[80, 25]), pod("alice").bare(), pod("bob").bare()];
    let Some(pods) = Pods::start(&plans) else { return };
    let _servers = [pods.service("users", 80), pods.greeter("users", 25), pods.service("bob", 80)];
    let capture = pods.capture("marker-in-words");
    pods.curl("web", "http://users/marker-in-words");
    pods.curl("web", "http://users.pod/ --data marker-in-words");
    let talk =
        "exec 3<>/dev/tcp/users/25; read -r line <&3; echo marker-in-words >&3; read -r line <&3; echo $line";
    assert_eq!(pods.text("web", ["bash", "-c", talk]), "marker-in-words\n");
    // Without sidecars it is there to be seen: the wiretap works.
    pods.curl("alice", "http://bob.pod/marker-in-words");

    let (mesh, strangers): (Vec<Passed>, Vec<Passed>) =
        capture.end().into_iter().partition(|passed| passed.is_of(0) || passed.is_of(1));
    assert!(strangers.iter().any(|passed| passed.kind == "plain" && passed.found > 0), "{strangers:?}");
    assert!(mesh.len() >= 4, "{mesh:?}");
    assert!(mesh.iter().all(|passed| passed.kind == "tls" && passed.found == 0), "{mesh:?}");
}

#[test]
fn a_server_that_speaks_first_reaches_its_client_though_nobody_declared_it() {
    let Some(pods) = Pods::start(&[pod("web"), pod("mail").ports(&[25])]) else { return };
    let _server = pods.greeter("mail", 25);
    for host in
        [Some("mail".to_owned()), Some(address(1)), v6(&address(1)).map(|v6| v6.replace(['[', ']'], ""))]
    {
        let Some(host) = host else { continue };
        let said = pods.text("web", ["bash", "-c", &format!("read -r line </dev/tcp/{host}/25; echo $line")]);
        assert_eq!(said, "220 mail\r\n", "{host}");
    }
}

#[test]
fn rules_that_are_applied_twice_are_the_same_rules() {
    let Some(pods) = Pods::start(&[pod("web"), pod("users")]) else { return };
    let _server = pods.service("users", 80);
    let rules = || pods.as_root("web", ["nft", "--stateless", "list", "ruleset"]);
    let before = rules();
    assert!(before.contains("redirect to :4340"), "{before}");
    pods.as_root("web", ["outrider", "intercept", "apply", "--config", "/run/outrider/outrider.yaml"]);
    assert_eq!(rules(), before);
    assert!(pods.curl("web", "http://users/").contains(FROM_WEB));
}
