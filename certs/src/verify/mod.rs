//! Is this certificate chain one of ours, and whose?
//!
//! Implements X509-SVID §5. [`peer`] is the only way to a [`Peer`] that starts
//! from bytes off the network; the TLS verifiers of this crate call it too.
//!
//! # Invariants
//! - The chain ends in a root of the bundle of the ID's *own* trust domain;
//!   another domain's roots are never tried.
//! - Leaf, intermediates and root are all valid at the time handed in.
//! - URI name constraints in intermediates make the chain fail (webpki does
//!   not implement them and refuses); the trust domain is checked here.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{Leaf, LeafError};
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::svid::MAX_CHAIN;
use crate::trust_bundle::{TrustBundle, TrustBundles};

/// On which side of the TLS connection the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer opened the connection; its certificate must do for clients.
    Client,
    /// The peer accepted the connection; its certificate must do for servers.
    Server,
}

/// Why a peer's chain is refused. Each `Display` says it to an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No certificate at all.
    #[error("the peer sent no certificate")]
    Empty,
    /// More certificates than [`MAX_CHAIN`].
    #[error("the peer sent more than {MAX_CHAIN} certificates")]
    ChainTooLong,
    /// The leaf breaks a rule of X509-SVID.
    #[error("the peer's certificate cannot be used: {0}")]
    Leaf(#[from] LeafError),
    /// Its extended key usage does not name the peer's side (X509-SVID §4.4).
    #[error("the certificate of {id} is not for use by a TLS {}", side(*.role))]
    Purpose {
        /// Whose certificate it is.
        id: SpiffeId,
        /// The side it would have to be for.
        role: Role,
    },
    /// No bundle is held for the ID's trust domain.
    #[error("{id} is of a trust domain that is not trusted here; trusted: {trusted}")]
    UnknownTrustDomain {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// The domains that are trusted, as text.
        trusted: String,
    },
    /// The domain's bundle has no root that is valid at this time.
    #[error("no root of the trust domain {trust_domain} is valid at this time; is the bundle current?")]
    NoValidRoot {
        /// The peer's trust domain.
        trust_domain: TrustDomain,
    },
    /// A certificate of the chain has run out.
    #[error("the certificate of {id} expired {} ago{}", ago(.now, .not_after), cause(.leaf))]
    Expired {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// When it ran out.
        not_after: SystemTime,
        /// The time it was held against.
        now: SystemTime,
        /// Whether it is the peer's own or an intermediate.
        leaf: bool,
    },
    /// A certificate of the chain is not valid yet.
    #[error("the certificate of {id} is valid only in {}{}; is a clock wrong?", ago(.not_before, .now), cause(.leaf))]
    NotValidYet {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// When it becomes valid.
        not_before: SystemTime,
        /// The time it was held against.
        now: SystemTime,
        /// Whether it is the peer's own or an intermediate.
        leaf: bool,
    },
    /// No path leads from the leaf to a root of the bundle.
    #[error("the certificate of {id} was not issued by a root of its trust domain known here")]
    UnknownIssuer {
        /// Who the peer claims to be.
        id: SpiffeId,
    },
    /// Path building failed in another way.
    #[error("the chain of {id} is not valid: {source}")]
    Chain {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// What path building found.
        source: webpki::Error,
    },
}

/// The other end of a TLS connection, after its SVID was verified.
///
/// Only this module makes one, so holding a `Peer` means: the chain ends in
/// the trust bundle of the ID's own trust domain, the leaf was valid when it
/// was verified, and it names exactly one SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    id: SpiffeId,
    not_after: SystemTime,
}

impl Peer {
    /// Who it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When its leaf runs out: from then on it proves nothing in a new
    /// handshake. What that means for a connection that is open is its owner's
    /// rule; sidecars keep theirs, for only a root that is taken out cuts them.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Verifies a certificate chain (leaf first) and returns who presented it.
///
/// `role` is the *peer's* side: that its certificate may be used there is
/// part of the rules. The order of the intermediates does not matter; roots
/// among them are ignored. Cost: one signature check per certificate.
///
/// # Errors
/// One variant per cause, see [`Error`]. When several things are wrong, a
/// leaf that is no SVID is told first, then the trust domain, then the chain.
pub fn peer(
    chain: &[CertificateDer<'_>],
    bundles: &TrustBundles,
    role: Role,
    now: SystemTime,
) -> Result<Peer, Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::Empty)?;
    presented(leaf, intermediates, &Trust { bundles, role, now })
}

/// Reads who a finished handshake's peer is.
///
/// For chains that a verifier of this crate
/// ([`SpiffeServerVerifier`](crate::rustls_verify::SpiffeServerVerifier),
/// [`SpiffeClientVerifier`](crate::rustls_verify::SpiffeClientVerifier) or
/// [`PinnedRootVerifier`](crate::rustls_verify::PinnedRootVerifier)) has let
/// through in the same handshake, not in a resumed one: nothing but the leaf
/// is looked at, and no signature is checked. With any other chain the result
/// proves nothing.
///
/// # Errors
/// When the chain is empty or the leaf is no SVID.
pub fn peer_of_verified(chain: &[CertificateDer<'_>]) -> Result<Peer, Error> {
    let leaf = Leaf::read(chain.first().ok_or(Error::Empty)?)?;
    Ok(Peer { id: leaf.id, not_after: leaf.validity.not_after })
}

/// What a chain is held against.
pub(crate) struct Trust<'a> {
    pub(crate) bundles: &'a TrustBundles,
    pub(crate) role: Role,
    pub(crate) now: SystemTime,
}

pub(crate) fn presented(
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust<'_>,
) -> Result<Peer, Error> {
    if intermediates.len() >= MAX_CHAIN {
        return Err(Error::ChainTooLong);
    }
    let leaf = Leaf::read(leaf_der)?;
    let fits = match trust.role {
        Role::Client => leaf.for_client,
        Role::Server => leaf.for_server,
    };
    if !fits {
        return Err(Error::Purpose { id: leaf.id, role: trust.role });
    }
    let bundle = trust.bundles.get(leaf.id.trust_domain()).ok_or_else(|| unknown_domain(&leaf, trust))?;
    check_leaf_validity(&leaf, trust.now)?;
    build_path(leaf_der, intermediates, bundle, trust).map_err(|e| chain_error(e, &leaf, trust))?;
    Ok(Peer { id: leaf.id, not_after: leaf.validity.not_after })
}

fn unknown_domain(leaf: &Leaf, trust: &Trust<'_>) -> Error {
    let names: Vec<_> = trust.bundles.iter().map(|bundle| bundle.trust_domain().as_str()).collect();
    let trusted = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Error::UnknownTrustDomain { id: leaf.id.clone(), trusted }
}

fn check_leaf_validity(leaf: &Leaf, now: SystemTime) -> Result<(), Error> {
    let (id, validity) = (leaf.id.clone(), leaf.validity);
    if now > validity.not_after {
        return Err(Error::Expired { id, not_after: validity.not_after, now, leaf: true });
    }
    if now < validity.not_before {
        return Err(Error::NotValidYet { id, not_before: validity.not_before, now, leaf: true });
    }
    Ok(())
}

/// What path building can say beside "yes".
enum PathError {
    NoValidRoot,
    Webpki(webpki::Error),
}

fn build_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    trust: &Trust<'_>,
) -> Result<(), PathError> {
    let anchors = bundle.anchors_at(trust.now);
    if anchors.is_empty() {
        return Err(PathError::NoValidRoot);
    }
    let usage = match trust.role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    };
    let since_epoch = trust.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = UnixTime::since_unix_epoch(since_epoch);
    EndEntityCert::try_from(leaf)
        .and_then(|certificate| {
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            certificate
                .verify_for_usage(algorithms, &anchors, intermediates, time, usage, None, None)
                .map(drop)
        })
        .map_err(PathError::Webpki)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "webpki's enum grows; all its other causes are one of ours"
)]
fn chain_error(error: PathError, leaf: &Leaf, trust: &Trust<'_>) -> Error {
    let id = leaf.id.clone();
    let after_epoch = |time: UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    let error = match error {
        PathError::NoValidRoot => {
            return Error::NoValidRoot { trust_domain: id.trust_domain().clone() };
        }
        PathError::Webpki(error) => error,
    };
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            Error::Expired { id, not_after: after_epoch(not_after), now: trust.now, leaf: false }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Error::NotValidYet { id, not_before: after_epoch(not_before), now: trust.now, leaf: false }
        }
        // A root with the same name but another key gives the latter.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            Error::UnknownIssuer { id }
        }
        source => Error::Chain { id, source },
    }
}

fn side(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

fn cause(leaf: &bool) -> &'static str {
    if *leaf { "" } else { " (not its own but an intermediate of its chain)" }
}

/// The time from one moment to a later one, in whole seconds.
fn ago(later: &SystemTime, earlier: &SystemTime) -> String {
    let seconds = later.duration_since(*earlier).map_or(0, |time| time.as_secs());
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests;
