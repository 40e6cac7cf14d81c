//! Fields that tell an app who is asking: the facts are set from what we know, and claims pass as claims.
//!
//! | field | outbound, from the own app | inbound, from a verified peer | inbound in plaintext, by an exception |
//! |---|---|---|---|
//! | `x-forwarded-client-cert` | removed; with `client_cert: append`, passes | replaced: `By=<own ID>;URI=<peer's ID>`; with `append`, that behind what was sent; with `off`, removed | removed: nobody proved to be anybody |
//! | `x-forwarded-for` | passes: an ingress app knows who called it; a client that a PROXY protocol header names is appended | the peer's address is appended | the caller's address, behind the last `trusted_hops` entries that it sent |
//! | `forwarded` (RFC 7239) | passes | where there is one, `for=<peer's address>` is appended | the last `trusted_hops` elements and `for=<caller's address>`; without hops, removed |
//! | `x-forwarded-proto` | kept if it is one `http` or `https`, else `http` | the same, else `https`: peers come by mutual TLS | `http`; with `trusted_hops`, as from a peer, else `http` |
//! | `x-forwarded-host` | passes; whom the app asked for, where a route asks for another | kept if it is in one line and all of it hosts, else whom the request is for | whom the request is for; with `trusted_hops`, as from a peer |
//! | `x-forwarded-port` | passes | kept if it is one port, else that of `x-forwarded-host`, or of `x-forwarded-proto` | the port of `x-forwarded-host` or `-proto`; with `trusted_hops`, as from a peer |
//! | `x-real-ip` | passes | passes | removed; with `trusted_hops`, passes if there is one, and it is one of the entries of `x-forwarded-for` that are kept |
//! | `x-request-id` | kept if it is well-formed, else made | the same | the same |
//! | `traceparent`, `tracestate`, `b3`, `x-b3-…` | pass; with `telemetry.traces`, replaced by ours of the same trace | the same | pass; with `telemetry.traces`, replaced by a new trace's |
//! | `baggage` | passes | passes | passes |
//!
//! What is said of traces is [`super::trace`]'s, and not done here.
//!
//! To services outside the mesh (`tls: public`, `tls: none`) all of these pass as the app wrote them, none is made or
//! changed, and `x-forwarded-client-cert` is removed.
//!
//! Who comes in plaintext has proved nothing, and says nothing to the app that it could take for ours: with `trusted_hops: 0`
//! its address alone. A port that a gateway calls in plaintext is told how many proxies there are in front of us, that gateway
//! included; each of them wrote one entry at the end of the list, and what stands before those is anybody's word (Envoy's
//! `xff_num_trusted_hops`; Envoy leaves the rest in the list and has apps count, which they do not).
//!
//! Certain, of a request, are the last element of `x-forwarded-client-cert` and the last entry of `x-forwarded-for` and of
//! `forwarded`. Everything else is what the callers before told: what the first of them spoke, not what the peer spoke.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_certs::SpiffeId;

use super::list;
use crate::{
    canonical,
    model::forwarded::{ClientCert, ForwardedSettings},
};

/// Longest request ID that is kept, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// By which a request is known at every hop.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who a verified peer is, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    /// Who it proved to be.
    pub peer: &'a SpiffeId,
    /// Who we are.
    pub own: &'a SpiffeId,
    /// Its address.
    pub address: IpAddr,
}

/// Prepares a request of the own app. `authority` is whom the app asked for, where it goes on for another.
pub fn outbound(
    headers: &mut HeaderMap,
    settings: ForwardedSettings,
    authority: Option<&str>,
    rng: &mut fastrand::Rng,
) {
    match settings.client_cert {
        ClientCert::Replace | ClientCert::Off => drop(headers.remove(&CLIENT_CERT)),
        ClientCert::Append => {}
    }
    ensure_proto(headers, "http");
    if let Some(authority) = authority.filter(|_| !headers.contains_key(&FORWARDED_HOST)) {
        set(headers, &FORWARDED_HOST, HeaderValue::from_str(authority).ok());
    }
    ensure_request_id(headers, rng);
}

/// Adds whom a proxy before the own app's listener has named: a client that no app of ours has heard of yet.
pub fn said(headers: &mut HeaderMap, client: IpAddr) {
    add_address(headers, client, usize::MAX);
}

/// Prepares a request of the own app for a service outside the mesh: nothing of ours is added, and who stood for whom
/// in here is not told. What the app wrote itself, `x-request-id` and `x-forwarded-for` included, is its own to tell.
pub fn outside(headers: &mut HeaderMap) {
    headers.remove(&CLIENT_CERT);
}

/// Prepares a request of a verified peer for the own app. `authority` is whom it is for, in canonical form; empty if it
/// names nobody.
pub fn inbound(
    headers: &mut HeaderMap,
    verified: Verified<'_>,
    settings: ForwardedSettings,
    authority: &str,
    rng: &mut fastrand::Rng,
) {
    tell_client_cert(headers, verified, settings.client_cert);
    ensure_proto(headers, "https");
    ensure_host(headers, authority);
    extend_forwarded(headers, verified.address, usize::MAX);
    add_address(headers, verified.address, usize::MAX);
    ensure_request_id(headers, rng);
}

/// Prepares a request for the own app of somebody who came in plaintext, by an exception. So many proxies in front of us
/// as `trusted_hops` says are believed; `authority` as in [`inbound`].
pub fn plain(
    headers: &mut HeaderMap,
    address: IpAddr,
    trusted_hops: usize,
    authority: &str,
    rng: &mut fastrand::Rng,
) {
    headers.remove(&CLIENT_CERT);
    if trusted_hops == 0 {
        for name in [&FORWARDED_PROTO, &FORWARDED_HOST, &FORWARDED_PORT, &FORWARDED] {
            headers.remove(name);
        }
    }
    // Not every gateway writes it: what none that is believed has told in the list, too, may be its caller's own word.
    let is_told = |real| last(&addresses(headers), trusted_hops).contains(&real);
    if !only(headers, &REAL_IP).is_some_and(is_told) {
        headers.remove(&REAL_IP);
    }
    ensure_proto(headers, "http");
    ensure_host(headers, authority);
    extend_forwarded(headers, address, trusted_hops);
    add_address(headers, address, trusted_hops);
    ensure_request_id(headers, rng);
}

/// Who the peer proved to be. With [`ClientCert::Append`] behind what it says of its own callers, unless that has a quoted
/// text without an end, which would take in what follows.
fn tell_client_cert(headers: &mut HeaderMap, verified: Verified<'_>, what: ClientCert) {
    let ours = || client_cert(verified.peer, verified.own);
    match what {
        ClientCert::Off => drop(headers.remove(&CLIENT_CERT)),
        ClientCert::Replace => set(headers, &CLIENT_CERT, ours()),
        ClientCert::Append => {
            let said = list::elements(headers, &CLIENT_CERT).unwrap_or_default().join(&b","[..]);
            let ours = ours();
            let all = match &ours {
                Some(ours) if !said.is_empty() => {
                    HeaderValue::try_from([&said, &b","[..], ours.as_bytes()].concat()).ok()
                }
                Some(_) | None => ours,
            };
            set(headers, &CLIENT_CERT, all);
        }
    }
}

/// Whom the first caller asked for, and at which port: kept if a hop before has said it well, else as it is known here.
/// Nothing is known of a request that names nobody.
fn ensure_host(headers: &mut HeaderMap, authority: &str) {
    if !only(headers, &FORWARDED_HOST).is_some_and(is_hosts) {
        let known = Some(authority).filter(|authority| !authority.is_empty());
        set(headers, &FORWARDED_HOST, known.and_then(|authority| HeaderValue::from_str(authority).ok()));
    }
    if only(headers, &FORWARDED_PORT).is_some_and(is_port) {
        return;
    }
    let port = only(headers, &FORWARDED_HOST).map(|hosts| {
        let first = hosts.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        match std::str::from_utf8(first).ok().and_then(canonical::port) {
            Some(port) => HeaderValue::from(port),
            None if only(headers, &FORWARDED_PROTO) == Some(b"https") => HeaderValue::from_static("443"),
            None => HeaderValue::from_static("80"),
        }
    });
    set(headers, &FORWARDED_PORT, port);
}

/// The value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => Some(only.as_bytes()),
        _ => None,
    }
}

/// Whether it is one host, or a list of them as proxies write it that append theirs.
fn is_hosts(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').all(|host| {
        std::str::from_utf8(host.trim_ascii()).is_ok_and(|host| canonical::authority(host).is_some())
    })
}

fn is_port(value: &[u8]) -> bool {
    let port = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    port.and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port != 0)
}

/// Appends the caller to `forwarded`, if there is one, behind the last `kept` of its elements. One that breaks its grammar
/// goes: its end could not be told from what is appended.
fn extend_forwarded(headers: &mut HeaderMap, address: IpAddr, kept: usize) {
    if !headers.contains_key(&FORWARDED) {
        return;
    }
    let list = list::elements(headers, &FORWARDED).map(|elements| {
        let mut list = last(&elements, kept).join(&b", "[..]);
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        // RFC 7239 §6: an IPv6 address stands in brackets and quotes.
        let element = match address.to_canonical() {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        list.extend_from_slice(element.as_bytes());
        list
    });
    set(headers, &FORWARDED, list.and_then(|list| HeaderValue::try_from(list).ok()));
}

/// The last `count` items.
fn last<T>(items: &[T], count: usize) -> &[T] {
    items.get(items.len().saturating_sub(count)..).unwrap_or_default()
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

/// The entries of `x-forwarded-for`, all lines as one list.
fn addresses(headers: &HeaderMap) -> Vec<&[u8]> {
    let lines = headers.get_all(&FORWARDED_FOR).iter();
    let entries = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    entries.filter(|entry| !entry.is_empty()).collect()
}

/// The last `kept` entries of all that was sent as one list, and the address at its end. One line, because apps that read
/// only the first or the last line must see the same.
fn add_address(headers: &mut HeaderMap, address: IpAddr, kept: usize) {
    // An IPv4 peer of a dual-stack socket is an IPv4 peer.
    let address = address.to_canonical().to_string();
    let mut list = last(&addresses(headers), kept).join(&b", "[..]);
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(address.as_bytes());
    set(headers, &FORWARDED_FOR, HeaderValue::try_from(list).ok());
}

/// The request's ID, if it is a well-formed one, and the only one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(&REQUEST_ID).iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) if is_request_id(id) => Some(id),
        _ => None,
    }
}

fn ensure_request_id(headers: &mut HeaderMap, rng: &mut fastrand::Rng) {
    if request_id(headers).is_none() {
        set(headers, &REQUEST_ID, uuid_v4(rng));
    }
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
        outbound(&mut headers, ForwardedSettings::default(), None, &mut rng());
        headers
    }

    fn receive(sent: &[(&'static str, &str)]) -> HeaderMap {
        receive_with(ForwardedSettings::default(), sent)
    }

    fn receive_with(settings: ForwardedSettings, sent: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = map(sent);
        let (peer, own) = (peer(), own());
        let verified = Verified { peer: &peer, own: &own, address: "10.0.0.7".parse().unwrap() };
        inbound(&mut headers, verified, settings, "orders:8080", &mut rng());
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
        outbound(&mut headers, ForwardedSettings::default(), None, &mut rng());
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

    /// What the app gets of somebody in plaintext who sends this, where so many hops are believed.
    fn claimed(trusted_hops: usize, sent: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = map(sent);
        plain(&mut headers, "10.0.0.7".parse().unwrap(), trusted_hops, "orders:8080", &mut rng());
        headers
    }

    const CLAIMS: [(&str, &str); 8] = [
        ("x-forwarded-client-cert", "By=x;URI=spiffe://demo.outrider/admin"),
        ("x-forwarded-for", "1.1.1.1, 2.2.2.2,3.3.3.3"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "8443"),
        ("x-real-ip", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1, for=\"2.2.2.2\";proto=https"),
        ("x-request-id", "id-1"),
    ];

    #[test]
    fn whoever_comes_in_plaintext_is_told_by_its_address_and_nothing_else() {
        let told = [
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "orders:8080"),
            ("x-forwarded-port", "8080"),
            ("x-request-id", "id-1"),
        ];
        assert_eq!(claimed(0, &CLAIMS), map(&told));
    }

    #[test]
    fn a_trusted_gateway_says_who_called_it_and_nobody_before_it_does() {
        let told = |list, forwarded| {
            map(&[
                ("x-forwarded-for", list),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop.example"),
                ("x-forwarded-port", "8443"),
                ("forwarded", forwarded),
                ("x-request-id", "id-1"),
            ])
        };
        let one = told("3.3.3.3, 10.0.0.7", "for=\"2.2.2.2\";proto=https, for=10.0.0.7");
        assert_eq!(claimed(1, &CLAIMS), one);
        let all = "for=1.1.1.1, for=\"2.2.2.2\";proto=https, for=10.0.0.7";
        assert_eq!(claimed(2, &CLAIMS), told("2.2.2.2, 3.3.3.3, 10.0.0.7", all));
        let mut everybody = told("1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.7", all);
        everybody.insert(REAL_IP.clone(), HeaderValue::from_static("1.1.1.1"));
        assert_eq!(claimed(9, &CLAIMS), everybody);
    }

    #[test]
    fn a_real_address_is_one_that_a_trusted_gateway_has_told_twice() {
        for (hops, list, real, passes) in [
            (1, "1.1.1.1, 2.2.2.2", "2.2.2.2", true),
            (1, "1.1.1.1, 2.2.2.2", "1.1.1.1", false),
            (2, "1.1.1.1, 2.2.2.2", "1.1.1.1", true),
            (1, "", "1.1.1.1", false),
            (1, "", "", false),
            (0, "1.1.1.1", "1.1.1.1", false),
            (1, "1.1.1.1", "1.1.1.1, 2.2.2.2", false),
        ] {
            let headers = claimed(hops, &[("x-forwarded-for", list), ("x-real-ip", real)]);
            assert_eq!(headers.contains_key(&REAL_IP), passes, "{hops} {list} {real}");
        }
    }

    #[test]
    fn claims_over_several_lines_are_one_list_and_what_cannot_be_a_list_is_nobodys() {
        let twice = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-real-ip", "1.1.1.1"),
            ("x-real-ip", "2.2.2.2"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-host", "b.example"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-port", "2"),
        ];
        let headers = claimed(1, &twice);
        assert_eq!(values(&headers, "x-forwarded-for"), [b"2.2.2.2, 10.0.0.7"]);
        assert!(!headers.contains_key(&REAL_IP));
        assert_eq!(values(&headers, "x-forwarded-host"), [b"orders:8080"]);
        assert_eq!(values(&headers, "x-forwarded-port"), [b"8080"]);
        // Behind an open quote, what is appended would be a part of the claim.
        for open in ["for=\"1.1.1.1", "for=1.1.1.1;by=\"x, for=2.2.2.2"] {
            assert!(!claimed(1, &[("forwarded", open)]).contains_key(&FORWARDED));
            assert!(!receive(&[("forwarded", open)]).contains_key(&FORWARDED));
        }
    }

    #[test]
    fn host_and_port_are_told_where_nobody_has_said_them_well() {
        for (sent, host, port) in [
            (vec![], "orders:8080", "8080"),
            (vec![("x-forwarded-host", "shop.example")], "shop.example", "443"),
            (vec![("x-forwarded-host", "shop.example"), ("x-forwarded-proto", "http")], "shop.example", "80"),
            (vec![("x-forwarded-host", "a.example:81, b.example")], "a.example:81, b.example", "81"),
            (vec![("x-forwarded-host", "a b")], "orders:8080", "8080"),
            (vec![("x-forwarded-host", "user@a.example")], "orders:8080", "8080"),
            (vec![("x-forwarded-host", "")], "orders:8080", "8080"),
            (vec![("x-forwarded-port", "65535")], "orders:8080", "65535"),
            (vec![("x-forwarded-port", "65536")], "orders:8080", "8080"),
            (vec![("x-forwarded-port", "+1")], "orders:8080", "8080"),
        ] {
            let headers = receive(&sent);
            assert_eq!(values(&headers, "x-forwarded-host"), [host.as_bytes()], "{sent:?}");
            assert_eq!(values(&headers, "x-forwarded-port"), [port.as_bytes()], "{sent:?}");
        }
        let mut nobody = map(&[("x-forwarded-port", "x")]);
        plain(&mut nobody, "10.0.0.7".parse().unwrap(), 1, "", &mut rng());
        assert!(!nobody.contains_key(&FORWARDED_HOST) && !nobody.contains_key(&FORWARDED_PORT));
    }

    #[test]
    fn a_peers_address_ends_forwarded_where_there_is_one() {
        let headers = receive(&[("forwarded", "for=1.1.1.1"), ("forwarded", "for=2.2.2.2")]);
        assert_eq!(values(&headers, "forwarded"), [b"for=1.1.1.1, for=2.2.2.2, for=10.0.0.7"]);
        assert!(!receive(&[]).contains_key(&FORWARDED));
        let mut headers = map(&[("forwarded", "for=1.1.1.1")]);
        plain(&mut headers, "2001:db8::1".parse().unwrap(), 1, "orders", &mut rng());
        assert_eq!(values(&headers, "forwarded"), [b"for=1.1.1.1, for=\"[2001:db8::1]\""]);
    }

    #[test]
    fn a_chain_of_client_certificates_ends_with_ours() {
        let append = ForwardedSettings { client_cert: ClientCert::Append };
        let ours = "By=spiffe://demo.outrider/orders;URI=spiffe://demo.outrider/ns/shop/sa/cart";
        let before = "By=spiffe://a/b;Subject=\"CN=a, O=b\"";
        for (sent, expected) in [
            (vec![], ours.to_owned()),
            (vec![before], format!("{before},{ours}")),
            (vec![before, "By=x"], format!("{before},By=x,{ours}")),
            (vec!["Subject=\"CN=a"], ours.to_owned()),
        ] {
            let fields: Vec<_> = sent.iter().map(|value| ("x-forwarded-client-cert", *value)).collect();
            let headers = receive_with(append, &fields);
            assert_eq!(values(&headers, "x-forwarded-client-cert"), [expected.as_bytes()], "{sent:?}");
        }
        let off = ForwardedSettings { client_cert: ClientCert::Off };
        assert!(!receive_with(off, &[("x-forwarded-client-cert", before)]).contains_key(&CLIENT_CERT));
        for (settings, passes) in [(append, true), (off, false), (ForwardedSettings::default(), false)] {
            let mut headers = map(&[("x-forwarded-client-cert", before)]);
            outbound(&mut headers, settings, None, &mut rng());
            assert_eq!(headers.contains_key(&CLIENT_CERT), passes, "{settings:?}");
            outside(&mut headers);
            assert!(!headers.contains_key(&CLIENT_CERT));
        }
    }

    #[test]
    fn whom_the_app_asked_for_is_told_where_another_is_asked() {
        let told = |sent: &[(&'static str, &str)]| {
            let mut headers = map(sent);
            outbound(&mut headers, ForwardedSettings::default(), Some("shop.example"), &mut rng());
            headers.get("x-forwarded-host").cloned().unwrap()
        };
        assert_eq!(told(&[]), "shop.example");
        assert_eq!(told(&[("x-forwarded-host", "a.example")]), "a.example");
        assert!(!send(&[]).contains_key(&FORWARDED_HOST));
    }

    #[test]
    fn a_mapped_address_is_written_as_ipv4() {
        let mut headers = HeaderMap::new();
        let (peer, own) = (peer(), own());
        let verified = Verified { peer: &peer, own: &own, address: "::ffff:10.0.0.7".parse().unwrap() };
        inbound(&mut headers, verified, ForwardedSettings::default(), "", &mut rng());
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
