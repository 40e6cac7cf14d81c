//! What is not a list: `service` to `limits`. All but the last two are fixed for the life of the process.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use outrider_certs::TrustDomain;
use serde_saphyr::Spanned;

use crate::{
    config::{
        defaults, raw,
        units::Bytes,
        value::{Text, address, host_and_port, name, path, quantity, quantity_or_none, required, words},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        settings::{
            AdminSettings, Bootstrap, CaProof, DrainSettings, IdentitySource, Limits, MemoryBudget,
            TlsSettings,
        },
    },
};

/// Longest path of a Unix socket, in bytes: what `sockaddr_un` holds on Linux (108), less what the admin server
/// appends while it takes the name over from an older process.
const MAX_SOCKET_BYTES: usize = 96;

/// `None` if something without a default is missing or faulty; there is a fault then.
pub(super) fn bootstrap(file: &raw::File, folder: &Path, faults: &mut Faults) -> Option<Bootstrap> {
    let root = Place::root();
    let service = root.key("service");
    let service = required(file.service.as_ref(), &service, "name the own service", faults)
        .map(|text| name(text, &service, faults));
    let trust_domain = trust_domain(file, faults);
    let identity = identity(file.identity.as_ref(), folder, faults);
    let state_dir = file.state_dir.as_ref().map_or_else(
        || defaults::STATE_DIR.into(),
        |text| path(text, folder, &root.key("state_dir"), faults),
    );
    Some(Bootstrap {
        workers: workers(file, faults),
        has_auto_workers: file.workers.as_ref().is_some_and(is_auto),
        state_dir,
        tls: tls(file.tls.as_ref(), faults),
        admin: admin(file.admin.as_ref(), folder, faults),
        intercept: None,
        controller: None,
        service: service?,
        trust_domain: trust_domain?,
        identity: identity?,
    })
}

fn trust_domain(file: &raw::File, faults: &mut Faults) -> Option<TrustDomain> {
    parse_trust_domain(file.trust_domain.as_ref(), &Place::root(), faults)
}

/// The key `trust_domain` of a section, which is required.
pub(super) fn parse_trust_domain(
    text: Text<'_>,
    section: &Place,
    faults: &mut Faults,
) -> Option<TrustDomain> {
    let place = section.key("trust_domain");
    let text = required(text, &place, "name it as in spiffe://<trust domain>/...", faults)?;
    match TrustDomain::parse(&text.value) {
        Ok(trust_domain) => Some(trust_domain),
        Err(error) => {
            let problem = format!("{} is not a trust domain: {error}", quoted(&text.value));
            faults.add(&place.at(text), problem, "write the bare name, as prod.example.com");
            None
        }
    }
}

fn is_auto(text: &Spanned<String>) -> bool {
    text.value == "auto"
}

fn workers(file: &raw::File, faults: &mut Faults) -> NonZeroUsize {
    let count = match &file.workers {
        Some(text) if is_auto(text) => {
            // It knows cgroup quotas and CPU affinity; where it fails, one worker is the default as well.
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            u64::try_from(cores).unwrap_or(defaults::WORKERS.max).min(defaults::WORKERS.max)
        }
        other => quantity(other.as_ref(), &defaults::WORKERS, &Place::root(), faults),
    };
    NonZeroUsize::new(to_usize(count)).unwrap_or(NonZeroUsize::MIN)
}

fn identity(
    raw: Option<&Spanned<raw::Identity>>,
    folder: &Path,
    faults: &mut Faults,
) -> Option<IdentitySource> {
    let place = Place::root().key("identity");
    let Some(raw) = raw else {
        faults.add(&place, "is missing", "give identity.ca or identity.file");
        return None;
    };
    let place = place.at(raw);
    report_odd_keys(&raw.value.odd_keys, raw::Identity::KEYS, &place, faults);
    match (&raw.value.ca, &raw.value.file) {
        (Some(ca), None) => identity_ca(ca, folder, &place.key("ca"), faults),
        (None, Some(file)) => identity_file(file, folder, &place.key("file"), faults),
        (Some(ca), Some(file)) => {
            faults.add(&place, "has both ca and file", "keep one of them");
            // Looked at all the same, for the faults inside.
            let _ca = identity_ca(ca, folder, &place.key("ca"), faults);
            let _file = identity_file(file, folder, &place.key("file"), faults);
            None
        }
        (None, None) => {
            faults.add(&place, "has neither ca nor file", "give one of them");
            None
        }
    }
}

fn identity_ca(
    raw: &Spanned<raw::Ca>,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<IdentitySource> {
    let place = place.at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::Ca::KEYS, &place, faults);
    let key = place.key("address");
    let address = required(raw.address.as_ref(), &key, "give the CA's host:port", faults)
        .map(|text| host_and_port(text, &key, faults));
    let proof = ca_proof(raw, folder, &place, faults);
    let validity = quantity(raw.validity.as_ref(), &defaults::VALIDITY, &place, faults);
    Some(IdentitySource::Ca { address: address?, proof: proof?, validity })
}

/// A join token brings the CA's root along; a service account's token does not, and the CA is known by a file.
fn ca_proof(raw: &raw::Ca, folder: &Path, place: &Place, faults: &mut Faults) -> Option<CaProof> {
    let mut file =
        |text: Option<&Spanned<String>>, key| text.map(|text| path(text, folder, &place.key(key), faults));
    let join = file(raw.join_token_file.as_ref(), "join_token_file");
    let account = file(raw.service_account_token_file.as_ref(), "service_account_token_file");
    let bundle = file(raw.bundle_file.as_ref(), "bundle_file");
    match (join, account, bundle) {
        (file, None, None) => Some(CaProof::JoinToken { file }),
        (None, Some(token_file), Some(bundle_file)) => {
            Some(CaProof::ServiceAccount { token_file, bundle_file })
        }
        (Some(_), Some(_), _) => {
            faults.add(place, "has both join_token_file and service_account_token_file", "keep one of them");
            None
        }
        (None, Some(_), None) => {
            let problem = "has service_account_token_file without bundle_file";
            faults.add(place, problem, "name the file with the roots of the CA as bundle_file");
            None
        }
        (_, None, Some(_)) => {
            let remedy =
                "remove it: a join token knows the CA's root; it goes with service_account_token_file";
            faults.add(&place.key("bundle_file"), "is not used here", remedy);
            None
        }
    }
}

fn identity_file(
    raw: &Spanned<raw::IdentityFile>,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<IdentitySource> {
    let place = place.at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::IdentityFile::KEYS, &place, faults);
    let mut file = |text, key, what| {
        let place = place.key(key);
        required(text, &place, what, faults).map(|text| path(text, folder, &place, faults))
    };
    let certificate =
        file(raw.certificate.as_ref(), "certificate", "name the PEM file with leaf and intermediates");
    let key = file(raw.key.as_ref(), "key", "name the PEM file with the private key (PKCS#8)");
    let bundle = file(raw.bundle.as_ref(), "bundle", "name the PEM file with the trust domain's roots");
    Some(IdentitySource::File { certificate: certificate?, key: key?, bundle: bundle? })
}

fn tls(raw: Option<&Spanned<raw::Tls>>, faults: &mut Faults) -> TlsSettings {
    let empty = raw::Tls::default();
    let place = section(raw, "tls");
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Tls::KEYS, &place, faults);
    let suites = place.key("cipher_suites");
    let groups = place.key("key_exchange");
    TlsSettings {
        cipher_suites: words(raw.cipher_suites.as_ref(), defaults::CIPHER_SUITES, &suites, faults),
        key_exchange: words(raw.key_exchange.as_ref(), defaults::KEY_EXCHANGE, &groups, faults),
    }
}

fn admin(raw: Option<&Spanned<raw::Admin>>, folder: &Path, faults: &mut Faults) -> AdminSettings {
    let empty = raw::Admin::default();
    let place = section(raw, "admin");
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Admin::KEYS, &place, faults);

    let mut socket = defaults::ADMIN_SOCKET.into();
    if let Some(text) = &raw.socket {
        let place = place.key("socket").at(text);
        socket = path(text, folder, &place, faults);
        if socket.as_os_str().len() > MAX_SOCKET_BYTES {
            let problem = format!("{} is too long for a Unix socket", quoted(&socket.display().to_string()));
            faults.add(&place, problem, format!("keep the whole path to {MAX_SOCKET_BYTES} bytes"));
        }
    }
    let listen = match &raw.listen {
        Some(text) if text.value == "none" => None,
        Some(text) => address(text, &place.key("listen"), faults),
        None => defaults::ADMIN_LISTEN.parse().ok(),
    };
    AdminSettings { socket, listen }
}

/// How we stop.
pub(super) fn drain(raw: Option<&Spanned<raw::Drain>>, faults: &mut Faults) -> DrainSettings {
    let empty = raw::Drain::default();
    let place = section(raw, "drain");
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Drain::KEYS, &place, faults);
    let idle_grace = quantity(raw.idle_grace.as_ref(), &defaults::IDLE_GRACE, &place, faults);
    let deadline = quantity(raw.deadline.as_ref(), &defaults::DEADLINE, &place, faults);
    if deadline < idle_grace {
        let key = place.key("deadline");
        let key = raw.deadline.as_ref().map_or_else(|| key.clone(), |text| key.at(text));
        faults.add(&key, "is shorter than drain.idle_grace", "make it at least as long");
    }
    DrainSettings { idle_grace, deadline }
}

/// What a connection may cost.
pub(super) fn limits(raw: Option<&Spanned<raw::Limits>>, faults: &mut Faults) -> Limits {
    let empty = raw::Limits::default();
    let place = section(raw, "limits");
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Limits::KEYS, &place, faults);
    let mut count = |text: &Option<_>, key| quantity::<u64>(text.as_ref(), key, &place, faults);
    let max_connections = to_usize(count(&raw.max_connections, &defaults::LISTENER_CONNECTIONS));
    let per_peer = to_usize(count(&raw.max_connections_per_peer, &defaults::PEER_CONNECTIONS));
    let max_handshakes = to_usize(count(&raw.max_handshakes, &defaults::MAX_HANDSHAKES));
    let header_count = to_usize(count(&raw.header_count, &defaults::HEADER_COUNT));
    let max_streams = to_u32(count(&raw.max_streams, &defaults::MAX_STREAMS));
    let max_resets = to_u32(count(&raw.max_resets, &defaults::MAX_RESETS));
    let mut size = |text: &Option<_>, key| quantity::<Bytes>(text.as_ref(), key, &place, faults).0;
    let header_bytes = to_usize(size(&raw.header_bytes, &defaults::HEADER_BYTES));
    let stream_window_bytes = to_u32(size(&raw.stream_window, &defaults::STREAM_WINDOW));
    let mut time = |text: &Option<_>, key| quantity::<Duration>(text.as_ref(), key, &place, faults);
    let handshake_timeout = time(&raw.handshake_timeout, &defaults::HANDSHAKE_TIMEOUT);
    let header_read_timeout = time(&raw.header_read_timeout, &defaults::HEADER_READ_TIMEOUT);
    let auto = MemoryBudget::Auto {
        percent: defaults::MEMORY_PERCENT,
        without_limit: defaults::MEMORY_WITHOUT_CGROUP.0,
    };
    let idle_timeout = time(&raw.idle_timeout, &defaults::IDLE_TIMEOUT);
    let memory = match &raw.memory {
        None => auto,
        Some(text) if text.value == "auto" => auto,
        Some(text) if text.value == "none" => MemoryBudget::None,
        text => MemoryBudget::Bytes(quantity(text.as_ref(), &defaults::MEMORY, &place, faults).0),
    };
    let age = raw.max_connection_age.as_ref();
    let connection_age = quantity_or_none(age, &defaults::DOWNSTREAM_AGE, &place, faults);
    let user_timeout = raw.tcp_user_timeout.as_ref();
    let tcp_user_timeout = quantity_or_none(user_timeout, &defaults::TCP_USER_TIMEOUT, &place, faults);
    Limits {
        max_connections,
        max_connections_per_peer: per_peer,
        max_handshakes,
        header_bytes,
        header_count,
        max_streams,
        max_resets,
        handshake_timeout,
        header_read_timeout,
        idle_timeout,
        connection_age,
        tcp_user_timeout,
        stream_window_bytes,
        memory,
    }
}

/// The place of a top-level section that may be missing.
pub(super) fn section<T>(raw: Option<&Spanned<T>>, key: &str) -> Place {
    let place = Place::root().key(key);
    raw.map_or_else(|| place.clone(), |raw| place.at(raw))
}

/// A number that its range keeps small.
pub(super) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A number that its range keeps small.
pub(super) fn to_u32(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
