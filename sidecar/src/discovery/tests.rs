use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use outrider_certs::SpiffeId;
use tempfile::TempDir;

use super::{programmable::Programmable, *};
use crate::{
    identity::testing::{epoch, eventually},
    model::fixture,
};

/// One `port` a line; "?" is a fault.
fn parse(text: &str, expected: &ExpectedIds) -> Result<Vec<EndpointSettings>, String> {
    let ExpectedIds::OneOf(ids) = expected else { panic!("{expected:?}") };
    let endpoint = |line: &str| {
        let port: u16 = line.parse().map_err(|_no_number| format!("`{line}` is no port"))?;
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        Ok(EndpointSettings::new(address, Arc::clone(ids)))
    };
    text.lines().map(endpoint).collect()
}

fn watched(path: &Path) -> Arc<ClusterSettings> {
    let ids = [SpiffeId::parse("spiffe://test.mesh/orders").unwrap()];
    let source = EndpointSource::File { path: path.to_path_buf(), default_spiffe_ids: ids.into() };
    Arc::new(ClusterSettings { source, ..fixture::settings("orders") })
}

fn orders() -> ClusterName {
    ClusterName::new("orders")
}

/// The file source beside one file, in virtual time.
struct Bench {
    _folder: TempDir,
    file: PathBuf,
    clock: Clock,
    discovery: Discovery,
}

impl Bench {
    fn start(text: Option<&str>) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("orders.yaml");
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let clock = Clock::simulated(epoch(), 7);
        let mut discovery = Discovery::new(Arc::new(Configured::new(parse)), &clock);
        discovery.reconcile(&[watched(&file)]);
        Self { _folder: folder, file, clock, discovery }
    }

    /// Ports of the list; `None` without an answer.
    fn ports(&self) -> Option<Vec<u16>> {
        let lists = self.discovery.lists();
        let lists = lists.borrow();
        Some(lists.endpoints(&orders())?.iter().map(|endpoint| endpoint.address.port()).collect())
    }

    fn status(&self) -> Arc<DiscoveryStatus> {
        Arc::clone(self.discovery.lists().borrow().status(&orders()).unwrap())
    }

    async fn until_ports(&self, ports: &[u16]) {
        let what = format!("{ports:?}");
        eventually(Duration::from_secs(3), &what, || self.ports().as_deref() == Some(ports)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_at_once_and_again_when_it_changes() {
    let bench = Bench::start(Some("1\n2"));
    assert_eq!(bench.ports().as_deref(), Some(&[1, 2][..]), "before reconcile returns");
    fs::write(&bench.file, "2\n3").unwrap();
    bench.until_ports(&[2, 3]).await;
    fs::write(&bench.file, "").unwrap();
    bench.until_ports(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_changes_nothing_and_the_list_ages() {
    let bench = Bench::start(Some("1"));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(
        bench.status().age(bench.clock.now()).unwrap() <= Duration::from_secs(2),
        "confirmed at every look"
    );
    fs::write(&bench.file, "1\n?").unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.ports().as_deref(), Some(&[1][..]));
    let status = bench.status();
    assert!(status.age(bench.clock.now()).unwrap() >= Duration::from_secs(98));
    assert_eq!(status.error().as_deref(), Some("`?` is no port"));
    assert_eq!(status.failures.load(Ordering::Relaxed), 1, "one bad content, one failure");
    fs::remove_file(&bench.file).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.ports().as_deref(), Some(&[1][..]), "a file that is gone is no empty list");
    fs::write(&bench.file, "1").unwrap();
    eventually(Duration::from_secs(3), "good again", || status.error().is_none()).await;
    assert!(status.age(bench.clock.now()).unwrap() <= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_comes_late_is_the_first_answer() {
    let bench = Bench::start(None);
    assert!(!bench.discovery.lists().borrow().is_complete());
    fs::write(&bench.file, "7").unwrap();
    bench.until_ports(&[7]).await;
    assert!(bench.discovery.lists().borrow().is_complete());
}

#[tokio::test(start_paused = true)]
async fn another_file_takes_over_and_the_old_list_stays_until_it_answers() {
    let mut bench = Bench::start(Some("1"));
    let other = bench.file.with_extension("new");
    bench.discovery.reconcile(&[watched(&other)]);
    fs::write(&bench.file, "99").unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.ports().as_deref(), Some(&[1][..]), "the old source is stopped, the new has no answer");
    fs::write(&other, "2").unwrap();
    bench.until_ports(&[2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_was_replaced_cannot_write() {
    let mut bench = Bench::start(Some("1"));
    let old = bench.discovery.feed(&orders());
    let new = bench.discovery.feed(&orders());
    old.confirm(Arc::from([]));
    assert_eq!(bench.ports().as_deref(), Some(&[1][..]));
    old.fail("too late".to_owned());
    assert_eq!(bench.status().error(), None);
    new.fail("no file".to_owned());
    assert_eq!(bench.status().error().as_deref(), Some("no file"));
    old.confirm_constant(Arc::from([]));
    assert_eq!(bench.status().error().as_deref(), Some("no file"), "nor take back what the new one says");
    bench.discovery.reconcile(&[]);
    old.confirm(Arc::from([]));
    assert_eq!(bench.ports(), None, "a cluster that is gone does not come back");
}

#[tokio::test(start_paused = true)]
async fn waiters_are_woken_by_changes_only() {
    let clock = Clock::simulated(epoch(), 7);
    let sources = Programmable::new();
    let mut discovery = Discovery::new(Arc::new(sources.clone()), &clock);
    discovery.reconcile(&[watched(Path::new("/none"))]);
    let mut lists = discovery.lists();
    let list = parse("1", &ExpectedIds::OneOf(Arc::from([]))).unwrap();
    sources.set(&orders(), &list);
    lists.changed().await.unwrap();
    lists.borrow_and_update();
    sources.set(&orders(), &list);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!lists.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_static_list_has_no_age() {
    let clock = Clock::simulated(epoch(), 7);
    let mut discovery = Discovery::new(Arc::new(Configured::new(parse)), &clock);
    discovery.reconcile(&[Arc::new(fixture::settings("orders"))]);
    let lists = discovery.lists();
    assert!(lists.borrow().is_complete());
    assert_eq!(lists.borrow().status(&orders()).unwrap().age(clock.now()), None);
}
