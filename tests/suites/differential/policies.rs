//! Rules about paths, as the data path asks them, over every spelling: who is let in by one spelling is by all of them, and
//! what was let in is in nobody's reading anywhere else.

use http::{HeaderMap, Method};
use outrider::{
    authz::{self, Judged, Sent, Verdict},
    config,
    model::{Settings, listener::ListenerKind},
};
use outrider_certs::SpiffeId;

use super::{
    decoders::{is_in, read, readers},
    paths::spellings,
};

/// What the rules of the policies below say: exact paths, then prefixes.
const POLICIES: [(&[&str], &[&str]); 8] = [
    (&[], &["/items"]),
    (&[], &["/admin"]),
    (&[], &["/a", "/items/a"]),
    (&[], &["/a/b", "/b"]),
    (&["/items"], &[]),
    (&["/a", "/a/b", "/admin"], &[]),
    (&["/", "/items/"], &["/a/admin"]),
    (&["/items/a"], &["/items/b"]),
];

fn settings(exact: &[&str], prefixes: &[&str]) -> Settings {
    let key = |name: &str, paths: &[&str]| {
        if paths.is_empty() { String::new() } else { format!(", {name}: [{}]", paths.join(", ")) }
    };
    // Any of a rule's keys must fit, so each kind of path has a rule of its own.
    let rules: Vec<_> = [("exact", key("paths", exact)), ("prefix", key("path_prefixes", prefixes))]
        .into_iter()
        .filter(|(_, key)| !key.is_empty())
        .map(|(name, key)| format!("{{name: {name}, from_trust_domains: [test.outrider]{key}}}"))
        .collect();
    let text = format!(
        "service: orders\ntrust_domain: test.outrider\nidentity: {{ca: {{address: '127.0.0.1:4350'}}}}\n\
         inbound: [{{name: in, listen: '127.0.0.1:0', app: '127.0.0.1:8080'}}]\nauthorization: {{rules: [{}]}}\n",
        rules.join(", ")
    );
    config::parse(&text, std::path::Path::new("/")).unwrap_or_else(|error| panic!("{error}"))
}

/// What the data path makes of a request for that path: its canonical form, and the rule that lets it in.
fn ask(settings: &Settings, path: &str) -> Option<(String, Option<String>)> {
    let caller: SpiffeId = "spiffe://test.outrider/web".parse().unwrap();
    let headers = HeaderMap::new();
    let sent = Sent { method: &Method::GET, path, authority: "orders", headers: &headers };
    let ListenerKind::Inbound(inbound) = &settings.listeners[0].kind else { panic!("the one listener") };
    let Judged { path, verdict } = authz::of_request(settings, inbound, (&caller, 8080), sent).ok()?;
    let rule = match verdict {
        Some(Verdict::Allowed(rule)) => Some(rule.name.to_string()),
        Some(Verdict::Denied) => None,
        other => panic!("{other:?}"),
    };
    Some((path.into_owned(), rule))
}

#[test]
fn who_is_let_in_by_one_spelling_is_let_in_by_the_canonical_one() {
    for (exact, prefixes) in POLICIES {
        let settings = settings(exact, prefixes);
        let (mut allowed, mut denied) = (0, 0);
        for spelling in spellings() {
            let Some((path, rule)) = ask(&settings, &spelling) else { continue };
            let again = ask(&settings, &path);
            assert_eq!(again, Some((path.clone(), rule.clone())), "{spelling}, by {exact:?} {prefixes:?}");
            if rule.is_some() { allowed += 1 } else { denied += 1 }
        }
        assert!(allowed > 0 && denied > 0, "{exact:?} {prefixes:?}: {allowed} and {denied}");
    }
}

#[test]
fn what_is_let_in_is_nowhere_else_to_any_reader() {
    let readers = readers(2);
    let mut wrong = Vec::new();
    for (exact, prefixes) in POLICIES {
        let settings = settings(exact, prefixes);
        for spelling in spellings() {
            let Some((path, Some(rule))) = ask(&settings, &spelling) else { continue };
            for steps in &readers {
                let read = read(&path, steps);
                // Where the file is, a slash at the end is nothing.
                let is_exact = |exact: &&str| exact.trim_end_matches('/') == read;
                let fits = match &*rule {
                    "exact" => exact.iter().any(is_exact),
                    _ => prefixes.iter().any(|prefix| is_in(&read, prefix)),
                };
                if !fits {
                    wrong.push(format!("{spelling} → {path}, let in by {rule}: {read} to {steps:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
}

#[test]
fn a_path_that_readers_take_differently_is_never_let_in() {
    for (exact, prefixes) in POLICIES {
        let settings = settings(exact, prefixes);
        for prefix in exact.iter().chain(prefixes) {
            let prefix = prefix.trim_end_matches('/');
            for way_out in [
                "/../evil",
                "/%2e%2e/evil",
                "/..%2fevil",
                "/..;/evil",
                "/..;a=b/evil",
                "/%252e%252e/evil",
                "/..%5cevil",
                "/..\\evil",
                "/%2e%2e%2fevil",
                "/..%00/evil",
                "/..%3b/evil",
                "/..%c0%afevil",
                "/%c0%ae%c0%ae/evil",
                "/..%20/evil",
                "/.%09./evil",
                "//../evil",
                "/..//evil",
                "/./../evil",
                "/..%3f/evil",
                "/..%23/evil",
            ] {
                let found = ask(&settings, &format!("{prefix}{way_out}"));
                assert!(
                    found.is_none_or(|(_, rule)| rule.is_none()),
                    "{prefix}{way_out} by {exact:?} {prefixes:?}"
                );
            }
        }
    }
}
