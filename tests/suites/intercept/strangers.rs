//! Who has no sidecar and no certificate gets nothing.

use super::pods::{Pods, address, pod, v6};

/// A port for TLS clients that are not Outrider.
const STANDARD: &str = "inbound: { ports: [{ port: 8080, peer: standard }] }";

#[test]
fn a_stranger_is_refused_in_plaintext_at_every_port() {
    let Some(pods) = Pods::start(&[pod("users").ports(&[80, 25]), pod("stranger").bare()]) else { return };
    let _servers = [pods.service("users", 80), pods.greeter("users", 25)];
    for host in [Some(address(0)), v6(&address(0))].into_iter().flatten() {
        pods.curl_fails("stranger", &format!("http://{host}/"));
        pods.curl_fails("stranger", &format!("--http2-prior-knowledge http://{host}/"));
        // One where nothing listens.
        pods.curl_fails("stranger", &format!("http://{host}:8000/"));
    }
    // The server would speak first; nothing of it comes.
    let talk =
        "exec 3<>/dev/tcp/users.pod/25; echo hello >&3; timeout 20 head -c 100 <&3 | tr -cd '[:alnum:]'";
    let said = pods.text("stranger", ["bash", "-c", talk]);
    assert!(!said.contains("220") && !said.contains("hello"), "{said:?}");
}

#[test]
fn a_certificate_counts_only_by_the_right_ca() {
    let plans = [pod("users").ports(&[8080]).intercept(STANDARD), pod("stranger").bare()];
    let Some(pods) = Pods::start(&plans) else { return };
    let _server = pods.service("users", 8080);
    pods.certify("stranger", "web", "foreign", true);
    pods.certify("stranger", "web", "good", false);
    let call = |name: &str| {
        format!("-k --cert {name}/svid.pem --key {name}/svid_key.pem https://{}:8080/", address(0))
    };
    pods.curl_fails("stranger", &call("foreign"));
    pods.curl_fails("stranger", &format!("-k https://{}:8080/", address(0)));
    let said = pods.curl("stranger", &call("good"));
    assert!(said.contains("URI=spiffe://pods.outrider/web"), "the refusals prove nothing: {said}");
}
