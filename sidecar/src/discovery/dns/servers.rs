//! Who is asked: DNS servers, one after the other, and the search list.

use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{
        DnsError, NetError,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::{
        op::{DnsRequestOptions, Message, Query, ResponseCode},
        rr::{Name, RecordType},
    },
    system_conf,
};

use super::{Failure, runtime::Runtime};
use crate::model::dns::ResolverSettings;

/// Where the system says whom to ask.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Longest file that is read; a real one has some hundred bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Servers of the system's file that are asked, as resolv.conf(5): MAXNS.
const MAX_SYSTEM_SERVERS: usize = 3;
/// Domains of the system's search list that are tried, as Kubernetes allows.
const MAX_SEARCH: usize = 32;

/// Whom to ask, and under which names.
pub(super) struct Servers {
    servers: Vec<Server>,
    search: Vec<Name>,
    ndots: usize,
}

/// One server. Each has a pool of its own: with several in one, the first bad answer would end the question.
struct Server {
    pool: NameServerPool<Runtime>,
}

impl Servers {
    fn new(
        servers: &[SocketAddr],
        settings: &ResolverSettings,
        search: Vec<Name>,
        ndots: usize,
    ) -> Result<Self, Failure> {
        let servers: Result<_, _> = servers.iter().map(|address| Server::new(*address, settings)).collect();
        Ok(Self { servers: servers?, search, ndots })
    }

    /// The absolute names that a name may mean, in the order in which they are asked for (resolv.conf(5)).
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, Failure> {
        let bad = |error| Failure::Other(format!("the name cannot be asked for: {error}"));
        let relative = Name::from_ascii(name).map_err(bad)?;
        if relative.is_fqdn() {
            return Ok(vec![relative]);
        }
        let mut absolute = relative.clone();
        absolute.set_fqdn(true);
        // Combinations that would be too long are no names.
        let mut names: Vec<Name> =
            self.search.iter().filter_map(|domain| relative.clone().append_domain(domain).ok()).collect();
        let dots = name.matches('.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, absolute);
        Ok(names)
    }

    /// Asks the servers one after the other, round after round, until one answers; that there is nothing is an answer.
    pub(super) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        settings: &ResolverSettings,
    ) -> Result<Message, Failure> {
        let mut newest = Failure::Timeout;
        for _attempt in 0..settings.attempts {
            for server in &self.servers {
                match server.ask(name, kind, settings.timeout).await {
                    Err(failure) if !failure.is_negative() => newest = failure,
                    answer => return answer,
                }
            }
        }
        Err(newest)
    }
}

impl Server {
    fn new(address: SocketAddr, settings: &ResolverSettings) -> Result<Self, Failure> {
        let mut options = ResolverOpts::default();
        options.timeout = settings.timeout;
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        let server = NameServerConfig::new(address.ip(), true, connections.into());
        let tls = TlsConfig::new().map_err(|error| Failure::Other(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options, tls));
        Ok(Self { pool: NameServerPool::from_config([server], context, Runtime::new(settings.mark)) })
    }

    /// One question: over UDP, and over TCP if the answer is too long for that.
    async fn ask(&self, name: &Name, kind: RecordType, timeout: Duration) -> Result<Message, Failure> {
        let query = Query::query(name.clone(), kind);
        let answer = self.pool.lookup(query, DnsRequestOptions::default()).first_answer();
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_message()),
            Ok(Err(error)) => Err(failure(error)),
            Err(_elapsed) => Err(Failure::Timeout),
        }
    }
}

fn failure(error: NetError) -> Failure {
    if let NetError::Dns(DnsError::ResponseCode(code)) = error {
        return Failure::Refused(code.to_string());
    }
    if let NetError::Timeout = error {
        return Failure::Timeout;
    }
    let NetError::Dns(DnsError::NoRecordsFound(nothing)) = error else {
        return Failure::Other(error.to_string());
    };
    if nothing.response_code == ResponseCode::NXDomain {
        Failure::NoSuchName
    } else if nothing.ns.is_some() && nothing.soa.is_none() {
        // RFC 2308 §2.2: that is a referral, which a resolver should have followed, and says nothing of the name.
        Failure::Other("the DNS server sent us on to others".to_owned())
    } else {
        Failure::NoData
    }
}

/// Where the servers are found: in the settings, or in a file that is looked at whenever something is asked.
pub(super) struct Directory {
    file: PathBuf,
    settings: Arc<ResolverSettings>,
    known: Mutex<Option<Known>>,
}

struct Known {
    /// The file's text; empty if the settings name servers.
    text: String,
    servers: Arc<Servers>,
}

impl Directory {
    pub(super) fn new(settings: Arc<ResolverSettings>, file: PathBuf) -> Self {
        Self { file, settings, known: Mutex::new(None) }
    }

    /// The servers as of now. A file that has become bad changes nothing.
    pub(super) fn servers(&self) -> Result<Arc<Servers>, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.look(known.as_ref()), known.as_ref()) {
            (Ok(None), Some(same)) | (Err(_), Some(same)) => Ok(Arc::clone(&same.servers)),
            (Ok(Some(new)), _) => Ok(Arc::clone(&known.insert(new).servers)),
            (Ok(None), None) => Err(Failure::Other("no DNS server is known".to_owned())),
            (Err(failure), None) => Err(failure),
        }
    }

    /// `None` if nothing changed.
    fn look(&self, known: Option<&Known>) -> Result<Option<Known>, Failure> {
        let listed = &self.settings.servers;
        let text = if listed.is_empty() { self.read()? } else { String::new() };
        if known.is_some_and(|known| known.text == text) {
            return Ok(None);
        }
        let servers = if listed.is_empty() { self.parse(&text)? } else { self.listed()? };
        Ok(Some(Known { text, servers: Arc::new(servers) }))
    }

    /// Servers of the settings; names are absolute then.
    fn listed(&self) -> Result<Servers, Failure> {
        Servers::new(&self.settings.servers, &self.settings, Vec::new(), 0)
    }

    fn read(&self) -> Result<String, Failure> {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            File::open(&self.file)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error| Failure::Other(format!("cannot read {}: {error}", self.file.display())))
    }

    fn parse(&self, text: &str) -> Result<Servers, Failure> {
        let bad = |error| Failure::Other(format!("{}: {error}", self.file.display()));
        let (config, options) = system_conf::parse_resolv_conf(text).map_err(bad)?;
        let servers: Vec<SocketAddr> = config
            .name_servers()
            .iter()
            .take(MAX_SYSTEM_SERVERS)
            .map(|server| SocketAddr::new(server.ip, 53))
            .collect();
        let search = config.search().iter().take(MAX_SEARCH).cloned().collect();
        Servers::new(&servers, &self.settings, search, options.ndots)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn directory(file: &Path, servers: &[SocketAddr]) -> Directory {
        let settings = ResolverSettings {
            servers: servers.to_vec(),
            timeout: Duration::from_secs(1),
            attempts: 1,
            start_timeout: Duration::ZERO,
            mark: None,
        };
        Directory::new(Arc::new(settings), file.to_path_buf())
    }

    fn candidates(directory: &Directory, name: &str) -> Vec<String> {
        let servers = directory.servers().unwrap();
        servers.candidates(name).unwrap().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn the_systems_search_list_counts_for_names_without_a_dot_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        fs::write(&file, "nameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2\n").unwrap();
        let directory = directory(&file, &[]);
        assert_eq!(candidates(&directory, "orders."), ["orders."]);
        assert_eq!(candidates(&directory, "orders"), ["orders.a.test.", "orders.b.test.", "orders."]);
        assert_eq!(candidates(&directory, "x.orders"), ["x.orders.a.test.", "x.orders.b.test.", "x.orders."]);
        assert_eq!(
            candidates(&directory, "x.y.orders"),
            ["x.y.orders.", "x.y.orders.a.test.", "x.y.orders.b.test."]
        );
    }

    #[tokio::test]
    async fn the_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        fs::write(&file, "nameserver 10.0.0.1\nnameserver ::1\n").unwrap();
        let directory = directory(&file, &[]);
        let first = directory.servers().unwrap();
        assert_eq!(first.servers.len(), 2);
        assert!(
            Arc::ptr_eq(&first, &directory.servers().unwrap()),
            "what has not changed keeps its connections"
        );
        let lines = (1..=5).map(|last| format!("nameserver 10.0.0.{last}\n")).collect::<String>();
        fs::write(&file, lines).unwrap();
        let second = directory.servers().unwrap();
        assert_eq!(second.servers.len(), MAX_SYSTEM_SERVERS);
        fs::write(&file, "search nobody\n").unwrap();
        assert!(Arc::ptr_eq(&second, &directory.servers().unwrap()));
        fs::remove_file(&file).unwrap();
        assert!(Arc::ptr_eq(&second, &directory.servers().unwrap()));
    }

    #[tokio::test]
    async fn servers_of_the_settings_stand_in_for_the_file_and_make_names_absolute() {
        let directory = directory(Path::new("/none"), &["10.0.0.1:5353".parse().unwrap()]);
        assert_eq!(candidates(&directory, "orders"), ["orders."]);
        assert!(Arc::ptr_eq(&directory.servers().unwrap(), &directory.servers().unwrap()));
    }
}
