//! The life of a certificate beside the CA itself: real sockets, real time, short lifetimes.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use outrider_certs::{
    SpiffeId,
    ca::{
        CaState, NewCa, Options, Validity,
        review::{self, Reviewed, Reviewer, Reviewing},
        serve,
    },
    clock::SystemWallClock,
    svid::X509Svid,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    clock::Clock,
    identity::{
        Started,
        ca::CaSettings,
        start, start_of_ca,
        testing::{DAY, ORDERS, domain, eventually, id, tls_settings},
    },
    model::{
        Generation, Settings, fixture,
        settings::{Bootstrap, CaProof, IdentitySource},
    },
    net::TcpNet,
    readiness::Readiness,
};

/// Long enough for a busy machine, short enough to wait for.
const LIFETIME: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    folder: TempDir,
    address: SocketAddr,
    clock: Clock,
    running: Option<DropGuard>,
    reviewer: Arc<Named>,
}

/// Says of every token whom the test has named, and remembers which it saw.
#[derive(Debug, Default)]
struct Named {
    id: Mutex<String>,
    seen: Mutex<Vec<String>>,
}

impl Reviewer for Named {
    fn review<'a>(&'a self, token: &'a str) -> Reviewing<'a> {
        self.seen.lock().unwrap().push(token.to_owned());
        let id = self.id.lock().unwrap().clone();
        let no = || review::Error::NotAuthenticated("nobody was named".to_owned());
        let reviewed = SpiffeId::parse(&id).map_err(|_| no()).map(|id| Reviewed { id, pod: None });
        Box::pin(std::future::ready(reviewed))
    }
}

impl Bench {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let new = NewCa { trust_domain: domain(), root_lifetime: 3650 * DAY };
        let clock = Clock::system();
        CaState::init(&folder.path().join("ca"), &new, clock.wall()).unwrap();
        let mut bench = Self {
            folder,
            address: ([127, 0, 0, 1], 0).into(),
            clock,
            running: None,
            reviewer: Arc::default(),
        };
        bench.open().await;
        bench
    }

    fn ca(&self) -> CaState {
        CaState::open(&self.folder.path().join("ca")).unwrap()
    }

    /// Starts the CA, at the address it had before if it had one.
    async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let validity = Validity { default: LIFETIME, min: LIFETIME, max: LIFETIME };
        let reviewer: Arc<dyn Reviewer> = Arc::clone(&self.reviewer) as _;
        let options = Options { validity, reviewer: Some(reviewer), ..Options::default() };
        let stop = CancellationToken::new();
        let ca = self.ca();
        self.running = Some(stop.clone().drop_guard());
        tokio::spawn(
            async move { serve(listener, ca, options, Arc::new(SystemWallClock), stop).await.unwrap() },
        );
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn write_token(&self) {
        let token = self.ca().new_token(&id(ORDERS), DAY, self.clock.wall()).unwrap();
        fs::write(self.token_file(), token.to_string()).unwrap();
    }

    fn start(&self, state_dir: &str) -> Started {
        let bootstrap = Bootstrap {
            state_dir: self.folder.path().join(state_dir),
            identity: IdentitySource::Ca {
                address: format!("localhost:{}", self.address.port()),
                proof: CaProof::JoinToken { file: Some(self.token_file()) },
                validity: LIFETIME,
            },
            ..fixture::bootstrap()
        };
        let settings = Settings { bootstrap, ..fixture::config(&[]) };
        let config = watch::Sender::new(Arc::new(Generation::first(Arc::new(settings)))).subscribe();
        start(None, config, &TcpNet, &self.clock, &Readiness::default()).unwrap()
    }
}

fn svid(started: &Started) -> Option<X509Svid> {
    started.identity.borrow().as_ref().map(|identity| identity.svid.clone())
}

fn error(started: &Started) -> String {
    started.status.renewals.last().error.unwrap_or_default()
}

#[tokio::test]
async fn joined_once_renewed_by_itself_and_kept_over_a_restart() {
    let mut bench = Bench::new().await;
    bench.write_token();
    let started = bench.start("state");
    let renewed = |times: u64| started.status.renewals.successes.load(Ordering::Relaxed) >= times;
    eventually(PATIENCE, "the first certificate", || svid(&started).is_some()).await;
    assert_eq!(svid(&started).unwrap().id().as_str(), ORDERS);
    eventually(PATIENCE, "two renewals", || renewed(3)).await;
    assert_eq!(error(&started), "");

    // The CA goes and comes back.
    bench.running = None;
    eventually(PATIENCE, "a failed renewal", || !error(&started).is_empty()).await;
    // Used only if this machine is too busy to renew before the end.
    bench.write_token();
    bench.open().await;
    let before = started.status.renewals.successes.load(Ordering::Relaxed);
    eventually(PATIENCE, "a renewal after the outage", || renewed(before + 1)).await;

    // A restart with the CA away.
    bench.running = None;
    let restarted = bench.start("state");
    eventually(Duration::from_secs(1), "the kept certificate", || svid(&restarted).is_some()).await;
}

#[tokio::test]
async fn a_token_cannot_be_used_twice_and_a_new_one_heals() {
    let bench = Bench::new().await;
    bench.write_token();
    let first = bench.start("first");
    eventually(PATIENCE, "the first certificate", || svid(&first).is_some()).await;
    let second = bench.start("second");
    eventually(PATIENCE, "a refusal", || error(&second).contains("the CA refused")).await;
    assert!(error(&second).contains("token"), "{}", error(&second));
    assert!(svid(&second).is_none());
    bench.write_token();
    eventually(PATIENCE, "an identity", || svid(&second).is_some()).await;
}

#[tokio::test]
async fn by_a_service_accounts_token_each_certificate_is_proved_anew() {
    let bench = Bench::new().await;
    ORDERS.clone_into(&mut bench.reviewer.id.lock().unwrap());
    let bundle_file = bench.folder.path().join("bundle.pem");
    fs::write(bench.token_file(), "first\n").unwrap();
    let settings = CaSettings {
        address: bench.address.to_string(),
        proof: CaProof::ServiceAccount { token_file: bench.token_file(), bundle_file: bundle_file.clone() },
        validity: LIFETIME,
        trust_domain: domain(),
        state_dir: bench.folder.path().join("state"),
    };
    let readiness = Readiness::default();
    let started = start_of_ca(settings, &tls_settings(), &TcpNet, &bench.clock, &readiness).unwrap();
    eventually(PATIENCE, "a failure", || error(&started).contains("bundle.pem")).await;
    assert!(bench.reviewer.seen.lock().unwrap().is_empty(), "nothing is sent to a CA that is not known");
    fs::write(&bundle_file, bench.ca().bundle().to_pem()).unwrap();
    eventually(PATIENCE, "the first certificate", || svid(&started).is_some()).await;
    assert_eq!(svid(&started).unwrap().id().as_str(), ORDERS);
    fs::write(bench.token_file(), "second").unwrap();
    let seen = |token: &str| bench.reviewer.seen.lock().unwrap().iter().any(|seen| seen == token);
    eventually(PATIENCE, "the second token", || seen("second")).await;
    assert!(seen("first"));
    assert!(!bench.folder.path().join("state").exists());

    // Whoever the token stands for by then, we stay who we are: the request names us, and the CA refuses another.
    "spiffe://test.mesh/other".clone_into(&mut bench.reviewer.id.lock().unwrap());
    eventually(PATIENCE, "a refusal", || error(&started).contains("asks for")).await;
    assert_eq!(svid(&started).unwrap().id().as_str(), ORDERS);
}
