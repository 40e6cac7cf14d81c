//! What a cluster's endpoints are asked for in the DNS, and whom.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use outrider_certs::SpiffeId;

/// A name that is resolved for endpoints, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// The name, in ASCII. It is absolute if it ends in a dot, or if servers are configured; else the search list of
    /// `/etc/resolv.conf` applies.
    pub name: String,
    /// Which records are asked for.
    pub records: DnsRecords,
    /// Answers count for at least this long.
    pub min_ttl: Duration,
    /// Answers count for at most this long.
    pub max_ttl: Duration,
    /// Answers that there is nothing (no such name, no such records) empty the list after so long; `None`: never.
    pub empty_after: Option<Duration>,
    /// Who the endpoints must be.
    pub spiffe_ids: Arc<[SpiffeId]>,
    /// Who is asked.
    pub resolver: Arc<ResolverSettings>,
}

/// Which records give the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecords {
    /// Addresses of the name itself.
    Addresses {
        /// Of which kind.
        family: Family,
        /// Where the endpoints listen.
        port: u16,
    },
    /// SRV (RFC 2782): targets with their ports, and the addresses of the targets.
    Services,
}

/// A kind of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A and AAAA.
    Any,
    /// A.
    V4,
    /// AAAA.
    V6,
}

impl DnsRecords {
    /// The word for it in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Addresses { family: Family::Any, .. } => "any",
            Self::Addresses { family: Family::V4, .. } => "a",
            Self::Addresses { family: Family::V6, .. } => "aaaa",
            Self::Services => "srv",
        }
    }
}

/// Who is asked, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// Servers, in the order in which they are asked; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// For an answer of one server.
    pub timeout: Duration,
    /// Rounds over all servers.
    pub attempts: u32,
    /// How long the start of the process waits for the first answers.
    pub start_timeout: Duration,
    /// What the kernel's rules know our connections by, if not by our user: for questions over TCP.
    pub mark: Option<u32>,
}
