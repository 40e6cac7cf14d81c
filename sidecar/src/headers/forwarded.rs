//! Fields that tell an app who is asking: the facts are set from what we know, and claims pass as claims.
//!
//! | field | outbound, from the own app | inbound, from a verified peer | inbound in plaintext, by an exception |
//! |---|---|---|---|
//! | `x-forwarded-client-cert` | removed | replaced: `By=<own ID>;URI=<peer's ID>` | removed: nobody proved to be anybody |
//! | `x-forwarded-for` | passes: an ingress app knows who called it | the peer's address is appended | the caller's address is appended |
//! | `x-forwarded-proto` | kept if it is one `http` or `https`, else `http` | the same, else `https`: peers come by mutual TLS | the same, else `http` |
//! | `x-request-id` | kept if it is well-formed, else made | the same | the same |
//! | `traceparent`, `tracestate` | pass | pass | pass |
//!
//! To services outside the mesh (`tls: public`, `tls: none`) all of these pass as the app wrote them, none is made or
//! changed, and `x-forwarded-client-cert` is removed.
//!
//! Callers in plaintext say what they like, and that passes as what it is: a claim. The gateways that plaintext is let in
//! for tell the app of users and of `https` in these fields as they did before there was a sidecar, and whoever may send
//! any request at all gains nothing by them. An app tells such callers by the missing `x-forwarded-client-cert`.
//!
//! Certain, of a request, are `x-forwarded-client-cert` and the last entry of `x-forwarded-for`. The other entries, and
//! `x-forwarded-proto`, are what the callers before told: what the first of them spoke, not what the peer spoke.
//! `forwarded` (RFC 7239) and `x-forwarded-host` pass untouched, as claims of the calling app.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_certs::SpiffeId;

/// Longest request ID that is kept, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Prepares a request of the own app.
pub fn outbound(headers: &mut HeaderMap, rng: &mut fastrand::Rng) {
    headers.remove(&CLIENT_CERT);
    ensure_proto(headers, "http");
    ensure_request_id(headers, rng);
}

/// Prepares a request of the own app for a service outside the mesh: nothing of ours is added, and who stood for whom
/// in here is not told. What the app wrote itself, `x-request-id` and `x-forwarded-for` included, is its own to tell.
pub fn outside(headers: &mut HeaderMap) {
    headers.remove(&CLIENT_CERT);
}

/// Prepares a request of a verified peer for the own app.
pub fn inbound(
    headers: &mut HeaderMap,
    peer: &SpiffeId,
    own: &SpiffeId,
    peer_address: IpAddr,
    rng: &mut fastrand::Rng,
) {
    set(headers, &CLIENT_CERT, client_cert(peer, own));
    ensure_proto(headers, "https");
    add_address(headers, peer_address);
    ensure_request_id(headers, rng);
}

/// Prepares a request for the own app of somebody who came in plaintext, by an exception.
pub fn plain(headers: &mut HeaderMap, address: IpAddr, rng: &mut fastrand::Rng) {
    headers.remove(&CLIENT_CERT);
    ensure_proto(headers, "http");
    add_address(headers, address);
    ensure_request_id(headers, rng);
}

/// What the first caller spoke: kept if a hop before has said it well, because an app that builds links from it must
/// not send plain callers inside the mesh to `https`. `otherwise` is what this hop knows itself.
fn ensure_proto(headers: &mut HeaderMap, otherwise: &'static str) {
    let mut values = headers.get_all(&FORWARDED_PROTO).iter();
    let is_well_formed =
        matches!((values.next().map(HeaderValue::as_bytes), values.next()), (Some(b"http" | b"https"), None));
    if !is_well_formed {
        headers.insert(&FORWARDED_PROTO, HeaderValue::from_static(otherwise));
    }
}

/// Envoy's format of one element. SPIFFE IDs have no character in them that would need quoting there.
fn client_cert(peer: &SpiffeId, own: &SpiffeId) -> Option<HeaderValue> {
    HeaderValue::try_from(["By=", own.as_str(), ";URI=", peer.as_str()].concat()).ok()
}

/// All that was sent as one list, and the address at its end. One line, because apps that read only the first or the
/// last line must see the same.
fn add_address(headers: &mut HeaderMap, address: IpAddr) {
    // An IPv4 peer of a dual-stack socket is an IPv4 peer.
    let address = address.to_canonical().to_string();
    let mut list = Vec::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        if !value.is_empty() {
            list.extend_from_slice(value.as_bytes());
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(address.as_bytes());
    set(headers, &FORWARDED_FOR, HeaderValue::try_from(list).ok());
}

fn ensure_request_id(headers: &mut HeaderMap, rng: &mut fastrand::Rng) {
    let mut ids = headers.get_all(&REQUEST_ID).iter();
    if let (Some(id), None) = (ids.next(), ids.next())
        && is_request_id(id)
    {
        return;
    }
    set(headers, &REQUEST_ID, uuid_v4(rng));
}

/// 1 to 128 visible ASCII characters: it goes into logs.
fn is_request_id(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// A random UUID (RFC 9562 §5.4) in its usual spelling.
fn uuid_v4(rng: &mut fastrand::Rng) -> Option<HeaderValue> {
    const VERSION_4: u128 = 0x4 << 76;
    const VARIANT: u128 = 0b10 << 62;
    let bits = rng.u128(..) & !(0xf << 76) & !(0b11 << 62) | VERSION_4 | VARIANT;

    let mut nibbles = (0..32).rev().map(|place| (bits >> (place * 4)) & 0xf);
    let mut text = [b'-'; 36];
    for (_, byte) in text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23)) {
        let nibble = nibbles.next().unwrap_or_default() as u8;
        *byte = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    HeaderValue::from_bytes(&text).ok()
}

/// Replaces all fields of that name. Without a value, or in a map that can take no more names (24,576, far over every
/// limit on header blocks), the field is absent afterwards: never the caller's.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    headers.remove(name);
    if let Some(value) = value {
        headers.try_insert(name, value).ok();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer() -> SpiffeId {
        SpiffeId::parse("spiffe://demo.outrider/ns/shop/sa/cart").unwrap()
    }

    fn own() -> SpiffeId {
        SpiffeId::parse("spiffe://demo.outrider/orders").unwrap()
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    fn map(sent: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn send(sent: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = map(sent);
        outbound(&mut headers, &mut rng());
        headers
    }

    fn receive(sent: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = map(sent);
        inbound(&mut headers, &peer(), &own(), "10.0.0.7".parse().unwrap(), &mut rng());
        headers
    }

    #[test]
    fn the_app_is_told_who_is_asking() {
        let headers = receive(&[]);
        let client_cert = "By=spiffe://demo.outrider/orders;URI=spiffe://demo.outrider/ns/shop/sa/cart";
        assert_eq!(values(&headers, "x-forwarded-client-cert"), [client_cert.as_bytes()]);
        assert_eq!(values(&headers, "x-forwarded-for"), [b"10.0.0.7"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), [b"https"]);
    }

    #[test]
    fn a_forged_client_certificate_does_not_reach_the_app() {
        let forged = ("x-forwarded-client-cert", "By=x;URI=spiffe://demo.outrider/admin");
        assert_eq!(values(&receive(&[forged, forged]), forged.0), values(&receive(&[]), forged.0));
        let mut headers = HeaderMap::from_iter([(CLIENT_CERT.clone(), HeaderValue::from_static("forged"))]);
        outbound(&mut headers, &mut rng());
        assert!(!headers.contains_key(&CLIENT_CERT));
    }

    #[test]
    fn the_last_forwarded_address_is_the_peers_and_all_are_in_one_line() {
        let sent = [
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
            ("x-forwarded-for", ""),
            ("x-forwarded-for", "3.3.3.3"),
        ];
        assert_eq!(values(&receive(&sent), "x-forwarded-for"), [b"1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.7"]);
    }

    #[test]
    fn whoever_comes_in_plaintext_is_told_by_its_address_and_nothing_else_that_is_certain() {
        let sent = [
            ("x-forwarded-client-cert", "By=x;URI=spiffe://demo.outrider/admin"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "id-1"),
        ];
        let claimed = |sent: &[(&'static str, &str)]| {
            let mut headers = map(sent);
            plain(&mut headers, "10.0.0.7".parse().unwrap(), &mut rng());
            headers
        };
        let kept = [sent[2], sent[3], ("x-forwarded-for", "1.1.1.1, 10.0.0.7")];
        assert_eq!(claimed(&sent), map(&kept));
        let silent = claimed(&[("x-forwarded-proto", "HTTPS")]);
        assert_eq!(values(&silent, "x-forwarded-for"), [b"10.0.0.7"]);
        assert_eq!(values(&silent, "x-forwarded-proto"), [b"http"]);
        assert!(!silent.contains_key("x-forwarded-client-cert"));
    }

    #[test]
    fn a_mapped_address_is_written_as_ipv4() {
        let mut headers = HeaderMap::new();
        inbound(&mut headers, &peer(), &own(), "::ffff:10.0.0.7".parse().unwrap(), &mut rng());
        assert_eq!(values(&headers, "x-forwarded-for"), [b"10.0.0.7"]);
    }

    #[test]
    fn an_ingress_apps_claims_pass_outbound() {
        let sent =
            [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("x-request-id", "id-1")];
        assert_eq!(send(&sent), map(&sent));
    }

    #[test]
    fn the_trace_passes_untouched() {
        let sent = [
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "a=b"),
        ];
        let headers = receive(&sent);
        for (name, value) in sent {
            assert_eq!(values(&headers, name), [value.as_bytes()]);
        }
    }

    #[test]
    fn only_a_well_formed_request_id_is_kept() {
        let longest = "a".repeat(128);
        for kept in ["1", "7f0c-req", longest.as_str()] {
            assert_eq!(values(&receive(&[("x-request-id", kept)]), "x-request-id"), [kept.as_bytes()]);
        }
        let too_long = "a".repeat(129);
        for replaced in ["", "a b", "a\tb", "caf\u{e9}", too_long.as_str()] {
            let headers = receive(&[("x-request-id", replaced)]);
            assert_eq!(values(&headers, "x-request-id").concat().len(), 36, "{replaced:?}");
        }
        let twice = receive(&[("x-request-id", "a"), ("x-request-id", "b")]);
        assert_eq!(values(&twice, "x-request-id").concat().len(), 36);
    }

    proptest! {
        #[test]
        fn made_request_ids_are_version_4_uuids(seed: u64) {
            let id = uuid_v4(&mut fastrand::Rng::with_seed(seed)).unwrap();
            let id = id.to_str().unwrap();
            // RFC 9562 §4: hexadecimal, lower case on output; §5.4: version 4, variant 0b10.
            let parts: Vec<&str> = id.split('-').collect();
            prop_assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            prop_assert!(parts.concat().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
            prop_assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']));
        }

        #[test]
        fn a_scheme_is_kept_only_if_it_is_one_and_known(
            claims in proptest::collection::vec(prop_oneof!["https?", "HTTPS|https,http| https|wss|", "[ -~\u{e9}]{0,20}"], 0..3),
            is_inbound: bool,
        ) {
            let sent: Vec<_> = claims.iter().map(|claim| ("x-forwarded-proto", claim.as_str())).collect();
            let kept = match claims.as_slice() {
                [only] if only == "http" || only == "https" => only.as_str(),
                _ if is_inbound => "https",
                _ => "http",
            };
            let headers = if is_inbound { receive(&sent) } else { send(&sent) };
            prop_assert_eq!(values(&headers, "x-forwarded-proto"), [kept.as_bytes()]);
        }

        #[test]
        fn whatever_was_sent_the_facts_are_ours(claims in proptest::collection::vec("[ -~\u{e9}]{0,20}", 0..4)) {
            let sent: Vec<_> = claims
                .iter()
                .flat_map(|claim| ["x-forwarded-for", "x-forwarded-client-cert"].map(|name| (name, claim.as_str())))
                .collect();
            let (headers, plain) = (receive(&sent), receive(&[]));
            prop_assert_eq!(values(&headers, "x-forwarded-client-cert"), values(&plain, "x-forwarded-client-cert"));
            let list = values(&headers, "x-forwarded-for");
            prop_assert_eq!(list.len(), 1);
            let last = list[0].rsplit(|byte| *byte == b',').next().unwrap();
            prop_assert_eq!(last.trim_ascii(), b"10.0.0.7");
        }
    }
}
