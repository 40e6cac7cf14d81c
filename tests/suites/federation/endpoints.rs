//! Endpoints that are believed as on the web, roots that rotate through one, and what else holds a bundle together.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use outrider_certs::TrustBundle;
use rustls::{ServerConfig, version::TLS13};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::server::TlsStream;

use super::{Domain, OURS, THEIRS, by_file, by_spiffe, callee, caller, cuts, refreshes, setting, status};
use crate::{
    harness::{
        Client, HttpApp, Sidecar, body,
        ca::{TestCa, TestLeaf},
        client::read_head,
        eventually,
        peer::TlsPeer,
        soon,
    },
    processes::process::program,
};

/// What a publisher hints at: the least that is heeded.
const HINT: Duration = Duration::from_secs(5);

/// A server on the web that publishes what the test says.
struct Publisher {
    peer: TlsPeer,
    bundle: Arc<Mutex<TrustBundle>>,
}

impl Publisher {
    async fn start(leaf: &TestLeaf, bundle: TrustBundle) -> Self {
        let mut config = ServerConfig::builder_with_provider(outrider_certs::rustls_verify::provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let bundle = Arc::new(Mutex::new(bundle));
        let published = Arc::clone(&bundle);
        let serve = move |mut stream: TlsStream<TcpStream>| {
            let published = Arc::clone(&published);
            async move {
                let (head, _is_whole) = read_head(&mut stream).await;
                assert!(head.starts_with("GET /of/partner?x=1 HTTP/1.1\r\n"), "{head}");
                let text = published.lock().unwrap().to_jwks();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        };
        Self { peer: TlsPeer::start(config, serve).await, bundle }
    }

    /// The section of whoever believes it by the roots in that file.
    fn section(&self, roots: &str) -> String {
        format!(
            "federation: [{{trust_domain: {THEIRS}, endpoint: 'https://{}/of/partner?x=1', profile: https_web, \
             roots: {roots}}}]\n",
            self.peer.address()
        )
    }

    fn publish(&self, bundle: TrustBundle) {
        *self.bundle.lock().unwrap() = bundle;
    }
}

/// The domain's roots, as its publisher numbers them.
fn bundle(domains: &[&Domain], sequence: u64) -> TrustBundle {
    let roots = domains.iter().map(|domain| domain.ca.root().clone()).collect();
    TrustBundle::new(domains[0].ca.trust_domain().clone(), roots, sequence, Some(HINT)).unwrap()
}

/// Roots of that domain in the newest snapshot.
fn roots(sidecar: &Sidecar, domain: &Domain) -> Option<usize> {
    let identity = sidecar.app().snapshots.load().identity.clone()?;
    Some(identity.bundles.get(domain.ca.trust_domain())?.roots().len())
}

fn failures(sidecar: &Sidecar, domain: &Domain) -> u64 {
    let status = sidecar.app().identity.federation.of(domain.ca.trust_domain());
    status.refreshes.failures.load(Ordering::Relaxed)
}

#[tokio::test]
async fn roots_rotate_through_an_endpoint_of_the_web_and_only_what_stood_on_the_old_one_is_cut() {
    let (folder, ours, theirs) = setting();
    let (dir, web) = (folder.path(), TestCa::new());
    fs::write(dir.join("web.pem"), web.bundle().to_pem()).unwrap();
    let elsewhere = dir.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    // The partner's next root.
    let next = Domain::new(&elsewhere, THEIRS);
    fs::copy(dir.join("shop.mesh.pem"), elsewhere.join("shop.mesh.pem")).unwrap();
    let publisher = Publisher::start(&web.web_leaf("127.0.0.1"), bundle(&[&theirs], 1)).await;
    let app = HttpApp::echo().await;
    let allow = format!(", allow: ['{}', '{}', '{}']", theirs.id("old"), theirs.id("new"), ours.id("web"));
    let yaml = publisher.section("web.pem") + &callee(&app, &allow);
    let orders = ours.start(dir, "orders", &yaml).await;
    eventually("the first root", || roots(&orders, &theirs) == Some(1)).await;
    let calls = by_file(OURS, "shop.mesh.pem") + &caller(&orders, &ours.id("orders"));
    let old = theirs.start(dir, "old", &calls).await;
    let new = next.start(&elsewhere, "new", &calls).await;
    assert_eq!(status(&old).await, StatusCode::OK);
    assert_ne!(status(&new).await, StatusCode::OK);

    publisher.publish(bundle(&[&theirs, &next], 2));
    eventually("both roots", || roots(&orders, &theirs) == Some(2)).await;
    assert_eq!([status(&old).await, status(&new).await], [StatusCode::OK; 2]);
    assert_eq!(cuts(&orders), 0, "a root that came cuts nothing");

    // An answer that lasts stands on the next root while the first goes.
    let mut client = Client::http1(new.address_of("out")).await;
    let (sender, endless) = body::channel();
    let long = client.send(crate::harness::client::request(http::Method::POST, "/", endless));
    let mut long = soon("a head", long).await.unwrap().into_body();
    publisher.publish(bundle(&[&next], 3));
    eventually("the first root is gone", || roots(&orders, &theirs) == Some(1)).await;
    eventually("what stood on it is cut", || cuts(&orders) == 1).await;
    assert_ne!(status(&old).await, StatusCode::OK);
    assert_eq!(status(&new).await, StatusCode::OK);
    sender.send(Ok(hyper::body::Frame::data("on".into()))).await.unwrap();
    let heard = soon("the echo", http_body_util::BodyExt::frame(&mut long)).await.unwrap().unwrap();
    assert_eq!((heard.into_data().unwrap(), cuts(&orders)), ("on".into(), 1));
    assert_eq!(failures(&orders, &theirs), 0);
}

#[tokio::test]
async fn an_endpoint_of_the_web_is_believed_by_its_name_and_the_roots_given_for_it() {
    let (folder, ours, theirs) = setting();
    let (dir, web) = (folder.path(), TestCa::new());
    fs::write(dir.join("web.pem"), web.bundle().to_pem()).unwrap();
    let app = HttpApp::named("orders").await;
    for (leaf, roots_of) in [
        // Another name, roots that are not given for it, and the mesh's own word, which is none on the web.
        (web.web_leaf("127.0.0.2"), "web.pem"),
        (TestCa::new().web_leaf("127.0.0.1"), "web.pem"),
        (web.web_leaf("127.0.0.1"), "shop.mesh.pem"),
    ] {
        let publisher = Publisher::start(&leaf, bundle(&[&theirs], 1)).await;
        let yaml = publisher.section(roots_of) + &callee(&app, "");
        let orders = ours.start(dir, "orders", &yaml).await;
        eventually("it has failed", || failures(&orders, &theirs) > 0).await;
        let status = orders.app().identity.federation.of(theirs.ca.trust_domain());
        let told = status.refreshes.last().error.unwrap();
        assert!(told.contains("its server is not trusted"), "{told}");
        assert_eq!(roots(&orders, &theirs), None);
    }
}

/// `identity` of a service that gets its certificate from its CA.
fn by_ca(folder: &Path, domain: &Domain, service: &str, address: std::net::SocketAddr, yaml: &str) -> String {
    let token =
        domain.ca.new_token(&domain.id(service), Duration::from_secs(600), SystemTime::now()).unwrap();
    let file = format!("{}.{service}", domain.name);
    fs::write(folder.join(format!("{file}.token")), &*token.to_string()).unwrap();
    format!(
        "service: {service}\ntrust_domain: {}\nstate_dir: {file}.state\n\
         identity: {{ca: {{address: '{address}', join_token_file: {file}.token}}}}\n\
         admin: {{socket: {file}.sock, listen: none}}\n{yaml}\n",
        domain.name
    )
}

#[tokio::test]
async fn two_domains_whose_identities_come_from_their_cas_call_each_other_and_nobody_else() {
    let (folder, ours, theirs) = setting();
    let (dir, app) = (folder.path(), HttpApp::named("orders").await);
    let (our_ca, their_ca) = (ours.serve(dir).await, theirs.serve(dir).await);
    let allow = format!(", allow: ['{}']", theirs.id("web"));
    let yaml = by_spiffe(THEIRS, &their_ca) + &callee(&app, &allow);
    let orders = Sidecar::start(&by_ca(dir, &ours, "orders", our_ca.address, &yaml), dir).await;
    let calls = by_spiffe(OURS, &our_ca) + &caller(&orders, &ours.id("orders"));
    let web = Sidecar::start(&by_ca(dir, &theirs, "web", their_ca.address, &calls), dir).await;
    let other = Sidecar::start(&by_ca(dir, &theirs, "other", their_ca.address, &calls), dir).await;
    eventually("both endpoints have answered", || {
        refreshes(&orders, THEIRS) > 0 && refreshes(&web, OURS) > 0
    })
    .await;
    assert_eq!(status(&web).await, StatusCode::OK);
    assert_ne!(status(&other).await, StatusCode::OK);
    assert_eq!((roots(&orders, &ours), roots(&orders, &theirs), app.count()), (Some(1), Some(1), 1));
}

#[test]
fn check_lists_the_domains_and_names_files_that_are_not_there() {
    let (folder, ours, _theirs) = setting();
    let dir = folder.path();
    fs::write(dir.join("web.pem"), "").unwrap();
    let listed = "federation:\n\
        - {trust_domain: a.mesh, bundle_file: a.pem}\n\
        - {trust_domain: b.mesh, endpoint: 'https://b/', profile: https_web, roots: b-roots.pem, bundle_file: web.pem}\n\
        - {trust_domain: partner.mesh, bundle_file: partner.mesh.pem}\n\
        outbound: [{listen: '127.0.0.1:0'}]\n";
    let file = dir.join("outrider.yaml");
    fs::write(&file, ours.config(dir, "orders", listed)).unwrap();
    let output = Command::new(program("outrider")).args(["check", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for part in ["federated trust domains: 3", "b.mesh from https://b/ (https_web)", "not there yet: 2"] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    let missing: Vec<&str> = said.split("not there yet").nth(1).unwrap().lines().skip(1).collect();
    assert!(missing[0].ends_with("/a.pem") && missing[1].ends_with("/b-roots.pem"), "{said}");
}
