//! More than one trust domain: each has its own bundle, and nobody of another may call but who is named.
//!
//! Two CAs of the product, `shop.mesh` and `partner.mesh`, with their servers as they ship. Roots of both have the same
//! subject, as every root of `outrider-ca` has.

mod endpoints;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use outrider_certs::{
    SpiffeId, TrustDomain, X509Svid,
    ca::{CaState, NewCa, Options, serve},
    clock::SystemWallClock,
    request::KeyPairAndCsr,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::harness::{Client, HttpApp, Sidecar, eventually, soon};

const OURS: &str = "shop.mesh";
const THEIRS: &str = "partner.mesh";

/// A trust domain: its CA's state in `<domain>.ca`.
struct Domain {
    name: &'static str,
    ca: Arc<CaState>,
}

/// A CA's server; it ends with this.
struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Domain {
    fn new(folder: &Path, name: &'static str) -> Self {
        let trust_domain = TrustDomain::parse(name).unwrap();
        let new = NewCa { trust_domain, root_lifetime: Duration::from_secs(3600) };
        let ca = CaState::init(&folder.join(format!("{name}.ca")), &new, SystemTime::now()).unwrap();
        let domain = Self { name, ca: Arc::new(ca) };
        fs::write(folder.join(format!("{name}.pem")), domain.ca.bundle().to_pem()).unwrap();
        domain
    }

    fn id(&self, service: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://{}/{service}", self.name)).unwrap()
    }

    /// Serves its bundle as the product does.
    async fn serve(&self, folder: &Path) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = CaState::open(&folder.join(format!("{}.ca", self.name))).unwrap();
        let serving =
            serve(listener, state, Options::default(), Arc::new(SystemWallClock), Default::default());
        Served { address, task: tokio::spawn(async move { serving.await.unwrap() }) }
    }

    /// The configuration of one of its services, whose certificate is written.
    fn config(&self, folder: &Path, service: &str, yaml: &str) -> String {
        let (id, name) = (self.id(service), self.name);
        let pair = KeyPairAndCsr::generate(&id).unwrap();
        let life = Duration::from_secs(1800);
        let issued = self.ca.issue_by_hand(&id, pair.csr_pem(), life, SystemTime::now()).unwrap();
        let svid = X509Svid::from_parts(issued.chain, pair.key().clone_key()).unwrap();
        let file = format!("{name}.{service}");
        fs::write(folder.join(format!("{file}.crt")), svid.chain_pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), &*svid.key_pem()).unwrap();
        format!(
            "service: {service}\ntrust_domain: {name}\nstate_dir: {file}.state\n\
             identity: {{file: {{certificate: {file}.crt, key: {file}.key, bundle: {name}.pem}}}}\n\
             admin: {{socket: {file}.sock, listen: none}}\n{yaml}\n"
        )
    }

    async fn start(&self, folder: &Path, service: &str, yaml: &str) -> Sidecar {
        Sidecar::start(&self.config(folder, service, yaml), folder).await
    }
}

/// The other domain's bundle from its CA, believed by its SPIFFE ID.
fn by_spiffe(other: &str, ca: &Served) -> String {
    format!(
        "federation: [{{trust_domain: {other}, endpoint: 'https://{}/bundle', profile: https_spiffe, \
         endpoint_spiffe_id: spiffe://{other}/outrider/ca, bundle_file: {other}.pem}}]\n",
        ca.address
    )
}

fn by_file(other: &str, file: &str) -> String {
    format!("federation: [{{trust_domain: {other}, bundle_file: {file}}}]\n")
}

fn callee(app: &HttpApp, allow: &str) -> String {
    format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'{allow}}}]", app.address())
}

fn caller(callee: &Sidecar, expected: &SpiffeId) -> String {
    format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{expected}'], endpoints: [{{address: '{}'}}], retry: {{max_retries: 0}}}}]",
        callee.address_of("in")
    )
}

async fn status(caller: &Sidecar) -> StatusCode {
    let mut client = Client::http1(caller.address_of("out")).await;
    soon("an answer", client.get("/")).await.unwrap().status()
}

/// How often that domain's endpoint was asked with success.
fn refreshes(sidecar: &Sidecar, domain: &str) -> u64 {
    let status = sidecar.app().identity.federation.of(&TrustDomain::parse(domain).unwrap());
    status.refreshes.successes.load(std::sync::atomic::Ordering::Relaxed)
}

fn cuts(sidecar: &Sidecar) -> u64 {
    sidecar.app().identity.trust_cuts.load(std::sync::atomic::Ordering::Relaxed)
}

fn setting() -> (TempDir, Domain, Domain) {
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = (Domain::new(folder.path(), OURS), Domain::new(folder.path(), THEIRS));
    (folder, ours, theirs)
}

#[tokio::test]
async fn two_domains_with_each_others_bundles_call_each_other() {
    let (folder, ours, theirs) = setting();
    let (dir, app) = (folder.path(), HttpApp::named("orders").await);
    let (our_ca, their_ca) = (ours.serve(dir).await, theirs.serve(dir).await);
    let allow = format!(", allow: ['{}']", theirs.id("web"));
    let orders = ours.start(dir, "orders", &(by_spiffe(THEIRS, &their_ca) + &callee(&app, &allow))).await;
    let yaml = by_spiffe(OURS, &our_ca) + &caller(&orders, &ours.id("orders"));
    let web = theirs.start(dir, "web", &yaml).await;
    eventually("both endpoints have answered", || {
        refreshes(&orders, THEIRS) > 0 && refreshes(&web, OURS) > 0
    })
    .await;
    assert_eq!(status(&web).await, StatusCode::OK);
    let kept = |state: &str, domain: &str| dir.join(state).join("federation").join(format!("{domain}.json"));
    assert!(
        kept("shop.mesh.orders.state", THEIRS).is_file() && kept("partner.mesh.web.state", OURS).is_file()
    );
}

#[tokio::test]
async fn nobody_of_another_domain_may_call_unless_named() {
    let (folder, ours, theirs) = setting();
    let (dir, app) = (folder.path(), HttpApp::named("orders").await);
    let orders = ours.start(dir, "orders", &(by_file(THEIRS, "partner.mesh.pem") + &callee(&app, ""))).await;
    let foreign = theirs
        .start(dir, "web", &(by_file(OURS, "shop.mesh.pem") + &caller(&orders, &ours.id("orders"))))
        .await;
    let own = ours.start(dir, "web", &caller(&orders, &ours.id("orders"))).await;
    assert_eq!(status(&own).await, StatusCode::OK);
    assert_ne!(status(&foreign).await, StatusCode::OK);
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn a_domains_bundle_vouches_for_no_other_in_either_direction() {
    let (folder, ours, theirs) = setting();
    let (dir, app) = (folder.path(), HttpApp::named("orders").await);
    // What passes for partner.mesh's bundle here is that of an impostor with the same name and subject.
    let elsewhere = dir.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let impostor = Domain::new(&elsewhere, THEIRS);
    fs::copy(dir.join("shop.mesh.pem"), elsewhere.join("shop.mesh.pem")).unwrap();
    let allow = format!(", allow: ['{}', '{}']", theirs.id("web"), ours.id("web"));
    let orders =
        ours.start(dir, "orders", &(by_file(THEIRS, "partner.mesh.pem") + &callee(&app, &allow))).await;
    let calls = by_file(OURS, "shop.mesh.pem") + &caller(&orders, &ours.id("orders"));
    let forged = impostor.start(&elsewhere, "web", &calls).await;
    assert_ne!(status(&forged).await, StatusCode::OK, "the same name and subject, another key");
    let real = theirs.start(dir, "web", &calls).await;
    assert_eq!(status(&real).await, StatusCode::OK);
    // The other way: a callee that is not of the domain that was asked for.
    let calls = by_file(THEIRS, "partner.mesh.pem") + &caller(&orders, &theirs.id("orders"));
    let asks_wrong = ours.start(dir, "web", &calls).await;
    assert_ne!(status(&asks_wrong).await, StatusCode::OK);
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn a_domain_taken_out_closes_its_live_connections_and_is_refused() {
    let (folder, ours, theirs) = setting();
    let (dir, app) = (folder.path(), HttpApp::named("orders").await);
    let their_ca = theirs.serve(dir).await;
    let allow = format!(", allow: ['{}', '{}']", theirs.id("web"), ours.id("web"));
    let orders = ours.start(dir, "orders", &(by_spiffe(THEIRS, &their_ca) + &callee(&app, &allow))).await;
    let calls = by_file(OURS, "shop.mesh.pem") + &caller(&orders, &ours.id("orders"));
    let foreign = theirs.start(dir, "web", &calls).await;
    assert_eq!(status(&foreign).await, StatusCode::OK);
    let kept = dir.join("shop.mesh.orders.state/federation/partner.mesh.json");
    eventually("its bundle is kept", || kept.is_file()).await;
    let allow = format!(", allow: ['{}']", ours.id("web"));
    let text = ours.config(dir, "orders", &callee(&app, &allow));
    let settings = outrider::config::parse(&text, dir).unwrap();
    soon("the reload", orders.app().reload(settings)).await.unwrap();
    eventually("its connection is cut", || cuts(&orders) == 1).await;
    assert_ne!(status(&foreign).await, StatusCode::OK);
    assert!(!kept.exists(), "nothing of it is left");
}

#[tokio::test]
async fn a_restart_goes_on_with_what_the_endpoint_gave_while_that_is_away() {
    let (folder, ours, theirs) = setting();
    let (dir, app) = (folder.path(), HttpApp::named("orders").await);
    let their_ca = theirs.serve(dir).await;
    let allow = format!(", allow: ['{}']", theirs.id("web"));
    let yaml = by_spiffe(THEIRS, &their_ca) + &callee(&app, &allow);
    let orders = ours.start(dir, "orders", &yaml).await;
    eventually("the endpoint has answered", || refreshes(&orders, THEIRS) > 0).await;
    let kept = dir.join("shop.mesh.orders.state/federation/partner.mesh.json");
    eventually("its bundle is kept", || kept.is_file()).await;
    drop((orders, their_ca));
    fs::remove_file(dir.join("partner.mesh.pem")).unwrap();
    let orders = ours.start(dir, "orders", &yaml).await;
    fs::write(dir.join("partner.mesh.pem"), theirs.ca.bundle().to_pem()).unwrap();
    let calls = by_file(OURS, "shop.mesh.pem") + &caller(&orders, &ours.id("orders"));
    let web = theirs.start(dir, "web", &calls).await;
    assert_eq!(status(&web).await, StatusCode::OK);
    assert_eq!(refreshes(&orders, THEIRS), 0);
}

#[tokio::test]
async fn authorization_rules_let_workloads_of_another_domain_in_and_audit_lets_in_nobody_else() {
    let (folder, ours, theirs) = setting();
    let folder = folder.path();
    let app = HttpApp::named("orders").await;
    let of_ours = "{name: ours, from_trust_domains: [shop.mesh]}";
    for (mode, rule, expected) in [
        ("enforce", "{name: all, from_trust_domains: [partner.mesh]}", [403, 200]),
        ("enforce", "{name: one, from: ['spiffe://partner.mesh/billing']}", [403, 200]),
        // Let in as a connection, and denied with each request.
        ("enforce", "{name: other, from: ['spiffe://partner.mesh/other']}", [403, 403]),
        ("audit", "{name: other, from: ['spiffe://partner.mesh/other']}", [200, 403]),
        // Nobody of theirs is let in at all.
        ("enforce", of_ours, [200, 503]),
        ("audit", of_ours, [200, 503]),
    ] {
        let rules = format!("\nauthorization: {{mode: {mode}, rules: [{rule}]}}\n");
        let yaml = [callee(&app, ""), rules, by_file(THEIRS, "partner.mesh.pem")].concat();
        let orders = ours.start(folder, "orders", &yaml).await;
        let expects = caller(&orders, &ours.id("orders"));
        let web = ours.start(folder, "web", &expects).await;
        let trusts = [expects.as_str(), "\n", &by_file(OURS, "shop.mesh.pem")].concat();
        let billing = theirs.start(folder, "billing", &trusts).await;
        assert_eq!(
            [status(&web).await, status(&billing).await].map(|status| status.as_u16()),
            expected,
            "{mode} {rule}"
        );
    }
}
