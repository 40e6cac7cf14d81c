//! How the caller finds the replicas: told at once, or by a DNS that answers after a while, in any order, or not well.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use outrider::{
    discovery::{
        Source, Sources,
        dns::{DnsSource, Failure, Look, Looking, Lookup, Part},
        programmable::Programmable,
    },
    model::{ClusterName, ClusterSettings, EndpointSettings, cluster::EndpointSource, dns::DnsSettings},
};

/// Slowest answer, in milliseconds.
const MAX_ANSWER_MS: u64 = 30;
/// How long a question stays without answer where there will be none.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The TTL of every answer; the caller's `max_ttl`.
pub(super) const TTL: Duration = Duration::from_millis(300);
/// Most changes of what the DNS says.
const MAX_CHANGES: usize = 6;

/// What the DNS says when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Says {
    /// What is so.
    #[default]
    Truth,
    /// Nothing at all.
    Silence,
    /// That it cannot tell.
    Failure,
    /// That there is no such name, which is not so.
    NoSuchName,
    /// One family of addresses, and nothing about the other.
    Half,
}

/// What the DNS says from some time on.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameChange {
    /// When, from the start of the simulation.
    pub(super) at: Duration,
    /// What.
    pub(super) says: Says,
}

impl fmt::Display for NameChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the DNS says {:?}", self.says)
    }
}

/// Some changes between `from` and `until`, in order of time, and the truth at the end.
pub(super) fn plan(rng: &mut fastrand::Rng, from: Duration, until: Duration) -> Vec<NameChange> {
    let (start, end) = (from.as_millis() as u64, until.as_millis() as u64);
    let mut times: Vec<u64> = (0..rng.usize(1..=MAX_CHANGES)).map(|_| rng.u64(start..end)).collect();
    times.sort_unstable();
    let any = |rng: &mut fastrand::Rng| match rng.u32(0..5) {
        0 => Says::Truth,
        1 => Says::Silence,
        2 => Says::Failure,
        3 => Says::NoSuchName,
        _ => Says::Half,
    };
    let change = |at| NameChange { at: Duration::from_millis(at), says: any(rng) };
    let last = NameChange { at: until, says: Says::Truth };
    times.into_iter().map(change).chain([last]).collect()
}

/// How all hosts find endpoints. Clones share what is known.
#[derive(Clone, Default)]
pub(super) struct Names {
    told: Programmable,
    dns: Arc<Mutex<Dns>>,
}

#[derive(Default)]
struct Dns {
    replicas: Vec<SocketAddr>,
    says: Says,
    rng: fastrand::Rng,
}

impl Names {
    /// Names whose DNS takes its time by `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let dns = Dns { rng: fastrand::Rng::with_seed(seed), ..Dns::default() };
        Self { told: Programmable::new(), dns: Arc::new(Mutex::new(dns)) }
    }

    /// These are the replicas.
    pub(super) fn set(&self, cluster: &ClusterName, endpoints: &[EndpointSettings]) {
        self.told.set(cluster, endpoints);
        self.dns.lock().unwrap().replicas = endpoints.iter().map(|endpoint| endpoint.address).collect();
    }

    /// From now on the DNS answers so.
    pub(super) fn set_says(&self, says: Says) {
        self.dns.lock().unwrap().says = says;
    }
}

impl Sources for Names {
    fn source(&self, cluster: &ClusterSettings) -> Box<dyn Source> {
        match &cluster.source {
            EndpointSource::Dns(settings) => {
                Box::new(DnsSource::new(settings.clone(), Arc::new(self.clone())))
            }
            EndpointSource::Static(_) | EndpointSource::File { .. } | EndpointSource::Controller(_) => {
                self.told.source(cluster)
            }
        }
    }
}

impl Lookup for Names {
    fn look<'a>(&'a self, _settings: &'a DnsSettings) -> Looking<'a> {
        let (says, latency, replicas) = {
            let mut dns = self.dns.lock().unwrap();
            let latency = Duration::from_millis(dns.rng.u64(1..=MAX_ANSWER_MS));
            // As servers do: in another order every time, some twice.
            let mut replicas = dns.replicas.clone();
            replicas.extend(dns.replicas.first().copied());
            dns.rng.shuffle(&mut replicas);
            (dns.says, latency, replicas)
        };
        Box::pin(async move {
            tokio::time::sleep(if says == Says::Silence { TIMEOUT } else { latency }).await;
            let part = |question: &str, answer| Part { question: question.to_owned(), answer };
            let (v4, v6) = match says {
                // A cluster without endpoints is a name without records.
                Says::Truth if replicas.is_empty() => (Err(Failure::NoData), Err(Failure::NoData)),
                Says::Truth => (Ok(replicas), Err(Failure::NoData)),
                Says::Half if replicas.is_empty() => (Err(Failure::NoData), Err(Failure::Timeout)),
                Says::Half => (Ok(replicas), Err(Failure::Timeout)),
                Says::Silence => (Err(Failure::Timeout), Err(Failure::Timeout)),
                Says::Failure => (Err(Failure::Refused("Server Failure".to_owned())), Err(Failure::NoData)),
                Says::NoSuchName => (Err(Failure::NoSuchName), Err(Failure::NoSuchName)),
            };
            Look { parts: vec![part("orders A", v4), part("orders AAAA", v6)], ttl: Some(TTL), dropped: 0 }
        })
    }
}
