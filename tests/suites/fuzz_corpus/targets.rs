//! What is fuzzed: each target takes any bytes, and panics if what our code makes of them breaks a promise.
//!
//! `tests/fuzz` runs them under libFuzzer; the suite `fuzz_corpus` replays what that found and kept.

use std::{
    path::Path,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use outrider::{
    canonical::{self, Care},
    config,
    detect::{self, ClientHello, MAX_CLIENT_HELLO_BYTES, ServerVerdict, Spoken, Verdict},
    headers::{timeout, trace},
    model::proxy_protocol::Version,
    proxy_protocol::{self, Caller, Look, MAX_HEADER_BYTES},
    relay::frame::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, StreamKind},
};
use outrider_certs::{
    SpiffeId, TrustBundle, TrustBundles, TrustDomain,
    verify::{self, Role},
};
use rustls_pki_types::CertificateDer;

use super::decoders::{self, Step};

/// A target: any bytes.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the names of their programs and of their folders in `tests/corpus/fuzz`.
pub(crate) const TARGETS: [(&str, Target); 11] = [
    ("authority", authority),
    ("bundle", bundle),
    ("certificate", certificate),
    ("client_hello", client_hello),
    ("config", config),
    ("frames", frames),
    ("path", path),
    ("proxy_protocol", proxy_protocol),
    ("sniff", sniff),
    ("spiffe_id", spiffe_id),
    ("trace", trace),
];

/// Longest text that the slower targets take, in bytes: what is longer finds nothing more.
const MAX_TEXT: usize = 4096;

/// Which protocol a connection speaks. The first byte says how much may be looked at: what was decided stays so whatever
/// follows, and all that may be looked at decides.
pub(crate) fn sniff(data: &[u8]) {
    let Some((&limit, bytes)) = data.split_first() else { return };
    let limit = if limit == 0 { detect::MAX_BYTES } else { usize::from(limit) };
    let mut decided = None;
    for end in 0..=bytes.len() {
        let verdict = detect::client(&bytes[..end], limit);
        match (decided, verdict) {
            (None, Verdict::Decided(spoken)) => decided = Some(spoken),
            (None, Verdict::More) => assert!(end < limit, "so many bytes decide"),
            (Some(before), now) => assert_eq!(now, Verdict::Decided(before), "at {end}"),
        }
    }
    if decided == Some(Spoken::Http2) {
        assert!(bytes.starts_with(detect::PREFACE));
    }
    let mut decided = None;
    for end in 0..=bytes.len() {
        match (decided, detect::server(&bytes[..end])) {
            (None, ServerVerdict::More) => assert!(end < 9, "nine bytes decide"),
            (None, verdict) => decided = Some(verdict),
            (Some(before), now) => assert_eq!(now, before, "at {end}"),
        }
    }
}

/// What a TLS client asks for: what was found stays so whatever follows; a name is spelled as authorities are.
pub(crate) fn client_hello(data: &[u8]) {
    let whole = ClientHello::parse(data);
    if data.len() >= MAX_CLIENT_HELLO_BYTES {
        assert_ne!(whole, Ok(None), "so many bytes decide");
    }
    if !matches!(whole, Ok(None)) {
        assert_eq!(ClientHello::parse(&[data, b"\x16\x03\x01\0\x01\x01 more"].concat()), whole);
    }
    // Bytes that come one by one: a few places will do.
    for end in (0..data.len()).step_by(1 + data.len() / 16) {
        let part = ClientHello::parse(&data[..end]);
        assert!(part == Ok(None) || part == whole, "at {end}: {part:?}, then {whole:?}");
    }
    if let Ok(Some(hello)) = whole {
        if let Some(name) = hello.server_name {
            assert_eq!(canonical::authority(&name).as_deref(), Some(&*name));
            assert_eq!(canonical::host(&name), &*name);
        }
        assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty()));
    }
}

/// The one spelling of a path: it is its own, all readers have the same segments, and none leaves what a rule allows.
pub(crate) fn path(data: &[u8]) {
    static TWICE: LazyLock<Vec<Vec<Step>>> = LazyLock::new(|| decoders::readers(2));
    static ONCE: LazyLock<Vec<Vec<Step>>> = LazyLock::new(|| decoders::readers(1));
    let Ok(text) = std::str::from_utf8(&data[..data.len().min(256)]) else { return };
    let plain = canonical::path(text, Care::Plain);
    let judged = canonical::path(text, Care::Judged);
    for (care, found, readers) in [(Care::Plain, &plain, &ONCE), (Care::Judged, &judged, &TWICE)] {
        let Ok(found) = found else { continue };
        assert_eq!(canonical::path(found, care).as_deref(), Ok(&**found), "{care:?}: a fixed point");
        assert!(found.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#[]".contains(&byte)));
        let target: http::Uri = found.parse().expect("a target");
        assert_eq!(target.path(), &**found);
        if **found != *"*" && !text.contains(['?', '#']) {
            decoders::stays(found, readers).unwrap();
        }
    }
    if let (Ok(plain), Ok(judged)) = (&plain, &judged) {
        assert_eq!(canonical::path(plain, Care::Judged).as_deref(), Ok(&**judged));
    }
}

/// The one spelling of an authority: it is its own, and `http` reads the same host and port in it.
pub(crate) fn authority(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(once) = canonical::authority(text) else { return };
    assert_eq!(canonical::authority(&once).as_deref(), Some(&*once), "a fixed point");
    assert!(!once.bytes().any(|byte| byte.is_ascii_uppercase() || b"@%/?#\\, \t".contains(&byte)));
    let port = canonical::port(&once);
    let joined = match port {
        Some(port) => format!("{}:{port}", canonical::host(&once)),
        None => canonical::host(&once).to_owned(),
    };
    assert_eq!(joined, *once);
    let read: http::uri::Authority = once.parse().expect("an authority");
    assert_eq!((read.host(), read.port_u16()), (canonical::host(&once), port));
}

/// A header of the PROXY protocol: what was found stays so whatever follows, and what we write of it is read as it was.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let whole = proxy_protocol::look(data);
    for end in 0..data.len().min(2 * MAX_HEADER_BYTES) {
        let part = proxy_protocol::look(&data[..end]);
        assert!(part == Look::More || part == whole, "at {end}: {part:?}, then {whole:?}");
    }
    match whole {
        Look::More => assert!(data.len() < MAX_HEADER_BYTES, "so many bytes decide"),
        Look::Header { length, link } => {
            assert!(length <= data.len() && length <= MAX_HEADER_BYTES);
            assert_eq!(proxy_protocol::look(&data[..length]), whole);
            for version in [Version::V1, Version::V2] {
                let Some(link) = link else { continue };
                let header = proxy_protocol::header(version, link, Caller::Unverified);
                let Look::Header { length, link: Some(again) } = proxy_protocol::look(&header) else {
                    panic!("ours is not read: {header:?}");
                };
                assert_eq!(length, header.len());
                for (was, is) in [(link.source, again.source), (link.destination, again.destination)] {
                    assert_eq!((was.ip().to_canonical(), was.port()), (is.ip().to_canonical(), is.port()));
                }
            }
        }
        Look::None | Look::Malformed(_) => {}
    }
}

/// A SPIFFE ID: it is what was read, and a reader of URIs finds the same parts in it.
pub(crate) fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = TrustDomain::parse(text) {
        assert_eq!(domain.as_str(), text);
        assert_eq!(domain.id().trust_domain(), &domain);
        assert!(!domain.id().is_workload());
    }
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(id.as_str(), text);
    assert_eq!(SpiffeId::new(id.trust_domain(), id.path()).as_ref(), Ok(&id));
    assert!(!id.path().ends_with('/') && !id.path().contains("//"));
    assert!(!id.path().split('/').any(|segment| matches!(segment, "." | "..")));
    let read: http::Uri = text.parse().expect("a URI");
    assert_eq!(read.authority().unwrap().as_str(), id.trust_domain().as_str());
    assert_eq!((read.path().trim_end_matches('/'), read.query()), (id.path(), None));
}

/// When the certificates of the corpus are valid.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A chain of certificates, each behind its length in two bytes. Its root has signed for one workload only.
pub(crate) fn certificate(data: &[u8]) {
    static BUNDLES: LazyLock<TrustBundles> = LazyLock::new(|| {
        let root = CertificateDer::from_slice(include_bytes!("root.der"));
        let domain = TrustDomain::parse("test.outrider").unwrap();
        TrustBundles::single(TrustBundle::new(domain, vec![root], 0, None).unwrap())
    });
    let mut chain = Vec::new();
    let mut rest = data;
    while let Some((&[high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (der, behind) = behind.split_at(length.min(behind.len()));
        chain.push(CertificateDer::from(der));
        rest = behind;
    }
    let said = verify::peer_of_verified(&chain);
    if let (Ok(said), Some(leaf)) = (&said, chain.first())
        && let Ok(read) = webpki::EndEntityCert::try_from(leaf)
    {
        let uris: Vec<_> = read.valid_uri_names().collect();
        assert_eq!(uris, [said.id().as_str()], "who verifies and who reads see the same names");
    }
    for role in [Role::Client, Role::Server] {
        if let Ok(peer) = verify::peer(&chain, &BUNDLES, role, now()) {
            assert_eq!(peer.id().as_str(), "spiffe://test.outrider/web", "nobody else was ever signed for");
            assert_eq!(Ok(peer), said);
        }
    }
}

/// A bundle of roots, as PEM and as SPIFFE's JWKS: what was read is read again from what is written of it.
pub(crate) fn bundle(data: &[u8]) {
    let domain = TrustDomain::parse("test.outrider").unwrap();
    if let Ok(read) = TrustBundle::from_jwks(domain.clone(), data) {
        let again = TrustBundle::from_jwks(domain.clone(), read.to_jwks().as_bytes()).unwrap();
        assert_eq!((again.roots(), again.sequence()), (read.roots(), read.sequence()));
        assert_eq!(again.refresh_hint(), read.refresh_hint());
    }
    if let Ok(read) = TrustBundle::from_pem(domain.clone(), data) {
        let again = TrustBundle::from_pem(domain, read.to_pem().as_bytes()).unwrap();
        assert_eq!(again.roots(), read.roots());
    }
}

/// A configuration: settings, or faults that each say where and what to do.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(&data[..data.len().min(MAX_TEXT)]) else { return };
    let folder = Path::new("/etc/outrider");
    match config::parse(text, folder) {
        Ok(settings) => {
            let again = config::parse(text, folder).map(|settings| format!("{settings:?}"));
            assert_eq!(again.ok(), Some(format!("{settings:?}")));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Frames between sidecars: what is read is what was written, and keeps its bounds.
pub(crate) fn frames(data: &[u8]) {
    let mut rest = data;
    while let Some((&bytes, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(bytes) else { return };
        assert_eq!(header.encode(), bytes);
        let length = usize::from(header.length);
        assert!(length <= MAX_PAYLOAD_BYTES);
        let (payload, behind) = behind.split_at(length.min(behind.len()));
        match StreamKind::read(payload) {
            Ok(kind) => {
                let more = [payload, b";more=1"].concat();
                assert_eq!(StreamKind::read(&more), Ok(kind), "what is not known is passed over");
                assert_eq!(StreamKind::read(kind.parameters()), Ok(kind));
            }
            Err(reason) => assert!(!reason.is_empty()),
        }
        rest = behind;
    }
}

/// Fields that say of which trace a request is: lines of a letter for the name and a value. What is told on is what was read.
pub(crate) fn trace(data: &[u8]) {
    const NAMES: [&str; 9] = [
        "traceparent",
        "tracestate",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
        "grpc-timeout",
    ];
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(32) {
        let Some((letter, value)) = line.split_first() else { continue };
        let name = NAMES[usize::from(letter.wrapping_sub(b'a')) % NAMES.len()];
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(HeaderName::from_static(name), value);
    }
    if let Some(left) = timeout::grpc(&headers) {
        let shown =
            HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), timeout::show_grpc(left))]);
        let again = timeout::grpc(&shown).expect("ours is read");
        // None is left as the least that can be said.
        let most = left.max(Duration::from_nanos(1));
        assert!(again <= most, "time only gets less: {left:?}, then {again:?}");
    }
    let told = trace::extract(&headers);
    trace::strip(&mut headers, told.formats);
    assert_eq!(trace::extract(&headers).context, None, "all of it is gone");
    let Some((trace, span)) = told.context else { return };
    let is_sampled = told.is_sampled.unwrap_or_default();
    let (state, formats) = (told.state.as_ref(), told.formats);
    trace::inject(&mut headers, &trace::Sent { trace, span, is_sampled, state, formats });
    let again = trace::extract(&headers);
    assert_eq!(again.context, told.context);
    assert_eq!(again.is_sampled, Some(is_sampled));
    assert_eq!((again.state, again.formats), (told.state, told.formats));
}
