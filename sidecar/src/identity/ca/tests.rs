use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outrider_certs::svid::X509Svid;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::Clock,
    identity::{
        Started, start_with,
        testing::{
            Answer, CA_ADDRESS, DAY, FakeCa, MemoryNet, ORDERS, REFRESH_HINT, Root, bundle, domain, epoch,
            eventually, id, tls_settings,
        },
        tls_configs::TlsBase,
    },
    model::Identity,
    readiness::Readiness,
};

const HOUR: Duration = Duration::from_secs(3600);
/// How far apart `Bench::until` looks, at most.
const LOOK: Duration = Duration::from_secs(10);

/// A sidecar's identity beside a CA that can lie, in virtual time.
struct Bench {
    clock: Clock,
    ca: FakeCa,
    folder: TempDir,
    readiness: Readiness,
    started: Option<Started>,
    /// Every start has its own token file: tasks of an earlier one go on, and would take the token.
    starts: u32,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::simulated(epoch(), 7);
        let ca = FakeCa::new(&clock);
        ca.open();
        Self {
            clock,
            ca,
            folder: TempDir::new().unwrap(),
            readiness: Readiness::default(),
            started: None,
            starts: 0,
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join(format!("token-{}", self.starts))
    }

    fn write_token(&self, text: &str) {
        fs::write(self.token_file(), text).unwrap();
    }

    fn source(&self) -> CaSource<MemoryNet> {
        let settings = CaSettings {
            address: CA_ADDRESS.to_owned(),
            proof: CaProof::JoinToken { file: Some(self.token_file()) },
            validity: DAY,
            trust_domain: domain(),
            state_dir: self.state_dir(),
        };
        let tls = TlsBase::new(&tls_settings(), &self.clock).unwrap();
        CaSource::new(settings, self.ca.net.clone(), tls, &self.clock)
    }

    fn start(&mut self) {
        let source = self.source();
        self.started =
            Some(start_with(Arc::new(source), &tls_settings(), &self.clock, &self.readiness).unwrap());
    }

    /// Joined and running.
    async fn joined() -> Self {
        let mut bench = Self::new();
        bench.write_token(&bench.ca.token(ORDERS, &bench.ca.root));
        bench.start();
        bench.until("the first identity", |bench| bench.identity().is_some()).await;
        bench
    }

    fn started(&self) -> &Started {
        self.started.as_ref().unwrap()
    }

    fn identity(&self) -> Option<Arc<Identity>> {
        self.started().identity.borrow().clone()
    }

    fn svid(&self) -> X509Svid {
        self.identity().unwrap().svid.clone()
    }

    fn error(&self) -> String {
        self.started().status.renewals.last().error.unwrap_or_default()
    }

    async fn until(&self, what: &str, mut claim: impl FnMut(&Self) -> bool) {
        eventually(26 * HOUR, what, || claim(self)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_token_becomes_an_identity_that_is_kept_privately() {
    let bench = Bench::joined().await;
    assert_eq!(bench.svid().id().as_str(), ORDERS);
    eventually(HOUR, "ready", || bench.readiness.waiting_for().is_empty()).await;
    for name in ["svid.pem", "svid_key.pem", "bundle.json"] {
        let mode = fs::metadata(bench.state_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(bench.state_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let names: Vec<_> =
        fs::read_dir(bench.state_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "nothing else stays: {names:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_needs_neither_token_nor_ca() {
    let mut bench = Bench::joined().await;
    let before = bench.svid();
    bench.ca.net.close(CA_ADDRESS);
    bench.start();
    bench.until("the kept identity", |bench| bench.identity().is_some()).await;
    assert_eq!(bench.svid().chain(), before.chain());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_60_percent_with_a_new_key() {
    let bench = Bench::joined().await;
    let first = bench.svid();
    bench.until("a renewal", |bench| bench.svid().chain() != first.chain()).await;
    let age = bench.clock.wall().duration_since(epoch()).unwrap();
    assert!(age > DAY.mul_f64(0.54) && age < DAY.mul_f64(0.66), "{age:?}");
    assert_ne!(bench.svid().key().secret_der(), first.key().secret_der());
    assert_eq!(bench.ca.script(|script| script.issued), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_until_the_ca_is_back() {
    let bench = Bench::joined().await;
    let first = bench.svid();
    bench.ca.net.close(CA_ADDRESS);
    tokio::time::sleep(DAY.mul_f64(0.9)).await;
    assert_eq!(bench.svid().chain(), first.chain(), "the last good stays in use");
    assert!(bench.error().contains("cannot be reached"), "{}", bench.error());
    let attempts = bench.started().status.renewals.failures.load(std::sync::atomic::Ordering::Relaxed);
    assert!((300..2000).contains(&attempts), "about one attempt in 30 s over 7 h, not {attempts}");
    bench.ca.open();
    let back_at = bench.clock.wall();
    bench.until("a renewal", |bench| bench.svid().chain() != first.chain()).await;
    let waited = bench.clock.wall().duration_since(back_at).unwrap();
    assert!(waited <= Duration::from_secs(60) + LOOK, "{waited:?}");
    assert!(!bench.started().status.renewals.is_failing());
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_replaced_by_a_new_token_without_a_restart() {
    let bench = Bench::joined().await;
    let first = bench.svid();
    bench.ca.net.close(CA_ADDRESS);
    tokio::time::sleep(DAY + HOUR).await;
    bench.ca.open();
    tokio::time::sleep(HOUR).await;
    assert_eq!(bench.svid().chain(), first.chain(), "nothing withdraws it, and the old token is spent");
    assert!(bench.error().contains("the CA refused"), "{}", bench.error());
    bench.write_token(&bench.ca.token(ORDERS, &bench.ca.root));
    let dropped_at = bench.clock.wall();
    bench.until("a new identity", |bench| bench.svid().chain() != first.chain()).await;
    let waited = bench.clock.wall().duration_since(dropped_at).unwrap();
    assert!(waited <= Duration::from_secs(2) + LOOK, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_an_expired_certificate_asks_for_a_token() {
    let mut bench = Bench::joined().await;
    bench.ca.net.close(CA_ADDRESS);
    tokio::time::sleep(DAY + HOUR).await;
    bench.ca.open();
    bench.starts += 1;
    bench.start();
    bench.until("a complaint", |bench| !bench.error().is_empty()).await;
    assert!(bench.identity().is_none());
    assert!(bench.error().contains("no certificate and no join token"), "{}", bench.error());
    bench.write_token(&bench.ca.token(ORDERS, &bench.ca.root));
    bench.until("an identity", |bench| bench.identity().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_used_token_is_refused_with_a_clear_error() {
    let mut bench = Bench::new();
    let token = bench.ca.token(ORDERS, &bench.ca.root);
    bench.ca.script(|script| script.tokens.clear());
    bench.write_token(&token);
    bench.start();
    bench.until("a complaint", |bench| !bench.error().is_empty()).await;
    assert!(bench.error().contains("the join token was used or is unknown"), "{}", bench.error());
    let remedy = bench.source().remedy(Some(&id(ORDERS)));
    assert!(remedy.contains(&format!("outrider-ca token --spiffe-id {ORDERS}")), "{remedy}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_what_was_asked_for_is_refused() {
    let lies = [
        (Answer::WrongId, "not for spiffe://test.mesh/orders"),
        (Answer::OtherKey, "key does not belong"),
        (Answer::ForeignRoot, "not issued by a root"),
        (Answer::Expired, "expired"),
        (Answer::TenYears, "lifetime"),
        (Answer::Garbage, "cannot be used"),
        (Answer::Refuse, "the CA refused"),
        (Answer::Hang, "no answer within"),
    ];
    for (answer, complaint) in lies {
        let bench = Bench::joined().await;
        let first = bench.svid();
        bench.ca.script(|script| script.answer = answer);
        bench.until("a failed renewal", |bench| !bench.error().is_empty()).await;
        assert!(bench.error().contains(complaint), "{answer:?}: {}", bench.error());
        tokio::time::sleep(HOUR / 10).await;
        assert_eq!(bench.svid().chain(), first.chain(), "{answer:?}: the last good stays");
        bench.ca.script(|script| script.answer = Answer::Honest);
        bench.until("a renewal", |bench| bench.svid().chain() != first.chain()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_the_ca_gets_neither_token_nor_trust() {
    let mut bench = Bench::new();
    bench.write_token(&bench.ca.token(ORDERS, &bench.ca.root));
    bench.ca.script(|script| script.own_id = id("spiffe://test.mesh/mallory"));
    bench.start();
    bench.until("a complaint", |bench| !bench.error().is_empty()).await;
    assert!(bench.error().contains("not a CA we trust"), "{}", bench.error());

    bench.ca.script(|script| {
        script.own_id = outrider_certs::join_token::ca_spiffe_id(&domain());
        script.own_root = Arc::new(Root::new("another root"));
    });
    tokio::time::sleep(HOUR).await;
    assert!(bench.identity().is_none());
    assert_eq!(bench.ca.script(|script| script.tokens.len()), 1, "the token is not spent");

    bench.ca.script(|script| script.own_root = Arc::clone(&bench.ca.root));
    bench.until("an identity", |bench| bench.identity().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_poses_as_the_ca_at_renewal_is_refused() {
    let bench = Bench::joined().await;
    bench.ca.script(|script| script.own_id = id("spiffe://test.mesh/mallory"));
    bench.until("a complaint", |bench| !bench.error().is_empty()).await;
    assert!(bench.error().contains("is not the CA but spiffe://test.mesh/mallory"), "{}", bench.error());
    assert_eq!(bench.ca.script(|script| script.issued), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_bundle_is_published_with_the_old_certificate_and_acknowledged() {
    let bench = Bench::joined().await;
    let before = bench.identity().unwrap();
    let second = Root::new("root 2");
    let newer = bundle(&[&bench.ca.root, &second], 5);
    bench.ca.script(|script| script.bundle = newer.clone());
    bench
        .until("the new bundle", |bench| bench.identity().unwrap().bundles.get(&domain()) == Some(&newer))
        .await;
    let waited = bench.clock.wall().duration_since(epoch()).unwrap();
    assert!(waited > REFRESH_HINT.mul_f64(0.89) && waited < REFRESH_HINT + LOOK, "{waited:?}");
    let after = bench.identity().unwrap();
    assert_eq!(after.svid.chain(), before.svid.chain());
    assert!(
        !Arc::ptr_eq(&before.tls.server_outrider, &after.tls.server_outrider),
        "new trust, new configuration"
    );
    bench
        .until("the acknowledgement", |bench| bench.ca.script(|script| script.acknowledged.contains(&5)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_goes_back_or_excludes_the_ca_is_refused() {
    let bench = Bench::joined().await;
    let second = Root::new("root 2");
    let good = bundle(&[&bench.ca.root, &second], 5);
    bench.ca.script(|script| script.bundle = good.clone());
    bench.until("sequence 5", |bench| bench.identity().unwrap().bundles.get(&domain()) == Some(&good)).await;
    let faults = [
        (bundle(&[&bench.ca.root], 4), "sequence 4 is lower than 5"),
        (bundle(&[&bench.ca.root], 5), "both have the sequence 5"),
        (bundle(&[&second], 6), "does not vouch for the CA"),
        (bundle(&[], 7), "does not vouch for the CA"),
    ];
    for (bad, complaint) in faults {
        bench.ca.script(|script| script.bundle = bad);
        let refreshes = &bench.started().status.bundle_refreshes;
        let says = |bench: &Bench| bench.started().status.bundle_refreshes.last().error.unwrap_or_default();
        // The fake CA trusts callers by the bundle it publishes, so an empty one breaks the connection first.
        bench
            .until(complaint, |bench| says(bench).contains(complaint) || says(bench).contains("connection"))
            .await;
        assert_eq!(bench.identity().unwrap().bundles.get(&domain()), Some(&good));
        bench.ca.script(|script| script.bundle = good.clone());
        bench.until("a good look", |_| !refreshes.is_failing()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_root_that_was_taken_out_is_renewed_at_once() {
    let bench = Bench::joined().await;
    let first = bench.svid();
    let taken_over = Arc::new(Root::new("root 2"));
    // The CA serves under both roots first, then drops the one our certificate is of.
    let both = bundle(&[&bench.ca.root, &taken_over], 2);
    bench.ca.script(|script| {
        script.bundle = both.clone();
        script.admits = Some(both.clone());
    });
    bench.until("both roots", |bench| bench.identity().unwrap().bundles.get(&domain()) == Some(&both)).await;
    bench.ca.script(|script| {
        script.own_root = Arc::clone(&taken_over);
        script.bundle = bundle(&[&taken_over], 3);
    });
    bench.until("a renewal", |bench| bench.svid().chain() != first.chain()).await;
    let age = bench.clock.wall().duration_since(epoch()).unwrap();
    assert!(age < 3 * HOUR, "long before 60 %: {age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_others_can_enter_is_refused_before_the_token_is_spent() {
    let mut bench = Bench::new();
    fs::create_dir(bench.state_dir()).unwrap();
    set_mode(&bench.state_dir(), 0o755);
    bench.write_token(&bench.ca.token(ORDERS, &bench.ca.root));
    bench.start();
    bench.until("a complaint", |bench| !bench.error().is_empty()).await;
    assert!(bench.error().contains("chmod 700"), "{}", bench.error());
    assert_eq!(bench.ca.script(|script| script.tokens.len()), 1);
    set_mode(&bench.state_dir(), 0o700);
    bench.until("an identity", |bench| bench.identity().is_some()).await;
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_another_process_renewed_is_taken_over() {
    let mut bench = Bench::joined().await;
    let old = bench.started.take().unwrap();
    bench.start();
    bench.until("the kept identity", |bench| bench.identity().is_some()).await;
    let first = bench.svid();
    bench
        .until("a renewal of both", |bench| {
            let other = old.identity.borrow().clone().unwrap().svid.clone();
            bench.svid().chain() != first.chain() && other.chain() != first.chain()
        })
        .await;
    assert_eq!(bench.ca.script(|script| script.issued), 2, "one join, one renewal for both");
}

#[tokio::test(start_paused = true)]
async fn a_token_for_a_new_ca_is_used_when_the_old_trust_is_refused() {
    let bench = Bench::joined().await;
    let first = bench.svid();
    let rebuilt = FakeCa::on(bench.ca.net.clone(), &bench.clock);
    rebuilt.open();
    bench.until("a complaint", |bench| !bench.error().is_empty()).await;
    assert!(bench.error().contains("not a CA we trust"), "{}", bench.error());
    assert_eq!(bench.svid().chain(), first.chain());
    bench.write_token(&rebuilt.token(ORDERS, &rebuilt.root));
    bench.until("an identity of the new CA", |bench| bench.svid().chain() != first.chain()).await;
    assert!(bench.clock.wall() < first.not_after(), "while the old one was still valid");
}
