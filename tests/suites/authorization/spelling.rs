//! What is judged is what the app gets, however it was spelled.

use std::fmt::Write as _;

use http::{HeaderValue, Method, StatusCode, Uri, header};
use outrider::canonical::{self, Care};

use super::{Bench, WEB, web_may};
use crate::harness::{body, client::request};

const OK: u16 = 200;
const DENIED: u16 = 403;
const REFUSED: u16 = 400;

#[tokio::test]
async fn a_path_is_judged_and_sent_on_in_its_one_spelling() {
    let bench = Bench::new(&web_may("path_prefixes: [/items], paths: [/version]")).await;
    let mut web = bench.peer(WEB).await;
    for (sent, expected, seen) in [
        ("/items/7", OK, "/items/7"),
        ("/%69tems/%37", OK, "/items/7"),
        ("//items//7", OK, "/items/7"),
        ("/admin/../items/7", OK, "/items/7"),
        ("/items/%2e", OK, "/items/"),
        ("/items/%c3%a4", OK, "/items/%C3%A4"),
        ("/version", OK, "/version"),
        ("/version/", DENIED, ""),
        ("/VERSION", DENIED, ""),
        ("/items/../admin", DENIED, ""),
        ("/items/%2e%2e/admin", DENIED, ""),
        ("/items/.%2E/admin", DENIED, ""),
        ("/itemsecret", DENIED, ""),
        ("/items%2f..%2fadmin", REFUSED, ""),
        ("/items%2Fadmin", REFUSED, ""),
        ("/items/..;/admin", REFUSED, ""),
        ("/items;/admin", REFUSED, ""),
        ("/items/%5c..%5cadmin", REFUSED, ""),
        ("/items/%00", REFUSED, ""),
        ("/items/%c0%ae", REFUSED, ""),
        ("/items/%", REFUSED, ""),
        ("/../items", REFUSED, ""),
    ] {
        let before = bench.app.count();
        let status = web.get(sent).await.unwrap().status();
        assert_eq!(status, expected, "{sent}");
        assert_eq!(bench.app.count() - before, usize::from(expected == OK), "{sent}");
        if expected == OK {
            assert_eq!(bench.app.seen()[before].uri.path(), seen, "{sent}");
        }
    }
}

#[tokio::test]
async fn where_no_rule_looks_at_paths_apps_may_read_them_as_they_like() {
    let bench = Bench::new(&web_may("methods: [GET]")).await;
    let mut web = bench.peer(WEB).await;
    for (count, path) in ["/a;b=1", "/a%2Fb", "/a//b"].into_iter().enumerate() {
        assert_eq!(web.get(path).await.unwrap().status(), OK, "{path}");
        assert_eq!(bench.app.seen()[count].uri.path(), path);
    }
}

#[tokio::test]
async fn a_method_in_other_letters_is_refused_with_rules_and_without() {
    for authorization in [web_may("methods: [GET]"), web_may("")] {
        let bench = Bench::new(&authorization).await;
        let mut web = bench.peer(WEB).await;
        for method in ["get", "Get", "pOST", "options"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let status = web.send(request(method.clone(), "/", body::empty())).await.unwrap().status();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{method}");
        }
        let raw = bench.raw("get / HTTP/1.1\r\nHost: orders\r\n\r\n").await;
        assert!(raw.starts_with("HTTP/1.1 400 "), "{raw}");
        assert_eq!(bench.app.count(), 0);
        // It is nobody's but its own.
        let brew = Method::from_bytes(b"brew").unwrap();
        let status = web.send(request(brew, "/", body::empty())).await.unwrap().status();
        let may = if authorization.contains("GET") { DENIED } else { OK };
        assert_eq!(status, may, "{authorization}");
    }
}

/// Made spellings of paths.
const MADE: usize = 200;
/// What they are made of: what means the same, and what only some readers take for the same.
const PIECES: [&str; 24] = [
    "/items", "/%69tems", "/ITEMS", "/admin", "/%61dmin", "/a", "/%41", "/.", "/./", "/..", "/../",
    "/%2e%2E/", "//", "/", "%2f", ";x=1", "%5c", "%3b", "%252e", "%c3%a4", "%C3%A4", "%c0%af", "%3f", ".a",
];
/// Spellings of authorities; every one has a port, so that a rule means exactly one.
const HOSTS: [&str; 5] =
    ["orders:80", "ORDERS:80", "Orders.:80", "carts.shop.svc:8080", "CARTS.shop.svc.:8080"];
const METHODS: [&str; 3] = ["GET", "DELETE", "BREW"];

/// A call as it is sent.
struct Call {
    method: &'static str,
    host: &'static str,
    path: String,
}

impl Call {
    fn made() -> Vec<Self> {
        let mut rng = fastrand::Rng::with_seed(0x0A17);
        let mut call = |_| {
            let length = rng.usize(1..6);
            let pieces = (0..length).map(|_| PIECES[rng.usize(..PIECES.len())]);
            let path: String = ["/"].into_iter().chain(pieces).collect();
            let path = path.replacen("//", "/", 1);
            Self { method: METHODS[rng.usize(..METHODS.len())], host: HOSTS[rng.usize(..HOSTS.len())], path }
        };
        (0..MADE).map(&mut call).collect()
    }

    /// What it is in its one spelling; `None`: it is refused.
    fn canonical(&self) -> Option<[String; 3]> {
        let path = canonical::path(&self.path, Care::Judged).ok()?.into_owned();
        Some([self.method.to_owned(), canonical::authority(self.host)?.into_owned(), path])
    }
}

/// The rule that allows a call is one of exactly one method, one host and one path: its name tells what string was judged, and
/// the app tells what it got.
#[tokio::test]
async fn what_the_app_saw_is_the_very_string_that_was_judged() {
    let calls = Call::made();
    let mut known: Vec<[String; 3]> = calls.iter().filter_map(Call::canonical).collect();
    known.sort();
    known.dedup();
    // Every third is allowed by nothing.
    let allowed: Vec<_> = known.into_iter().enumerate().filter(|(index, _)| index % 3 != 2).collect();
    let rules = allowed.iter().fold(String::new(), |mut rules, (index, [method, host, path])| {
        let keys = format!("methods: [{method}], hosts: ['{host}'], paths: ['{path}']");
        write!(rules, "{{name: r{index}, from: ['spiffe://test.outrider/{WEB}'], {keys}}}, ").unwrap();
        rules
    });
    for app_protocol in ["http1", "http2"] {
        let mut bench = Bench::new(&format!("{{rules: [{rules}]}}")).await;
        bench.reload_as(&format!("app_protocol: {app_protocol}"), &format!("{{rules: [{rules}]}}")).await;
        let mut web = bench.peer(WEB).await;
        let (mut passed, mut denied, mut refused) = (0, 0, 0);
        for (number, call) in calls.iter().enumerate() {
            // The query is nobody's business, and goes on as it is.
            let target = format!("{}?q=%2e%2e/;{number}", call.path);
            let before = bench.app.count();
            let status = if number % 2 == 0 && target.parse::<Uri>().is_ok() {
                let method = Method::from_bytes(call.method.as_bytes()).unwrap();
                let mut asks = request(method, &target, body::empty());
                asks.headers_mut().insert(header::HOST, HeaderValue::from_static(call.host));
                web.send(asks).await.unwrap().status().as_u16()
            } else {
                let head = format!("{} {target} HTTP/1.1\r\nHost: {}\r\n", call.method, call.host);
                let answer = bench.raw(&format!("{head}Connection: close\r\n\r\n")).await;
                answer.split(' ').nth(1).unwrap_or_else(|| panic!("{head} {answer}")).parse().unwrap()
            };
            let canonical = call.canonical();
            let rule = canonical.as_ref().and_then(|it| allowed.iter().find(|(_, known)| known == it));
            let expected = if rule.is_some() {
                OK
            } else if canonical.is_some() {
                DENIED
            } else {
                REFUSED
            };
            assert_eq!(status, expected, "{target}");
            assert_eq!(bench.app.count() - before, usize::from(expected == OK), "{target}");
            match rule {
                None if expected == REFUSED => refused += 1,
                None => {
                    denied += 1;
                    assert_eq!(bench.judged().await, "denied", "{target}");
                }
                Some((index, [method, host, path])) => {
                    passed += 1;
                    assert_eq!(bench.judged().await, format!("r{index}"), "{target}");
                    let seen = bench.app.seen().pop().unwrap();
                    assert_eq!(
                        (seen.method.as_str(), seen.authority(), seen.uri.path()),
                        (&**method, &**host, &**path)
                    );
                    assert_eq!(seen.uri.query(), Some(format!("q=%2e%2e/;{number}").as_str()));
                }
            }
        }
        // The spellings are such that all of it was tried.
        assert!(passed > 20 && denied > 10 && refused > 20, "{passed} {denied} {refused}");
    }
}
