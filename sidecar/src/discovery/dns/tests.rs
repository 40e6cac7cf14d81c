use std::{
    path::PathBuf,
    sync::{Mutex, atomic::Ordering},
};

use super::*;
use crate::{
    clock::Clock,
    discovery::{Discovery, Sources},
    identity::testing::{epoch, eventually},
    model::{
        ClusterName, ClusterSettings,
        cluster::EndpointSource,
        dns::{DnsRecords, Family, ResolverSettings},
        fixture,
        status::DiscoveryStatus,
    },
};

/// A DNS that answers as it is told, and notes when it was asked. Without an answer it is silent.
#[derive(Clone, Default)]
struct FakeDns {
    answer: Arc<Mutex<Option<Look>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
    clock: Option<Clock>,
}

impl FakeDns {
    fn says(&self, answer: Result<&[u16], Failure>, ttl: u64) {
        let endpoints =
            |ports: &[u16]| ports.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect();
        let part = Part { question: "orders A".to_owned(), answer: answer.map(endpoints) };
        let look = Look { parts: vec![part], ttl: Some(Duration::from_secs(ttl)), dropped: 0 };
        *self.answer.lock().unwrap() = Some(look);
    }

    /// Times between looks since the last call.
    fn gaps(&self) -> Vec<f64> {
        let mut asked = self.asked.lock().unwrap();
        let gaps = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        asked.clear();
        gaps
    }
}

impl Lookup for FakeDns {
    fn look<'a>(&'a self, _settings: &'a DnsSettings) -> Looking<'a> {
        self.asked.lock().unwrap().push(self.clock.as_ref().unwrap().now());
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            match answer {
                Some(look) => look,
                None => std::future::pending().await,
            }
        })
    }
}

impl Sources for FakeDns {
    fn source(&self, cluster: &ClusterSettings) -> Box<dyn Source> {
        let EndpointSource::Dns(settings) = &cluster.source else { panic!("only names here") };
        Box::new(DnsSource::new(settings.clone(), Arc::new(self.clone())))
    }
}

fn settings() -> DnsSettings {
    DnsSettings {
        name: "orders.test.".to_owned(),
        records: DnsRecords::Addresses { family: Family::V4, port: 1 },
        min_ttl: Duration::from_secs(5),
        max_ttl: Duration::from_secs(300),
        empty_after: Some(Duration::from_secs(60)),
        spiffe_ids: Arc::from(["spiffe://test.mesh/orders".parse().unwrap()]),
        resolver: Arc::new(ResolverSettings {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            start_timeout: Duration::from_secs(15),
            mark: None,
        }),
    }
}

/// A cluster's name resolved in virtual time.
struct Bench {
    dns: FakeDns,
    clock: Clock,
    discovery: Discovery,
}

impl Bench {
    fn start(prepare: impl FnOnce(&FakeDns)) -> Self {
        let clock = Clock::simulated(epoch(), 7);
        let dns = FakeDns { clock: Some(clock.clone()), ..FakeDns::default() };
        prepare(&dns);
        let mut discovery = Discovery::new(Arc::new(dns.clone()), &clock);
        let source = EndpointSource::Dns(settings());
        discovery.reconcile(&[Arc::new(ClusterSettings { source, ..fixture::settings("orders") })]);
        Self { dns, clock, discovery }
    }

    /// Ports of the list; `None` without an answer.
    fn ports(&self) -> Option<Vec<u16>> {
        let lists = self.discovery.lists();
        let lists = lists.borrow();
        let list = lists.endpoints(&ClusterName::new("orders"))?;
        Some(list.iter().map(|endpoint| endpoint.address.port()).collect())
    }

    fn status(&self) -> Arc<DiscoveryStatus> {
        Arc::clone(self.discovery.lists().borrow().status(&ClusterName::new("orders")).unwrap())
    }

    fn count(&self, outcome: LookupOutcome) -> u64 {
        self.status().lookups.by_outcome[outcome as usize].load(Ordering::Relaxed)
    }

    async fn until_ports(&self, within: u64, ports: &[u16]) {
        let what = format!("{ports:?}");
        eventually(Duration::from_secs(within), &what, || self.ports().as_deref() == Some(ports)).await;
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_when_its_ttl_is_over_with_jitter() {
    let bench = Bench::start(|dns| dns.says(Ok(&[2, 1, 2]), 20));
    bench.until_ports(1, &[1, 2]).await;
    seconds(500).await;
    let gaps = bench.dns.gaps();
    assert!(gaps.iter().all(|gap| (20.0..=22.01).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| (gap - gaps[0]).abs() > 0.1), "without jitter: {gaps:?}");
    assert_eq!(bench.status().lookups.ttl_ms.load(Ordering::Relaxed), 20_000);
    bench.dns.says(Ok(&[3]), 0);
    bench.until_ports(23, &[3]).await;
    bench.dns.gaps();
    seconds(60).await;
    assert!(bench.dns.gaps().iter().all(|gap| (5.0..=5.51).contains(gap)), "a TTL of 0 is 5 s");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_answer_wakes_nobody() {
    let bench = Bench::start(|dns| dns.says(Ok(&[1, 2, 3]), 5));
    bench.until_ports(1, &[1, 2, 3]).await;
    let mut lists = bench.discovery.lists();
    lists.borrow_and_update();
    bench.dns.says(Ok(&[3, 1, 2]), 5);
    seconds(30).await;
    assert!(!lists.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_last_answer_and_its_age_tells() {
    let bench = Bench::start(|dns| dns.says(Ok(&[1]), 20));
    bench.until_ports(1, &[1]).await;
    bench.dns.says(Err(Failure::Refused("Server Failure".to_owned())), 0);
    seconds(3600).await;
    assert_eq!(bench.ports().as_deref(), Some(&[1][..]));
    let status = bench.status();
    assert!(status.age(bench.clock.now()).unwrap() > Duration::from_secs(3500));
    assert_eq!(status.error().as_deref(), Some("the DNS server answered Server Failure"));
    let gaps = bench.dns.gaps();
    let (first, last) = (&gaps[1..3], &gaps[gaps.len() - 3..]);
    assert!(first.iter().all(|gap| *gap <= 2.01), "soon at first: {gaps:?}");
    assert!(last.iter().all(|gap| (15.0..=30.01).contains(gap)), "then seldom: {gaps:?}");
    assert!(bench.count(LookupOutcome::Refused) > 100);
    // Seen within the longest backoff, and all is as before.
    bench.dns.says(Ok(&[2]), 20);
    bench.until_ports(31, &[2]).await;
    assert_eq!(status.error(), None);
    assert!(status.age(bench.clock.now()).unwrap() < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_is_doubted_for_a_minute() {
    let bench = Bench::start(|dns| dns.says(Ok(&[1]), 20));
    bench.until_ports(1, &[1]).await;
    bench.dns.says(Err(Failure::NoSuchName), 0);
    eventually(Duration::from_secs(23), "it is said", || bench.count(LookupOutcome::NoSuchName) == 1).await;
    seconds(58).await;
    assert_eq!(bench.ports().as_deref(), Some(&[1][..]));
    assert_eq!(bench.status().error().as_deref(), Some("no such name"));
    bench.until_ports(3, &[]).await;
    // Back within the longest backoff.
    bench.dns.says(Ok(&[1]), 20);
    bench.until_ports(31, &[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_never_there_is_an_empty_cluster_at_once() {
    let bench = Bench::start(|dns| dns.says(Err(Failure::NoData), 0));
    bench.until_ports(1, &[]).await;
    assert!(bench.discovery.lists().borrow().is_complete());
}

#[tokio::test(start_paused = true)]
async fn the_start_waits_for_a_silent_dns_only_so_long() {
    let bench = Bench::start(|_silent| {});
    let mut lists = bench.discovery.lists();
    lists.borrow_and_update();
    seconds(14).await;
    assert!(!lists.borrow().is_complete());
    seconds(2).await;
    assert!(lists.has_changed().unwrap(), "whoever waits is woken");
    assert!(lists.borrow_and_update().is_complete());
    assert_eq!(bench.ports(), None);
    assert_eq!(bench.status().error().as_deref(), Some("no answer in time"));
}

#[tokio::test(start_paused = true)]
async fn a_failing_dns_is_asked_all_through_the_start() {
    let bench = Bench::start(|dns| dns.says(Err(Failure::Timeout), 0));
    seconds(10).await;
    assert!(!bench.discovery.lists().borrow().is_complete());
    bench.dns.says(Ok(&[1]), 20);
    eventually(Duration::from_secs(5), "complete", || bench.discovery.lists().borrow().is_complete()).await;
}

#[test]
fn clusters_that_ask_alike_share_a_resolver() {
    let resolvers = Resolvers::default();
    let same = settings().resolver;
    let first = resolvers.of(&same);
    assert!(Arc::ptr_eq(&first, &resolvers.of(&settings().resolver)));
    let other = Arc::new(ResolverSettings { attempts: 3, ..ResolverSettings::clone(&same) });
    assert!(!Arc::ptr_eq(&first, &resolvers.of(&other)));
}

#[tokio::test]
async fn without_any_server_the_look_fails_and_says_why() {
    let resolver = Resolver::with_file(settings().resolver, PathBuf::from("/none/resolv.conf"));
    let look = resolver.look(&settings()).await;
    let Err(Failure::Other(why)) = &look.parts[0].answer else { panic!("{look:?}") };
    assert!(why.starts_with("cannot read /none/resolv.conf"), "{why}");
}
