//! What one spelling of a call is allowed, its one spelling is, whatever the rules are: over generated rules and spellings.
//!
//! The rules are read a second time here, as literally as can be, by [`Literal`]: on whole texts and lists of segments, and
//! knowing nothing of how the program does it.

use std::sync::Arc;

use http::{HeaderValue, header::CONTENT_TYPE};
use outrider_certs::TrustDomain;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    headers::framing::check_method,
    model::{
        ClusterName,
        cluster::AppProtocol,
        fixture,
        listener::{Exceptions, Protocol},
        transport::PeerKind,
    },
};

/// The caller's port of the app; rules are about this and about others.
const PORT: u16 = 80;
const CALLERS: [&str; 5] = [
    "spiffe://test.mesh/ns/shop/sa/web",
    "spiffe://test.mesh/ns/shop/sa/cart",
    "spiffe://test.mesh/ns/bills/sa/web",
    "spiffe://other.mesh/ns/shop/sa/web",
    "spiffe://test.mesh/web",
];
const SEGMENTS: [&str; 8] = ["a", "b", "admin", "items", "A", "a.b", "a%3Fb", "%C3%A4"];
const HOSTS: [&str; 6] = ["orders", "orders:80", "carts.shop.svc", "10.0.0.7:80", "[::1]", "[fd00::a]:80"];
const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "OPTIONS", "BREW"];

/// A call as it is meant, every text in its one spelling.
#[derive(Clone, Debug)]
struct Literal {
    caller: &'static str,
    method: &'static str,
    host: &'static str,
    /// `/`, or segments with or without a slash at the end.
    path: String,
    is_grpc: bool,
}

impl Literal {
    /// Whether a rule fits it, read literally.
    fn fits(&self, rule: &Rule) -> bool {
        let any = |list: &[bool]| list.is_empty() || list.contains(&true);
        let Callers { ids, namespaces, trust_domains } = &rule.from;
        let begins = |begin: String| self.caller.starts_with(&begin);
        let is_from = ids.iter().any(|id| id.as_str() == self.caller)
            || namespaces.iter().any(|it| begins(format!("spiffe://{}/ns/{}/sa/", it.trust_domain, it.name)))
            || trust_domains.iter().any(|domain| begins(format!("spiffe://{domain}/")));
        let is_port = any(&rule.ports.iter().map(|port| *port == PORT).collect::<Vec<_>>());
        is_from && is_port && rule.http.as_ref().is_none_or(|http| self.fits_http(http))
    }

    fn fits_http(&self, rule: &HttpRule) -> bool {
        let any = |list: Vec<bool>| list.is_empty() || list.contains(&true);
        let bare = self.host.strip_suffix(":80").unwrap_or(self.host);
        let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let is_path = |rule: &PathRule| match rule {
            PathRule::Exact(exact) => segments(&self.path) == segments(exact),
            PathRule::Prefix(prefix) => segments(&self.path).starts_with(&segments(prefix)),
        };
        let is_call = |call: &GrpcRule| match &segments(&self.path)[..] {
            [_, service, method] => {
                self.is_grpc
                    && self.method == "POST"
                    && **service == *call.service
                    && !method.is_empty()
                    && call.method.as_ref().is_none_or(|named| **named == **method)
            }
            _ => false,
        };
        any(rule.hosts.iter().map(|host| **host == *self.host || **host == *bare).collect())
            && any(rule.methods.iter().map(|method| method.as_str() == self.method).collect())
            && any(rule.paths.iter().map(is_path).collect())
            && any(rule.grpc.iter().map(is_call).collect())
    }

    fn allowed<'a>(&self, rules: &'a Authorization) -> Option<&'a str> {
        rules.rules().iter().find(|rule| self.fits(rule)).map(|rule| &*rule.name)
    }
}

/// That call as somebody sends it.
#[derive(Clone, Debug)]
struct Spelled {
    method: String,
    host: String,
    path: String,
}

/// What becomes of it: refused before any rule, or the path that goes on and the rule that allows it.
fn judged(
    settings: &Settings,
    literal: &Literal,
    sent: &Spelled,
) -> Result<(String, Option<String>), String> {
    let method = Method::from_bytes(sent.method.as_bytes()).map_err(|error| error.to_string())?;
    check_method(&method).map_err(|error| error.to_string())?;
    let authority = canonical::authority(&sent.host).ok_or("no authority")?;
    let mut headers = HeaderMap::new();
    let kind = if literal.is_grpc { "application/grpc" } else { "text/plain" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let request = Sent { method: &method, path: &sent.path, authority: &authority, headers: &headers };
    let caller = (&literal.caller.parse().unwrap(), PORT);
    let Judged { path, verdict } =
        of_request(settings, &inbound(), caller, request).map_err(|error| error.to_string())?;
    let rule = match verdict.unwrap() {
        Verdict::Allowed(rule) => Some(rule.name.to_string()),
        verdict @ (Verdict::Denied | Verdict::Audited) => {
            assert!(!verdict.passes() || settings.authorization.as_ref().unwrap().mode() == Mode::Audit);
            None
        }
    };
    Ok((path.into_owned(), rule))
}

fn inbound() -> Inbound {
    Inbound {
        app: ClusterName::new("inbound/in"),
        port: Some(PORT),
        protocol: Protocol::Http,
        app_protocol: AppProtocol::Http1,
        peer: PeerKind::Outrider,
        allow: Vec::new(),
        exceptions: Exceptions::default(),
        proxy_protocol: None,
        app_proxy_protocol: None,
    }
}

fn settings(rules: Authorization) -> Settings {
    Settings { authorization: Some(Arc::new(rules)), ..fixture::config(&[]) }
}

/// Some of these; often none.
fn some<T: Clone + std::fmt::Debug + 'static>(
    of: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![2 => Just(0..1_usize), 1 => Just(1..3)].prop_flat_map({
        let of = of.boxed();
        move |count| vec(of.clone(), count)
    })
}

fn path() -> impl Strategy<Value = String> {
    (vec(select(&SEGMENTS[..]), 0..4), any::<bool>()).prop_map(|(segments, is_folder)| {
        let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if is_folder || path.is_empty() { path + "/" } else { path }
    })
}

fn callers() -> impl Strategy<Value = Callers> {
    let domain = select(&["test.mesh", "other.mesh"][..]).prop_map(|name| TrustDomain::parse(name).unwrap());
    let namespace = (domain.clone(), select(&["shop", "bills"][..]))
        .prop_map(|(trust_domain, name)| Namespace { trust_domain, name: name.into() });
    prop_oneof![
        select(&CALLERS[..]).prop_map(|id| Callers { ids: vec![id.parse().unwrap()], ..Callers::default() }),
        namespace.prop_map(|it| Callers { namespaces: vec![it], ..Callers::default() }),
        domain.prop_map(|it| Callers { trust_domains: vec![it], ..Callers::default() }),
    ]
}

/// Mostly `near`, so that rules fit often enough.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    near: T,
    others: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![2 => Just(near), 1 => others]
}

/// A path, or the beginning of one, of whole segments.
fn path_rule(near: &str) -> impl Strategy<Value = PathRule> + use<> {
    let near: Vec<String> = near.split('/').map(str::to_owned).collect();
    let beginning = (1..=near.len()).prop_map(move |count| near[..count].join("/"));
    let rule = |(path, is_exact): (String, bool)| match is_exact && !path.is_empty() {
        true => PathRule::Exact(path.into()),
        false => PathRule::Prefix(path.trim_end_matches('/').into()),
    };
    (prop_oneof![2 => beginning, 1 => path()], any::<bool>()).prop_map(rule)
}

fn http_rule(near: &Literal) -> impl Strategy<Value = HttpRule> + use<> {
    let call = (select(&["a.b", "items"][..]), proptest::option::of(Just("admin")))
        .prop_map(|(service, method)| GrpcRule { service: service.into(), method: method.map(Into::into) });
    let host = mostly(near.host, select(&HOSTS[..])).prop_map(Box::<str>::from);
    let method = mostly(near.method, select(&METHODS[..]));
    let method = method.prop_map(|method| Method::from_bytes(method.as_bytes()).unwrap());
    (some(host), some(method), some(path_rule(&near.path).boxed()), some(call)).prop_map(
        |(hosts, methods, paths, grpc)| HttpRule { hosts, methods, paths, headers: Vec::new(), grpc },
    )
}

/// A call, and rules as the file can have them, of which some are about calls like it.
fn asked(mode: Mode) -> impl Strategy<Value = (Authorization, Literal)> {
    literal().prop_flat_map(move |call| {
        let ports = prop_oneof![3 => Just(vec![]), 1 => Just(vec![PORT]), 1 => Just(vec![90])];
        let own = Callers { ids: vec![call.caller.parse().unwrap()], ..Callers::default() };
        let rule = (mostly(own, callers()), ports, proptest::option::weighted(0.95, http_rule(&call)));
        let rules = vec(rule, 0..5).prop_map(move |rules| {
            let named = rules.into_iter().enumerate().map(|(index, (from, ports, http))| Rule {
                name: format!("r{index}").into(),
                from,
                ports,
                http,
            });
            Authorization::new(mode, named.collect())
        });
        (rules, Just(call))
    })
}

fn literal() -> impl Strategy<Value = Literal> {
    (select(&CALLERS[..]), select(&METHODS[..]), select(&HOSTS[..]), path(), any::<bool>())
        .prop_map(|(caller, method, host, path, is_grpc)| Literal { caller, method, host, path, is_grpc })
}

/// The ways to write a character of a path that mean the same to every reader, with every care.
const SAFE: u8 = 4;
/// Those that do where empty segments go.
const MERGED: u8 = 5;
/// All of them: the others are tricks.
const TRICKS: u8 = 16;

/// A path with its characters written in these ways, of the first `most` that are known.
fn path_spelled(path: &str, ways: &[u8], most: u8) -> String {
    let mut out = String::new();
    // Digits of an escape that are still to come.
    let mut digits = 0_u8;
    for (byte, way) in path.bytes().zip(ways) {
        let is_escape = byte == b'%' || digits > 0;
        digits = if byte == b'%' { 2 } else { digits.saturating_sub(1) };
        let letter = char::from(byte);
        let is_trick = *way >= MERGED && *way < most;
        match (byte, way) {
            (b'/', 0) => out += "/./",
            (b'/', 1) => out += "/x/../",
            (b'/', 2) => out += "/%2e/",
            (b'/', 3) => out += "/y/%2E%2e/",
            (b'/', 4) if most >= MERGED => out += "//",
            (b'/', 10) if is_trick => out += "%2f",
            (b'/', 11) if is_trick => out += "/../",
            (b'/', 12) if is_trick => out += "/;a/",
            (b'/', 13) if is_trick => out += "\\",
            (b'/', 14) if is_trick => out += "/..;/",
            (b'/', 15) if is_trick => out += "%5c",
            (_, 10) if is_trick => out += &format!("%25{byte:02x}"),
            (_, 11) if is_trick => out += &format!("{letter}%00"),
            (_, 12) if is_trick => out += &format!("{letter};b=1"),
            (_, 13) if is_trick => out.push(letter.to_ascii_uppercase()),
            (_, 14) if is_trick => out += &format!("{letter}/../"),
            (_, 15) if is_trick => out += &format!("{letter}%2f..%2f"),
            (_, 0) if is_escape => out.push(letter.to_ascii_lowercase()),
            (_, 0 | 1) if byte != b'/' && !is_escape => out += &format!("%{byte:02x}"),
            (_, 2 | 3) if byte != b'/' && !is_escape => out += &format!("%{byte:02X}"),
            _ => out.push(letter),
        }
    }
    out
}

/// Letters of either case, as `ways` says; a dot at the end of a name, an empty port.
fn host_spelled(host: &str, ways: &[u8]) -> String {
    let cased: String = host
        .chars()
        .zip(ways)
        .map(|(letter, way)| if way % 2 == 0 { letter.to_ascii_uppercase() } else { letter })
        .collect();
    let (name, port) = cased.rsplit_once(":80").map_or((&*cased, ""), |(name, _)| (name, ":80"));
    match ways.first() {
        Some(0 | 1) if !name.contains('[') => format!("{name}.{port}"),
        Some(2 | 3) if port.is_empty() => format!("{name}:"),
        _ => cased,
    }
}

fn ways() -> impl Strategy<Value = Vec<u8>> {
    // Most characters are plain.
    vec(prop_oneof![12 => Just(99_u8), 3 => 0..MERGED, 1 => MERGED..TRICKS], 64)
}

/// What is generated is about something: rules that look at paths allow spellings that are not canonical, and deny others.
#[test]
fn the_generated_calls_are_allowed_and_denied_by_their_spelling() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut denied, mut refused) = (0, 0, 0);
    for _ in 0..1000 {
        let case = (asked(Mode::Enforce), ways()).new_tree(&mut runner).unwrap().current();
        let ((rules, call), path_ways) = case;
        let settings = settings(rules);
        let path = path_spelled(&call.path, &path_ways, TRICKS);
        let sent = Spelled { method: call.method.to_owned(), host: call.host.to_owned(), path: path.clone() };
        let by_path = |name: &str| {
            let rules = settings.authorization.as_ref().unwrap().rules();
            let rule = rules.iter().find(|rule| &*rule.name == name);
            rule.is_some_and(|rule| rule.http.as_ref().is_some_and(|http| !http.paths.is_empty()))
        };
        match judged(&settings, &call, &sent) {
            Ok((seen, Some(rule))) => allowed += usize::from(seen != path && by_path(&rule)),
            Ok((_, None)) => denied += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(allowed > 30 && denied > 100 && refused > 100, "{allowed} {denied} {refused}");
}

#[test]
fn what_a_dot_segment_hides_is_allowed_on_trial_no_more_than_in_force() {
    let from = Callers { ids: vec![CALLERS[0].parse().unwrap()], ..Callers::default() };
    let http = HttpRule { paths: vec![PathRule::Prefix("/items".into())], ..HttpRule::default() };
    let rules = [Rule { name: "items".into(), from, ports: Vec::new(), http: Some(http) }];
    let (caller, headers) = (CALLERS[0].parse().unwrap(), HeaderMap::new());
    for path in ["/items/a;b=1/../1", "/items/%2541/../1"] {
        let sent = Sent { method: &Method::GET, path, authority: "orders", headers: &headers };
        let settings = |mode| settings(Authorization::new(mode, rules.to_vec()));
        let (enforced, audited) = (settings(Mode::Enforce), settings(Mode::Audit));
        let verdict =
            |settings| of_request(settings, &inbound(), (&caller, PORT), sent).map(|judged| judged.verdict);
        assert!(verdict(&enforced).is_err(), "{path}");
        assert_eq!(verdict(&audited), Ok(Some(Verdict::Audited)), "{path}");
    }
}

#[test]
fn whoever_is_held_to_rules_on_trial_is_judged_as_in_force() {
    // Of another trust domain.
    let caller: SpiffeId = CALLERS[3].parse().unwrap();
    let from = Callers { ids: vec![caller.clone()], ..Callers::default() };
    let http = HttpRule { paths: vec![PathRule::Prefix("/items".into())], ..HttpRule::default() };
    let rules = [Rule { name: "items".into(), from, ports: Vec::new(), http: Some(http) }];
    let headers = HeaderMap::new();
    let settings = |mode| settings(Authorization::new(mode, rules.to_vec()));
    let (enforced, audited) = (settings(Mode::Enforce), settings(Mode::Audit));
    for (path, gets) in [("//items/1", Some("/items/1")), ("/items%2F1", None), ("/items/1;a", None)] {
        let sent = Sent { method: &Method::GET, path, authority: "orders", headers: &headers };
        let judged = of_request(&audited, &inbound(), (&caller, PORT), sent);
        assert_eq!(judged.as_ref().ok().map(|judged| &*judged.path), gets, "{path}");
        assert_eq!(judged, of_request(&enforced, &inbound(), (&caller, PORT), sent), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// What means the same to every reader is judged as it is meant, by which rule ever, and goes on as that.
    #[test]
    fn a_safe_spelling_is_judged_as_what_it_means(
        (rules, call) in asked(Mode::Enforce), path_ways in ways(), host_ways in ways(),
    ) {
        let settings = settings(rules);
        let rules = settings.authorization.as_deref().unwrap();
        let most = if rules.care(PORT) == Care::Judged { MERGED } else { SAFE };
        let path = path_spelled(&call.path, &path_ways, most);
        let sent =
            Spelled { method: call.method.to_owned(), host: host_spelled(call.host, &host_ways), path };
        let (seen, rule) = judged(&settings, &call, &sent).unwrap();
        prop_assert_eq!(&seen, &call.path, "{}", sent.path);
        prop_assert_eq!(rule.as_deref(), call.allowed(rules), "{:?}", sent);
    }

    /// Whatever the spelling, what is allowed is what goes on, read literally: allowed(spelling) ⇒ allowed(canonical).
    #[test]
    fn no_spelling_is_allowed_more_than_what_goes_on(
        (rules, call) in asked(Mode::Enforce), path_ways in ways(), host_ways in ways(),
        method_ways in prop_oneof![2 => Just(vec![1; 8]), 1 => vec(0..2_u8, 8)],
    ) {
        let settings = settings(rules);
        let rules = settings.authorization.as_deref().unwrap();
        let method: String = call.method.chars().zip(method_ways)
            .map(|(letter, way)| if way == 0 { letter.to_ascii_lowercase() } else { letter }).collect();
        let path = path_spelled(&call.path, &path_ways, TRICKS);
        let sent = Spelled { method: method.clone(), host: host_spelled(call.host, &host_ways), path };
        let Ok((seen, Some(rule))) = judged(&settings, &call, &sent) else { return Ok(()) };
        let again = Spelled { method, host: call.host.to_owned(), path: seen.clone() };
        prop_assert_eq!(judged(&settings, &call, &again), Ok((seen.clone(), Some(rule.clone()))));
        let read = Literal { method: again.method.leak(), path: seen.clone(), ..call.clone() };
        if rules.care(PORT) == Care::Judged {
            prop_assert!(!["//", "%2F", "%2f", ";", "/./", "/../"].iter().any(|odd| seen.contains(odd)), "{}", seen);
        }
        prop_assert_eq!(read.allowed(rules), Some(&*rule), "{:?} went on as {}", sent, seen);
    }

    /// In audit mode nothing is allowed that is not by the same rules in force, and nobody passes who could not call without.
    #[test]
    fn to_try_rules_out_opens_nothing(
        (enforced, call) in asked(Mode::Enforce), path_ways in ways(),
    ) {
        let audited = Authorization::new(Mode::Audit, enforced.rules().to_vec());
        let path = path_spelled(&call.path, &path_ways, TRICKS);
        let headers = HeaderMap::new();
        let sent = Sent { method: &Method::GET, path: &path, authority: call.host, headers: &headers };
        let caller: SpiffeId = call.caller.parse().unwrap();
        let verdict = |settings: &Settings| {
            let judged = of_request(settings, &inbound(), (&caller, PORT), sent).ok()?;
            let verdict = judged.verdict?;
            Some((verdict.passes(), matches!(verdict, Verdict::Allowed(_)).then(|| verdict.told())))
        };
        let is_own = call.caller.starts_with("spiffe://test.mesh/");
        let (enforced, audited) = (settings(enforced), settings(audited));
        if !is_own {
            let judged = |settings| of_request(settings, &inbound(), (&caller, PORT), sent);
            prop_assert_eq!(judged(&audited), judged(&enforced));
        }
        let (enforced, audited) = (verdict(&enforced), verdict(&audited));
        // As without rules: some paths are unclear only as long as empty segments stay (`/a//../b`).
        let Some((passes, rule)) = audited else { return Ok(()) };
        prop_assert_eq!(rule.clone(), enforced.and_then(|(_, rule)| rule));
        prop_assert!(!passes || is_own || rule.is_some());
    }

    /// S22: an ID is of another namespace or trust domain, or none at all, as soon as its text is, however it is spelled.
    #[test]
    fn no_rule_fits_a_caller_whose_text_is_anothers(
        from in callers(), caller in select(&CALLERS[..]),
        changes in vec((any::<prop::sample::Index>(), select(&[
            "", "/", "//", ".", "/./", "/../", "..", "%2f", "%2F", "%2e", "%", "\\", ":", ":443", "@", "u@", "*", "?", "#",
            ";", " ", "\0", "\n", "S", "M", "\u{2215}", "\u{ff0e}", "\u{430}", "-", "_", "shop", "ns", "sa", "test.mesh",
        ][..]), any::<bool>()), 1..3),
    ) {
        let mut text: Vec<char> = caller.chars().collect();
        for (at, new, replaces) in changes {
            let at = at.index(text.len());
            text.splice(at..at + usize::from(replaces), new.chars());
            if text.is_empty() {
                return Ok(());
            }
        }
        let text: String = text.into_iter().collect();
        // What is no ID is nobody: its connection is refused.
        let Ok(id) = text.parse::<SpiffeId>() else { return Ok(()) };
        let literal = Literal { caller: text.leak(), method: "GET", host: "orders", path: "/".to_owned(), is_grpc: false };
        let parts: Vec<&str> = literal.caller.split('/').collect();
        let rule = Rule { name: "a".into(), from, ports: Vec::new(), http: None };
        let fits = misfit(&rule, &id, PORT, Asked::Stream).is_none();
        // A namespace has workloads of exactly one form.
        let is_workload = parts.len() == 7 && !parts[6].is_empty();
        let expected = literal.fits(&rule) && (is_workload || rule.from.namespaces.is_empty());
        prop_assert_eq!(fits, expected, "{}", literal.caller);
    }
}
