//! Asks everything that it takes to know a cluster's endpoints.

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future, future::Either, stream};
use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData, RecordType},
};
use tokio::sync::Semaphore;

use super::{
    Failure, Look, Looking, Lookup, Part,
    answer::{self, MAX_ALIASES, Reading, Target},
    servers::{Directory, RESOLV_CONF, Servers},
};
use crate::model::dns::{DnsRecords, DnsSettings, Family, ResolverSettings};

/// Questions under way, over all clusters: each takes a socket. More wait.
const MAX_QUESTIONS: usize = 64;
/// Targets of one service that are asked for at a time.
const MAX_TARGETS_AT_ONCE: usize = 8;
/// How long the other family of addresses may take once one has given some: servers that leave AAAA unanswered must
/// not put off IPv4.
const OTHER_FAMILY_WAIT: Duration = Duration::from_secs(2);

/// Asks DNS servers over UDP and TCP.
pub struct Resolver {
    settings: Arc<ResolverSettings>,
    directory: Directory,
    permits: Semaphore,
}

impl Resolver {
    /// Asks whom `settings` say; no servers there: whom `/etc/resolv.conf` says.
    #[must_use]
    pub fn new(settings: Arc<ResolverSettings>) -> Self {
        Self::with_file(settings, PathBuf::from(RESOLV_CONF))
    }

    /// The same with another file in place of `/etc/resolv.conf`.
    #[must_use]
    pub fn with_file(settings: Arc<ResolverSettings>, file: PathBuf) -> Self {
        let directory = Directory::new(Arc::clone(&settings), file);
        Self { settings, directory, permits: Semaphore::new(MAX_QUESTIONS) }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Lookup for Resolver {
    fn look<'a>(&'a self, settings: &'a DnsSettings) -> Looking<'a> {
        Box::pin(async move {
            let asked = match self.directory.servers() {
                Ok(servers) => Asker { resolver: self, servers: &servers }.look(settings).await,
                Err(failure) => Err(failure),
            };
            // Parts with nothing good among them need no name: they are never remembered.
            asked.unwrap_or_else(Look::failed)
        })
    }
}

/// One resolver for all clusters that ask the same servers in the same way.
#[derive(Debug, Default)]
pub struct Resolvers {
    newest: Mutex<Option<Arc<Resolver>>>,
}

impl Resolvers {
    /// The resolver for these settings. A configuration has one kind of them; after a change the old resolver lives as
    /// long as a source that asks it.
    #[must_use]
    pub fn of(&self, settings: &Arc<ResolverSettings>) -> Arc<Resolver> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let same = newest.take().filter(|resolver| resolver.settings == *settings);
        let resolver = same.unwrap_or_else(|| Arc::new(Resolver::new(Arc::clone(settings))));
        Arc::clone(newest.insert(resolver))
    }
}

impl Part {
    fn failed(question: &str, failure: Failure) -> Self {
        Self { question: question.to_owned(), answer: Err(failure) }
    }
}

/// Records at the end of a chain of aliases.
struct Records {
    data: Vec<RData>,
    /// The smallest TTL on the way.
    ttl: u32,
    /// The answer that they stood in.
    message: Message,
}

impl Look {
    fn failed(failure: Failure) -> Self {
        Self { parts: vec![Part::failed("", failure)], ttl: None, dropped: 0 }
    }

    fn of(parts: Vec<Asked>) -> Self {
        let ttl = parts.iter().filter_map(|asked| asked.ttl).min();
        Self {
            ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())),
            dropped: parts.iter().map(|asked| asked.dropped).sum(),
            parts: parts.into_iter().map(|asked| asked.part).collect(),
        }
    }
}

/// One part, and what else is known about it.
struct Asked {
    part: Part,
    /// The smallest TTL on the way to it.
    ttl: Option<u32>,
    /// Addresses left out.
    dropped: usize,
}

impl Asked {
    fn failed(question: &str, failure: Failure) -> Self {
        Self { part: Part::failed(question, failure), ttl: None, dropped: 0 }
    }

    /// A part of these addresses; without a single usable one it failed.
    fn found(question: String, data: &[RData], ttl: u32, port: u16) -> Self {
        let (addresses, dropped) = answer::addresses(data);
        if addresses.is_empty() {
            let failure = Failure::Other(format!("none of {dropped} addresses can be an endpoint's"));
            return Self { dropped, ..Self::failed(&question, failure) };
        }
        let answer = Ok(answer::endpoints(addresses, port));
        Self { part: Part { question, answer }, ttl: Some(ttl), dropped }
    }
}

/// One look: servers do not change under it.
struct Asker<'a> {
    resolver: &'a Resolver,
    servers: &'a Servers,
}

impl Asker<'_> {
    /// Goes through the names that the configured one may mean: one that is not there leads to the next, a failure
    /// does not, because the next would be somebody else.
    async fn look(&self, settings: &DnsSettings) -> Result<Look, Failure> {
        let mut look = Err(Failure::NoSuchName);
        for name in self.servers.candidates(&settings.name)? {
            let parts = match settings.records {
                DnsRecords::Addresses { family, port } => self.addresses(&name, family, port).await,
                DnsRecords::Services => self.services(&name).await,
            };
            let is_negative = |asked: &Asked| asked.part.answer.as_ref().is_err_and(Failure::is_negative);
            let is_nothing = parts.iter().all(is_negative);
            look = Ok(Look::of(parts));
            if !is_nothing {
                break;
            }
        }
        look
    }

    /// The addresses of a name, one part for each family.
    async fn addresses(&self, name: &Name, family: Family, port: u16) -> Vec<Asked> {
        let v4 = self.family(name, RecordType::A, port);
        let v6 = self.family(name, RecordType::AAAA, port);
        match family {
            Family::V4 => vec![v4.await],
            Family::V6 => vec![v6.await],
            Family::Any => match future::select(Box::pin(v4), Box::pin(v6)).await {
                Either::Left((first, other)) => self.both(first, other, name, (RecordType::AAAA, port)).await,
                Either::Right((first, other)) => self.both(first, other, name, (RecordType::A, port)).await,
            },
        }
    }

    /// The first family, and the other if it does not take much longer.
    async fn both(
        &self,
        first: Asked,
        other: impl Future<Output = Asked>,
        name: &Name,
        (kind, port): (RecordType, u16),
    ) -> Vec<Asked> {
        let other = if first.part.answer.is_ok() {
            let late = || Asked::failed(&question(name, kind, port), Failure::Timeout);
            tokio::time::timeout(OTHER_FAMILY_WAIT, other).await.unwrap_or_else(|_elapsed| late())
        } else {
            other.await
        };
        vec![first, other]
    }

    async fn family(&self, name: &Name, kind: RecordType, port: u16) -> Asked {
        let question = question(name, kind, port);
        match self.records(name.clone(), kind).await {
            Ok(records) => Asked::found(question, &records.data, records.ttl, port),
            Err(failure) => Asked::failed(&question, failure),
        }
    }

    /// The targets of a service, a part or two for each. Without the list of targets there is one part, that failed.
    async fn services(&self, name: &Name) -> Vec<Asked> {
        let found = match self.records(name.clone(), RecordType::SRV).await {
            Ok(records) => answer::targets(&records.data).map(|targets| (targets, records)),
            Err(failure) => Err(failure),
        };
        let (targets, records) = match found {
            Ok(found) => found,
            Err(failure) => return vec![Asked::failed("", failure)],
        };
        let asked: Vec<_> = targets.iter().map(|target| self.target(target, &records)).collect();
        let parts: Vec<Vec<Asked>> = stream::iter(asked).buffered(MAX_TARGETS_AT_ONCE).collect().await;
        let within = |asked: Asked| Asked { ttl: asked.ttl.map(|ttl| ttl.min(records.ttl)), ..asked };
        parts.into_iter().flatten().map(within).collect()
    }

    /// The addresses of a target: as they came along with the list of targets, or asked for.
    async fn target(&self, target: &Target, list: &Records) -> Vec<Asked> {
        match answer::additional(&list.message, &target.name) {
            Some((data, ttl)) => {
                let question = format!("{} {} with SRV", target.name, target.port);
                vec![Asked::found(question, &data, ttl, target.port)]
            }
            None => self.addresses(&target.name, Family::Any, target.port).await,
        }
    }

    /// Records of one kind, along aliases that the server did not follow itself.
    async fn records(&self, mut name: Name, kind: RecordType) -> Result<Records, Failure> {
        let (mut ttl, mut aliases) = (u32::MAX, 0);
        loop {
            let message = {
                let _permit = self.resolver.permits.acquire().await;
                self.servers.ask(&name, kind, &self.resolver.settings).await?
            };
            match answer::read(&message, &name, kind)? {
                Reading::Found { data, ttl: last } => {
                    return Ok(Records { data, ttl: ttl.min(last), message });
                }
                Reading::Alias { to, ttl: of_alias, count } => {
                    aliases += count;
                    ttl = ttl.min(of_alias);
                    name = to;
                }
            }
            if aliases > MAX_ALIASES {
                return Err(Failure::Other(format!("more than {MAX_ALIASES} aliases (CNAME) in a row")));
            }
        }
    }
}

fn question(name: &Name, kind: RecordType, port: u16) -> String {
    format!("{name} {kind} {port}")
}
