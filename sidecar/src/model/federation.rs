//! Other trust domains whose workloads may be peers, and where their roots come from (SPIFFE Federation).
//!
//! Each domain has a bundle of its own, which judges the IDs of that domain and no others (`outrider_certs::verify`).

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use outrider_certs::{SpiffeId, TrustDomain};

use super::{status::Progress, transport::Roots};

/// Another trust domain, as the configuration has it. At least one of `endpoint` and `bundle_file` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedDomain {
    /// Whose bundle it is; never our own.
    pub trust_domain: TrustDomain,
    /// Who publishes it.
    pub endpoint: Option<BundleEndpoint>,
    /// A file with it, JWKS or PEM, which is watched. Beside an endpoint it is what is held until the endpoint has answered,
    /// and again whenever somebody changes it.
    pub bundle_file: Option<PathBuf>,
}

impl FederatedDomain {
    /// Where its bundle comes from, in one line.
    #[must_use]
    pub fn source(&self) -> String {
        match (&self.endpoint, &self.bundle_file) {
            (Some(endpoint), _) => endpoint.to_string(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => "nowhere".to_owned(),
        }
    }
}

/// A SPIFFE bundle endpoint (SPIFFE Federation §5), and how its server is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// Where it is.
    pub url: BundleUrl,
    /// How its server is authenticated.
    pub profile: Profile,
}

/// Endpoint profiles (SPIFFE Federation §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `https_web`: by the name in the URL, which these roots vouch for.
    Web(Roots),
    /// `https_spiffe`: by this SPIFFE ID, which the newest bundle of its trust domain vouches for.
    Spiffe(SpiffeId),
}

impl Profile {
    /// The word for it in the configuration and in dumps.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Web(_) => "https_web",
            Self::Spiffe(_) => "https_spiffe",
        }
    }
}

/// An `https://` URL, without user and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleUrl {
    /// A name in lower case, or an address; IPv6 without its brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// With its slash, and with its query if there is one.
    pub path: Box<str>,
}

impl BundleUrl {
    /// `host:port`, IPv6 in brackets.
    #[must_use]
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// What stands in `Host`: without the port where it is that of the scheme (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        let address = self.address();
        if self.port == 443 { address.trim_end_matches(":443").to_owned() } else { address }
    }
}

impl fmt::Display for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.path)
    }
}

impl fmt::Display for BundleEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.profile {
            Profile::Web(_) => write!(f, "{} (https_web)", self.url),
            Profile::Spiffe(id) => write!(f, "{} (https_spiffe, {id})", self.url),
        }
    }
}

/// How it goes with each federated domain.
#[derive(Debug, Default)]
pub struct FederationStatus(Mutex<BTreeMap<TrustDomain, Arc<DomainStatus>>>);

/// How it goes with one. Outlives reloads as long as the domain is listed.
#[derive(Debug, Default)]
pub struct DomainStatus {
    /// Looks at its endpoint, or at its file where there is no endpoint.
    pub refreshes: Progress,
    freshness: Mutex<Freshness>,
}

/// How fresh a bundle is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// When its source last confirmed it, also if that was before a restart.
    pub confirmed_at: Option<SystemTime>,
    /// After this age, a key that its publisher uses may be missing.
    pub stale_after: Duration,
}

impl Freshness {
    /// Time since it was confirmed; `None` if it never was.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        self.confirmed_at.map(|at| now.duration_since(at).unwrap_or_default())
    }

    /// Whether it was confirmed too long ago.
    #[must_use]
    pub fn is_stale(&self, now: SystemTime) -> bool {
        self.age(now).is_some_and(|age| age > self.stale_after)
    }
}

impl DomainStatus {
    /// Its bundle is the newest as of `at`.
    pub fn confirm(&self, freshness: Freshness) {
        *self.lock() = freshness;
    }

    /// How fresh its bundle is.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Freshness> {
        self.freshness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FederationStatus {
    /// That domain's, which is made if it is not there.
    pub fn of(&self, trust_domain: &TrustDomain) -> Arc<DomainStatus> {
        Arc::clone(self.lock().entry(trust_domain.clone()).or_default())
    }

    /// Forgets all but these.
    pub fn retain(&self, is_listed: impl Fn(&TrustDomain) -> bool) {
        self.lock().retain(|trust_domain, _| is_listed(trust_domain));
    }

    /// Every domain's, ordered by name.
    #[must_use]
    pub fn all(&self) -> Vec<(TrustDomain, Arc<DomainStatus>)> {
        self.lock().iter().map(|(name, status)| (name.clone(), Arc::clone(status))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TrustDomain, Arc<DomainStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_has_a_port_only_where_it_is_not_that_of_the_scheme() {
        let url = |host: &str, port| BundleUrl { host: host.into(), port, path: "/b?x=1".into() };
        assert_eq!(url("a.example", 443).to_string(), "https://a.example/b?x=1");
        assert_eq!(url("a.example", 8443).to_string(), "https://a.example:8443/b?x=1");
        assert_eq!(url("fd00::1", 443).authority(), "[fd00::1]");
        assert_eq!(url("fd00::1", 443).address(), "[fd00::1]:443");
    }

    #[test]
    fn a_bundle_is_stale_when_its_source_was_silent_too_long() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let fresh = |confirmed_at| Freshness { confirmed_at, stale_after: Duration::from_secs(10) };
        assert!(!fresh(Some(at(100))).is_stale(at(110)));
        assert!(fresh(Some(at(100))).is_stale(at(111)));
        assert!(!fresh(Some(at(100))).is_stale(at(50)), "a clock that went back");
        assert!(!fresh(None).is_stale(at(111)), "there is none");
        assert_eq!(fresh(None).age(at(1)), None);
    }
}
