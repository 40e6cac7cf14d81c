//! Where calls go that are addressed to a pod, to a service, or to nobody whom the mesh knows.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{DATA, Scene, hosts, in_url};

/// Place of the pod that has no sidecar, and of the first of the two of one service, in the plan.
const STRANGER: usize = 1;
const PAIR: usize = 2;

fn ask(scene: &Scene, command: &[&str]) -> Value {
    let said = scene.text(&[&["curl", "-sS", "--max-time", "20"], command].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{command:?}: {error}: {said}"))
}

/// Addresses of the pod without a sidecar.
fn strangers() -> Vec<String> {
    hosts(STRANGER)
        .into_iter()
        .filter(|host| host.starts_with("10.43.") || host.starts_with("fd43:"))
        .collect()
}

#[test]
fn a_pods_address_stays_at_that_pod_and_a_services_spreads_and_each_port_is_its_own() {
    let Some(scene) = Scene::set(&["curl", "python3"]) else { return };
    let pairs = ["pair-1", "pair-2"];
    let _http = pairs.map(|pod| scene.app_in(pod, "http", 80));
    let _late = scene.app_in("pair-1", "late", 8080);
    let pods = |url: &str| -> BTreeSet<String> {
        let urls = vec![url; 20];
        let command = ["curl", "-sS", "--no-keepalive", "--max-time", "20"].into_iter().chain(urls);
        let said = scene.text(&command.collect::<Vec<_>>());
        let answers: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(answers.len(), 20, "{url}");
        answers.into_iter().map(|answer| answer["pod"].as_str().expect("a name").to_owned()).collect()
    };
    scene.finds(&["http1 client", "opaque server"], || {
        for (place, pod) in (PAIR..).zip(pairs) {
            let own = hosts(place)
                .into_iter()
                .filter(|host| host.starts_with("10.43.") || host.starts_with("fd43:"));
            for host in own.map(|host| in_url(&host)).chain([format!("{pod}.pod")]) {
                assert_eq!(pods(&format!("http://{host}/")), BTreeSet::from([pod.to_owned()]), "{host}");
            }
        }
        for host in hosts(PAIR) {
            if host.starts_with("10.96.") || host.starts_with("fd96:") {
                assert_eq!(pods(&format!("http://{}/", in_url(&host))).len(), 2, "{host}");
            } else {
                // The other port of the same address has another server, which speaks first.
                scene.client("late", &host, 8080);
            }
        }
    });
}

#[test]
fn what_is_unknown_is_passed_on_as_it_is_unless_it_names_whom_we_know() {
    let Some(scene) = Scene::set(&["curl", "nghttpd", "python3"]) else { return };
    let (_known, known_port) = scene.app("http");
    let _unknown = scene.app_in("stranger", "http", 8000);
    let _http2 = scene.server_in("stranger", 8002, "nghttpd --no-tls -a * -d /run/app 8002".split(' '));
    scene.finds(&["http1 client", "http2 client"], || {
        for host in strangers().iter().map(|host| in_url(host)) {
            let url = format!("http://{host}:8000/x");
            let said = ask(&scene, &[&url]);
            assert_eq!(said["pod"], "stranger");
            let fields = said["fields"].as_object().expect("fields").keys().collect::<Vec<_>>();
            assert_eq!(fields, ["host", "user-agent", "accept"], "untouched");

            let said = ask(&scene, &["-H", &format!("Host: {DATA}:{known_port}"), &url]);
            assert_eq!(said["pod"], DATA, "{said}");
            let expected = format!("URI=spiffe://pods.outrider/{}", scene.caller);
            let proof = said["fields"]["x-forwarded-client-cert"].as_str().expect("a proof");
            assert!(proof.contains(&expected), "{proof}");

            let url = format!("http://{host}:8002/client.py");
            let told = ["curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "-o", "/dev/null"];
            let told = scene.text(&[&told[..], &["-w", "%{http_code} %{http_version}", &url]].concat());
            assert_eq!(told, "200 2", "{host}");
        }
    });
}

#[test]
fn a_proxy_that_nobody_knows_is_still_the_apps_proxy_but_for_whom_we_know() {
    let Some(scene) = Scene::set(&["curl", "python3"]) else { return };
    let (_known, known_port) = scene.app("http");
    let _proxy = scene.app_in("stranger", "proxy", 3128);
    // Whoever asks for a tunnel is served as bytes.
    scene.finds(&["http1 client", "opaque client"], || {
        for host in strangers() {
            let proxy = format!("http://{}:3128", in_url(&host));
            let said = ask(&scene, &["--proxy", &proxy, "http://example.test/x?y"]);
            assert_eq!(said["proxied"], "http://example.test/x?y");
            assert_eq!(said["fields"]["host"], "example.test");
            assert_eq!(said["fields"]["x-request-id"], json!(null), "untouched");

            let said = ask(&scene, &["--proxy", &proxy, &format!("http://{DATA}:{known_port}/x?y")]);
            assert_eq!((&said["pod"], &said["target"]), (&DATA.into(), &"/x?y".into()), "{said}");
            scene.client("tunnel", &host, 3128);
        }
    });
}
