//! The life of a certificate beside the CA itself: real sockets, real time, short lifetimes.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrider_certs::{
    ca::{CaState, NewCa, Options, Validity, serve},
    clock::SystemWallClock,
    svid::X509Svid,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    clock::Clock,
    identity::{
        Started, start,
        testing::{DAY, ORDERS, domain, eventually, id},
    },
    model::{
        fixture,
        settings::{Bootstrap, IdentitySource},
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
}

impl Bench {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let new = NewCa { trust_domain: domain(), root_lifetime: 3650 * DAY };
        let clock = Clock::system();
        CaState::init(&folder.path().join("ca"), &new, clock.wall()).unwrap();
        let mut bench = Self { folder, address: ([127, 0, 0, 1], 0).into(), clock, running: None };
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
        let (options, stop) = (Options { validity, ..Options::default() }, CancellationToken::new());
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
                join_token_file: Some(self.token_file()),
                validity: LIFETIME,
            },
            ..fixture::bootstrap()
        };
        start(&bootstrap, &TcpNet, &self.clock, &Readiness::default()).unwrap()
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
