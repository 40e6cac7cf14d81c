//! OpenSSL's own client and server as standard peers: who they must be, and which TLS we speak.

use super::{
    apps, claim,
    mesh::{Mesh, Plan},
    programs::Call,
};
use crate::processes::{
    authority::{Authority, write},
    process::Process,
    until,
};

const STANDARD: Plan =
    Plan { cluster: "peer: standard, ", inbound: "peer: standard, ", limits: "", traces: "" };

/// Makes a certificate of `service` and returns the options that show it.
fn shown(mesh: &Mesh, authority: &Authority, service: &str) -> String {
    let folder = mesh.folder.path().join(format!("openssl-{service}"));
    authority.certify(service, &folder);
    write(&folder, "bundle.pem", &mesh.authority.bundle());
    let path = folder.display();
    format!(
        "-cert {path}/svid.pem -key {path}/svid_key.pem -cert_chain {path}/svid.pem -CAfile {path}/bundle.pem"
    )
}

/// Sends a request over `s_client` with these options; everything it says.
async fn ask(mesh: &Mesh, options: &str) -> String {
    let request = "GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n";
    let (address, pause) = (mesh.callee.host.inbound(), "sleep 1");
    let line = format!(
        "(printf '{request}'; {pause}) | OPENSSL_CONF=/dev/null openssl s_client -connect {address} -ign_eof {options} 2>&1"
    );
    let output = Call::new("sh", ["-c", &line]).run().await;
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn s_client_is_answered_with_each_cipher_and_group_that_we_speak_and_with_no_other() {
    claim(&["openssl", "sh", "node"], async || {
        let mesh = Mesh::start(STANDARD).await;
        let _app = apps::node(&mesh, "http").await;
        let shown = shown(&mesh, &mesh.authority, "web");
        for option in [
            "-ciphersuites TLS_AES_128_GCM_SHA256",
            "-ciphersuites TLS_AES_256_GCM_SHA384",
            "-ciphersuites TLS_CHACHA20_POLY1305_SHA256",
            "-groups X25519",
            "-groups P-256",
            "-alpn http/1.1",
        ] {
            let said = ask(&mesh, &format!("{shown} {option}")).await;
            assert!(said.contains("hello") && said.contains("TLSv1.3"), "{option}: {said}");
            let value = option.split(' ').nth(1).expect("a value");
            assert!(option.contains("groups") || said.contains(value), "{option}: {said}");
        }
        for option in
            ["-tls1_2", "-groups P-384", "-groups X448", "-ciphersuites TLS_AES_128_CCM_SHA256", "-alpn h3"]
        {
            let said = ask(&mesh, &format!("{shown} {option}")).await;
            assert!(!said.contains("hello") && said.contains("alert"), "{option}: {said}");
        }
    });
}

#[test]
fn s_client_without_our_certificate_gets_nothing() {
    claim(&["openssl", "sh", "node"], async || {
        let mesh = Mesh::start(STANDARD).await;
        let _app = apps::node(&mesh, "http").await;
        let said = ask(&mesh, "").await;
        assert!(said.contains("alert certificate required") && !said.contains("hello"), "{said}");
        let stranger = Authority::new(&mesh.folder.path().join("strangers"));
        let said = ask(&mesh, &shown(&mesh, &stranger, "web")).await;
        assert!(said.contains("alert") && !said.contains("hello"), "{said}");
        let listeners = mesh.callee.ask("/listeners").await;
        let refused = &listeners["listeners"][0]["refused"];
        assert_eq!(
            (&refused["no_certificate"], &refused["bad_certificate"]),
            (&1.into(), &1.into()),
            "{refused}"
        );
    });
}

/// `s_server` that reverses each line, in the place of the callee's sidecar for bytes.
async fn reversing(mesh: &Mesh, options: &str) -> Process {
    let address = mesh.callee.host.at(4344);
    let line = format!(
        "OPENSSL_CONF=/dev/null exec openssl s_server -accept {address} -rev -Verify 3 -verify_return_error {options}"
    );
    let server = apps::start(mesh, address, "sh", vec!["-c".to_owned(), line]).await;
    until("it is ready", async || server.log().contains("ACCEPT")).await;
    server
}

#[test]
fn s_server_gets_bytes_if_it_is_who_it_must_be() {
    claim(&["openssl", "sh", "nc"], async || {
        let mut mesh = Mesh::start(STANDARD).await;
        mesh.callee.stop().await;
        let address = mesh.tcp_outbound();
        let line = format!("(echo 'first line'; sleep 0.5) | nc -w 5 {} {}", address.ip(), address.port());
        for (service, expected) in [("orders", "enil tsrif\n"), ("thief", "")] {
            let server = reversing(&mesh, &shown(&mesh, &mesh.authority, service)).await;
            let output = Call::new("sh", ["-c", &line]).run().await;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said, expected, "{service}: {}", server.log());
            apps::stop(server).await;
        }
    });
}
