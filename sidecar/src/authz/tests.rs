use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use outrider_certs::TrustDomain;
use proptest::prelude::*;

use super::*;
use crate::{
    canonical::{self, Care},
    model::authorization::Whose,
};

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn web() -> SpiffeId {
    id("spiffe://shop.mesh/ns/shop/sa/web")
}

fn from_web() -> Callers {
    Callers { ids: vec![web()], ..Callers::default() }
}

fn rule(name: &str, http: Option<HttpRule>) -> Rule {
    Rule { name: name.into(), from: from_web(), ports: Vec::new(), http }
}

fn of_path(path: PathRule) -> Option<HttpRule> {
    Some(HttpRule { paths: vec![path], ..HttpRule::default() })
}

/// What a request is made of: method, path, authority, fields.
type Sent<'a> = (&'a Method, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Why a rule does not fit a request of `web`; empty: it does.
fn why(http: HttpRule, (method, path, authority, headers): Sent<'_>) -> String {
    let rules = Authorization::new(Mode::Enforce, vec![rule("a", Some(http))]);
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    let fields = Fields::of(&map, &rules);
    let request = Request { method, path, authority, fields: &fields };
    let misfit = misfit(&rules.rules()[0], &web(), 80, Asked::Request(request));
    let verdict = judge(&rules, &web(), 80, Asked::Request(request));
    assert_eq!(misfit.is_none(), matches!(verdict, Verdict::Allowed(_)));
    misfit.map_or_else(String::new, |misfit| format!("{misfit:?}"))
}

fn get(path: &str) -> Sent<'_> {
    (&Method::GET, path, "orders", &[])
}

#[test]
fn who_calls_is_told_by_the_parts_of_an_id() {
    let namespace = |domain: &str, name: &str| Callers {
        namespaces: vec![Namespace { trust_domain: TrustDomain::parse(domain).unwrap(), name: name.into() }],
        ..Callers::default()
    };
    let whole = |domain: &str| Callers {
        trust_domains: vec![TrustDomain::parse(domain).unwrap()],
        ..Callers::default()
    };
    for (from, caller, fits) in [
        (from_web(), "spiffe://shop.mesh/ns/shop/sa/web", true),
        (from_web(), "spiffe://shop.mesh/ns/shop/sa/web2", false),
        (from_web(), "spiffe://shop.mesh/ns/shop/sa/web/a", false),
        (from_web(), "spiffe://shopxmesh/ns/shop/sa/web", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/shop/sa/anybody", true),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/shop2/sa/web", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/Shop/sa/web", false),
        (namespace("shop.mesh", "shop"), "spiffe://evil.mesh/ns/shop/sa/web", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/shop", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/shop/sa", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/shop/pod/web", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/ns/shop/sa/web/extra", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh/x/ns/shop/sa/web", false),
        (namespace("shop.mesh", "shop"), "spiffe://shop.mesh", false),
        (whole("shop.mesh"), "spiffe://shop.mesh/anything", true),
        (whole("shop.mesh"), "spiffe://shop.mesh", false),
        (whole("shop.mesh"), "spiffe://shop.mesh.evil/anything", false),
        (Callers::default(), "spiffe://shop.mesh/anything", false),
    ] {
        let rule = Rule { from, ..rule("a", None) };
        let found = misfit(&rule, &id(caller), 80, Asked::Stream);
        assert_eq!(found.is_none(), fits, "{caller} {rule:?}");
    }
}

#[test]
fn a_rule_is_of_its_ports() {
    let rule = Rule { ports: vec![80, 90], ..rule("a", None) };
    let fits = |port| misfit(&rule, &web(), port, Asked::Stream);
    assert_eq!((fits(80), fits(90), fits(8080)), (None, None, Some(Misfit::Port)));
}

#[test]
fn a_rule_about_requests_never_fits_a_stream() {
    let rule = rule("a", Some(HttpRule { methods: vec![Method::GET], ..HttpRule::default() }));
    assert_eq!(misfit(&rule, &web(), 80, Asked::Stream), Some(Misfit::Stream));
}

#[test]
fn a_host_fits_whatever_the_port_and_a_port_fits_itself() {
    let asked = |host: &str, authority: &str| {
        why(HttpRule { hosts: vec![host.into()], ..HttpRule::default() }, (&Method::GET, "/", authority, &[]))
    };
    for (host, authority, fits) in [
        ("orders", "orders", true),
        ("orders", "orders:8080", true),
        ("orders:8080", "orders:8080", true),
        ("orders:8080", "orders", false),
        ("orders:8080", "orders:80", false),
        ("orders", "orders.shop", false),
        ("[2001:db8::1]", "[2001:db8::1]:80", true),
        ("orders", "", false),
    ] {
        assert_eq!(asked(host, authority), if fits { "" } else { "Host" }, "{host} {authority}");
    }
}

#[test]
fn a_path_fits_whole_or_by_its_segments() {
    let exact = |rule: &str, path| why(of_path(PathRule::Exact(rule.into())).unwrap(), get(path));
    let prefix = |rule: &str, path| why(of_path(PathRule::Prefix(rule.into())).unwrap(), get(path));
    assert_eq!(exact("/healthz", "/healthz"), "");
    for path in ["/healthz/", "/Healthz", "/healthz2", "/", "*"] {
        assert_eq!(exact("/healthz", path), "Path", "{path}");
    }
    for path in ["/items", "/items/", "/items/1/a"] {
        assert_eq!(prefix("/items", path), "", "{path}");
    }
    for path in ["/itemsecret", "/Items", "/", "/a/items", "*"] {
        assert_eq!(prefix("/items", path), "Path", "{path}");
    }
    assert_eq!((prefix("", "/anything"), prefix("", "*")), (String::new(), "Path".to_owned()));
}

#[test]
fn a_method_fits_letter_by_letter() {
    let asked = |method: &Method| {
        let http = HttpRule { methods: vec![Method::GET, Method::HEAD], ..HttpRule::default() };
        why(http, (method, "/", "orders", &[]))
    };
    assert_eq!(asked(&Method::HEAD), "");
    for method in [Method::POST, Method::from_bytes(b"get").unwrap(), Method::from_bytes(b"GETX").unwrap()] {
        assert_eq!(asked(&method), "Method", "{method}");
    }
    assert_eq!(Request::method(&Method::CONNECT), Method::GET, "a WebSocket over HTTP/2");
}

#[test]
fn a_field_fits_once_in_ascii_and_end_to_end() {
    let asked = |value: Option<&'static str>, headers: &[(&str, &str)]| {
        let team =
            FieldRule { name: HeaderName::from_static("x-team"), value: value.map(HeaderValue::from_static) };
        let there = FieldRule { name: HeaderName::from_static("x-there"), value: None };
        let http = HttpRule { headers: vec![there, team], ..HttpRule::default() };
        why(http, (&Method::GET, "/", "orders", headers)).contains("x-team")
    };
    let (there, team) = (("x-there", "1"), ("x-team", "a"));
    assert!(!asked(Some("a"), &[there, team]) && !asked(None, &[there, team]));
    for others in [
        &[][..],
        &[("x-team", "A")],
        &[("x-team", "a,a")],
        &[team, team],
        &[team, ("x-team", "b")],
        &[team, ("x_team", "b")],
        &[team, ("connection", "close, X-Team")],
        &[("x-team", "\u{e4}")],
    ] {
        assert!(asked(Some("a"), &[&[there], others].concat()), "{others:?}");
    }
    for others in [&[][..], &[team, team], &[("x-team", "\u{e4}")], &[("x_team", "a")]] {
        assert!(asked(None, &[&[there], others].concat()), "{others:?}");
    }
}

#[test]
fn a_call_of_grpc_is_a_post_with_its_own_content_type() {
    let asked = |method: Option<&str>, sent: Sent<'_>| {
        let call = GrpcRule { service: "shop.Orders".into(), method: method.map(Into::into) };
        why(HttpRule { grpc: vec![call], ..HttpRule::default() }, sent)
    };
    let sent = |path, kind| [(path, kind)];
    for (method, path, kind, fits) in [
        (None, "/shop.Orders/Get", "application/grpc", true),
        (None, "/shop.Orders/Put", "application/grpc+proto", true),
        (Some("Get"), "/shop.Orders/Get", "application/grpc;v=1", true),
        (Some("Get"), "/shop.Orders/Put", "application/grpc", false),
        (Some("Get"), "/shop.Orders/Get/", "application/grpc", false),
        (None, "/shop.Orders/", "application/grpc", false),
        (None, "/shop.Orders", "application/grpc", false),
        (None, "/shop.Orders2/Get", "application/grpc", false),
        (None, "/shop/Orders/Get", "application/grpc", false),
        (None, "/x/shop.Orders/Get", "application/grpc", false),
        (None, "/shop.Orders/Get/more", "application/grpc", false),
        (None, "/shop.Orders/Get", "application/grpc-web", false),
        (None, "/shop.Orders/Get", "text/plain", false),
    ] {
        for (path, kind) in sent(path, kind) {
            let found = asked(method, (&Method::POST, path, "orders", &[("content-type", kind)]));
            assert_eq!(found, if fits { "" } else { "Grpc" }, "{path} {kind}");
        }
    }
    assert_eq!(
        asked(None, (&Method::GET, "/shop.Orders/Get", "o", &[("content-type", "application/grpc")])),
        "Grpc"
    );
    let twice = [("content-type", "application/grpc"), ("content-type", "application/grpc")];
    assert_eq!(asked(None, (&Method::POST, "/shop.Orders/Get", "o", &twice)), "Grpc");
}

#[test]
fn the_first_rule_that_fits_gives_the_verdict_and_none_denies() {
    let by_path = rule("b", of_path(PathRule::Exact("/b".into())));
    let rules = vec![rule("a", of_path(PathRule::Exact("/a".into()))), by_path, rule("c", None)];
    let verdict = |mode, rules: &[Rule], path| {
        let rules = Authorization::new(mode, rules.to_vec());
        let fields = Fields::default();
        let request = Request { method: &Method::GET, path, authority: "o", fields: &fields };
        match judge(&rules, &web(), 80, Asked::Request(request)) {
            Verdict::Allowed(rule) => rule.name.to_string(),
            verdict @ (Verdict::Denied | Verdict::Audited) => format!("{verdict:?} {}", verdict.passes()),
        }
    };
    assert_eq!(verdict(Mode::Enforce, &rules, "/b"), "b");
    assert_eq!(verdict(Mode::Enforce, &rules, "/x"), "c");
    assert_eq!(verdict(Mode::Enforce, &rules[..2], "/x"), "Denied false");
    assert_eq!(verdict(Mode::Audit, &rules[..2], "/x"), "Audited true");
    assert_eq!(verdict(Mode::Enforce, &[], "/x"), "Denied false");
}

#[test]
fn every_layer_must_let_a_call_pass() {
    let to = |path: &str| rule(path, of_path(PathRule::Exact(path.into())));
    let layers = |file: (Mode, &[&str]), told: (Mode, &[&str])| {
        let [file, told] = [file, told]
            .map(|(mode, paths)| Authorization::new(mode, paths.iter().map(|path| to(path)).collect()));
        let both = file.and(told.by(Whose::Controller));
        ["/a", "/b"].map(|path| {
            let fields = Fields::default();
            let request = Request { method: &Method::GET, path, authority: "o", fields: &fields };
            judge(&both, &web(), 80, Asked::Request(request)).index()
        })
    };
    let (enforce, audit) = (Mode::Enforce, Mode::Audit);
    let [allowed, denied, audited] = [0, 1, 2];
    assert_eq!(layers((enforce, &["/a", "/b"]), (enforce, &["/b"])), [denied, allowed]);
    assert_eq!(layers((enforce, &["/a"]), (enforce, &["/b"])), [denied, denied]);
    assert_eq!(layers((audit, &["/a"]), (enforce, &["/b"])), [denied, audited]);
    assert_eq!(layers((enforce, &["/b"]), (audit, &["/a"])), [denied, audited]);
    assert_eq!(layers((audit, &["/a"]), (audit, &["/a"])), [allowed, audited]);
    assert_eq!(layers((enforce, &["/a"]), (enforce, &[])), [denied, denied]);
}

#[test]
fn what_is_kept_is_judged_as_what_was_asked() {
    let field = FieldRule { name: HeaderName::from_static("x-team"), value: None };
    let http = HttpRule {
        hosts: vec!["o:1".into()],
        methods: vec![Method::PUT],
        paths: vec![PathRule::Exact("/a".into())],
        headers: vec![field],
        grpc: Vec::new(),
    };
    let rules = Authorization::new(Mode::Enforce, vec![rule("a", Some(http))]);
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_static("a"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let fields = Fields::of(&headers, &rules);
    assert_eq!(fields.get(&CONTENT_TYPE), None, "no rule looks at it");
    let request = Request { method: &Method::PUT, path: "/a", authority: "o:1", fields: &fields };
    let kept = Kept::from(Asked::Request(request));
    assert!(matches!(judge(&rules, &web(), 80, kept.asked()), Verdict::Allowed(_)));
    assert!(matches!(judge(&rules, &web(), 80, Kept::from(Asked::Stream).asked()), Verdict::Denied));
}

fn domains() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("shop.mesh"), Just("shop.mes"), Just("shop.meshh"), Just("evil.mesh"), Just("mesh")]
}

fn namespaces() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("shop"), Just("sho"), Just("shopp"), Just("sa"), Just("ns"), Just("web")]
}

/// Ways to write the characters of a path.
fn spelled(path: String) -> impl Strategy<Value = String> {
    let count = path.len();
    (Just(path), proptest::collection::vec(0..8_u8, count)).prop_map(|(path, ways)| {
        path.bytes()
            .zip(ways)
            .map(|(byte, way)| match (byte, way) {
                (b'/', 0) => "//".to_owned(),
                (b'/', 1) => "/./".to_owned(),
                (b'/', 2) => "/x/../".to_owned(),
                (b'/', 3) => "%2f".to_owned(),
                (b'/', 4) => "/;a/".to_owned(),
                (_, 0) => format!("%{byte:02x}"),
                (_, 1) => format!("%{byte:02X}"),
                _ => char::from(byte).to_string(),
            })
            .collect()
    })
}

proptest! {
    /// S22: whoever is of another namespace or another trust domain is never meant.
    #[test]
    fn no_rule_fits_a_caller_of_another_namespace_or_trust_domain(
        (domain, name) in (domains(), namespaces()),
        (other_domain, other_name) in (domains(), namespaces()),
        account in "[a-z]{1,4}",
    ) {
        let trust_domain = TrustDomain::parse(domain).unwrap();
        let from = Callers {
            namespaces: vec![Namespace { trust_domain: trust_domain.clone(), name: name.into() }],
            ..Callers::default()
        };
        let of_namespace = Rule { from, ..rule("a", None) };
        let whole = Callers { trust_domains: vec![trust_domain], ..Callers::default() };
        let of_domain = Rule { from: whole, ..rule("b", None) };
        let caller = id(&format!("spiffe://{other_domain}/ns/{other_name}/sa/{account}"));
        let fits = |rule| misfit(rule, &caller, 80, Asked::Stream).is_none();
        prop_assert_eq!(fits(&of_namespace), domain == other_domain && name == other_name);
        prop_assert_eq!(fits(&of_domain), domain == other_domain);
    }

    /// S7: what one spelling of a path is allowed, its canonical form is; for that is what is judged, and what goes on.
    #[test]
    fn a_spelling_is_allowed_what_its_canonical_form_is(
        (path, sent) in "(/[a-c;]{1,2}){1,3}".prop_flat_map(|path| (Just(path.clone()), spelled(path))),
        is_exact in any::<bool>(),
        depth in 1..3_usize,
    ) {
        let Ok(canonical) = canonical::path(&sent, Care::Judged) else { return Ok(()) };
        let segments: Vec<&str> = path.split('/').skip(1).take(depth).collect();
        let text = format!("/{}", segments.join("/"));
        let http = of_path(if is_exact { PathRule::Exact(text.into()) } else { PathRule::Prefix(text.into()) }).unwrap();
        let again = canonical::path(&canonical, Care::Judged).unwrap();
        prop_assert_eq!(&again, &canonical);
        // Read literally, as an app does that decodes nothing, segment by segment.
        let is_allowed = why(http.clone(), get(&canonical)).is_empty();
        let (PathRule::Exact(rule) | PathRule::Prefix(rule)) = &http.paths[0];
        let seen: Vec<&str> = canonical.split('/').collect();
        let named: Vec<&str> = rule.split('/').collect();
        prop_assert_eq!(is_allowed, if is_exact { seen == named } else { seen.starts_with(&named) });
    }
}
