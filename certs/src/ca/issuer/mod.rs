//! From a proof and a request to a certificate: the steps, in order.
//!
//! Blocks on the disk or on the API server, so the server runs it on a thread that may block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;

use super::csr::Csr;
use super::issue::{self, LeafContent, MAX_VALIDITY, ServerSan, SignedLeaf};
use super::log::{Entry, ProofKind};
use super::refusal::Refusal;
use super::review::{Pod, Reviewed};
use super::state::CaState;
use super::tokens::Grant;
use crate::certificate::sha256;
use crate::join_token::{Credential, TokenId, ca_spiffe_id};
use crate::spiffe_id::SpiffeId;
use crate::verify::Peer;

/// Lifetimes of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// For requests that name none.
    pub default: Duration,
    /// Shorter wishes get this.
    pub min: Duration,
    /// Longer wishes get this; never above [`MAX_VALIDITY`].
    pub max: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { default: day, min: Duration::from_secs(60), max: day }
    }
}

impl Validity {
    /// The lifetime a wish leads to.
    pub(super) fn of(self, wanted: Option<Duration>) -> Duration {
        let max = self.max.min(MAX_VALIDITY);
        wanted.unwrap_or(self.default).max(self.min).min(max)
    }
}

/// How the caller proves who it is.
#[derive(Debug)]
pub(super) enum Proof {
    Token(Credential),
    Svid(Peer),
    /// A service account's token, reviewed just now.
    Reviewed(Reviewed),
    /// Who runs the command line has the root's key anyway.
    Operator(SpiffeId),
}

/// A request for a certificate.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) proof: Proof,
    pub(super) csr_pem: String,
    pub(super) validity: Duration,
    pub(super) bundle_sequence: u64,
    /// Further names of some workloads.
    pub(super) names: Arc<NamesOf>,
}

/// DNS names and addresses that certificates of some IDs hold beside the ID,
/// by the operator's will.
pub type NamesOf = BTreeMap<SpiffeId, Vec<ServerSan>>;

/// A certificate that may leave the CA.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) id: SpiffeId,
    pub(super) leaf: CertificateDer<'static>,
    pub(super) serial: String,
    pub(super) not_after: SystemTime,
    pub(super) proof: ProofKind,
}

/// Whom a proof stands for, and the token to use up.
struct Proven {
    id: SpiffeId,
    kind: ProofKind,
    grant: Option<Grant>,
    pod: Option<Pod>,
}

/// Issues one certificate.
///
/// What can be refused is refused before the token is used up, so a damaged
/// request does not cost the workload its token. After that only the CA's own
/// faults are left.
pub(super) fn issue(state: &Arc<CaState>, wish: &Wish, now: SystemTime) -> Result<Issued, Refusal> {
    let proven = prove(state, &wish.proof, now)?;
    let csr = Csr::read(&wish.csr_pem)?;
    csr.check_name(&proven.id)?;
    if let Some(grant) = &proven.grant {
        state.tokens().use_up(grant)?;
    }
    let names = wish.names.get(&proven.id).map_or(&[][..], Vec::as_slice);
    let content = LeafContent { id: &proven.id, public_key: &csr.public_key, validity: wish.validity, names };
    let record = Record {
        kind: proven.kind,
        pod: proven.pod,
        token: proven.grant.as_ref().map(|grant| grant.id),
        key_sha256: csr.spki_sha256,
        bundle_sequence: wish.bundle_sequence,
    };
    let signed = sign_and_log(state, &content, &record, now)?;
    Ok(Issued {
        serial: signed.serial.to_string(),
        not_after: signed.not_after,
        leaf: signed.certificate,
        proof: proven.kind,
        id: proven.id,
    })
}

/// Signs the CA's own server certificate.
pub(super) fn issue_own<K: PublicKeyData>(
    state: &CaState,
    public_key: &K,
    names: &[ServerSan],
    validity: Duration,
    now: SystemTime,
) -> Result<SignedLeaf, Refusal> {
    let id = ca_spiffe_id(state.trust_domain());
    let record = Record {
        kind: ProofKind::CaItself,
        pod: None,
        token: None,
        key_sha256: sha256(&public_key.subject_public_key_info()),
        bundle_sequence: state.bundle().sequence(),
    };
    sign_and_log(state, &LeafContent { id: &id, public_key, validity, names }, &record, now)
}

fn prove(state: &CaState, proof: &Proof, now: SystemTime) -> Result<Proven, Refusal> {
    let of = |id: &SpiffeId, kind| Proven { id: id.clone(), kind, grant: None, pod: None };
    let proven = match proof {
        Proof::Token(credential) => {
            let grant = state.tokens().check(credential, now)?;
            Proven { grant: Some(grant.clone()), ..of(&grant.spiffe_id, ProofKind::JoinToken) }
        }
        Proof::Reviewed(reviewed) => {
            Proven { pod: reviewed.pod.clone(), ..of(&reviewed.id, ProofKind::ServiceAccount) }
        }
        // The handshake has checked it; it may have run out since.
        Proof::Svid(peer) if now > peer.not_after() => return Err(Refusal::SvidExpired(peer.id().clone())),
        Proof::Svid(peer) => of(peer.id(), ProofKind::Svid),
        Proof::Operator(id) => of(id, ProofKind::Operator),
    };
    check_id(state, &proven.id)?;
    Ok(proven)
}

/// Lets only IDs pass that this CA certifies.
pub(super) fn check_id(state: &CaState, id: &SpiffeId) -> Result<(), Refusal> {
    let expected = state.trust_domain();
    if id.trust_domain() != expected || !id.is_workload() {
        return Err(Refusal::OtherTrustDomain { id: id.clone(), expected: expected.clone() });
    }
    if *id == ca_spiffe_id(expected) {
        return Err(Refusal::Reserved(id.clone()));
    }
    Ok(())
}

/// What the log tells beside the certificate.
struct Record {
    kind: ProofKind,
    pod: Option<Pod>,
    token: Option<TokenId>,
    key_sha256: [u8; 32],
    bundle_sequence: u64,
}

fn sign_and_log<K: PublicKeyData>(
    state: &CaState,
    content: &LeafContent<'_, K>,
    record: &Record,
    now: SystemTime,
) -> Result<SignedLeaf, Refusal> {
    let signed = issue::leaf(state.signing_root(), content, now)?;
    let entry = Entry {
        time: issue::rfc3339(now),
        serial: signed.serial.to_string(),
        spiffe_id: content.id,
        proof: record.kind,
        token_id: record.token.map(|id| id.to_string()),
        pod: record.pod.as_ref(),
        not_after: issue::rfc3339(signed.not_after),
        key_sha256: hex(&record.key_sha256),
        bundle_sequence: record.bundle_sequence,
    };
    let log = state.log();
    log.append(&entry).map_err(|source| Refusal::Log { place: log.place().to_string(), source })?;
    Ok(signed)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes whatever is written to it");
        text
    })
}

#[cfg(test)]
mod tests;
