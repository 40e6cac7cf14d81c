//! `outrider policy explain`, and what docs/authorization.md says of it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{fs, path::Path};

use assert_cmd::Command;

const TOP: &str =
    "service: orders\ntrust_domain: demo.outrider\nidentity: {ca: {address: '127.0.0.1:4350'}}\n";
const ONE: &str = "inbound: [{listen: '0.0.0.0:4343', app: '127.0.0.1:8080'}]\n";
/// An app that is asked for requests and for streams.
const BOTH: &str = "inbound: [{listen: '0.0.0.0:4343', app: '127.0.0.1:8080', protocol: detect}]\n";
const TWO: &str = "inbound: [{listen: '0.0.0.0:4343', app: '127.0.0.1:8080'}, \
                   {listen: '0.0.0.0:4344', app: '127.0.0.1:5432', protocol: tcp, allow: [spiffe://demo.outrider/a]}]\n";
const RULES: &str = "{rules: [{name: reads, from: [spiffe://demo.outrider/a], ports: [8080], methods: [GET], \
                     path_prefixes: [/items], hosts: [orders]}, {name: team, from_trust_domains: [demo.outrider], \
                     headers: [{name: x-team, value: a}]}, {name: calls, from: [spiffe://demo.outrider/b], grpc: [shop.Orders]}, \
                     {name: streams, from: [spiffe://demo.outrider/c]}]}";

fn explain(file: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outrider.yaml");
    fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command.args(["policy", "explain", "--config", path.to_str().unwrap()]).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_verdict_and_what_each_rule_misses_are_told() {
    let file = format!("{TOP}{BOTH}authorization: {RULES}\n");
    let allowed = |rule: &str| (0, format!("allowed by rule {rule}\n"));
    let denied = |misses: [&str; 4]| {
        let [reads, team, calls, streams] = misses;
        (
            1,
            format!(
                "denied: no rule fits\n  reads: {reads}\n  team: {team}\n  calls: {calls}\n  streams: {streams}\n"
            ),
        )
    };
    let (caller, field) = (
        "is not about this caller",
        "the field x-team is missing, repeated, not ASCII, or has another value",
    );
    for (arguments, expected) in [
        ("a --host orders --path /items/7", allowed("reads")),
        ("a --host Orders:80 --path /items", allowed("reads")),
        ("a --host orders --path /items/7?id=7;a", allowed("reads")),
        ("a -H host:orders --path /items", allowed("reads")),
        ("a --host carts --path /items", denied(["is about another host", field, caller, caller])),
        (
            "a --host orders --method POST --path /items",
            denied(["is about another method", field, caller, caller]),
        ),
        ("a --host orders --path /", denied(["is about another path", field, caller, caller])),
        ("a -H x-team:a", allowed("team")),
        ("a -H x-team:a -H x-team:a", denied(["is about another host", field, caller, caller])),
        ("b --grpc shop.Orders/Get", allowed("calls")),
        ("b --grpc shop.Carts/Get", denied([caller, field, "is about another call of gRPC", caller])),
        ("c", allowed("streams")),
        ("c --stream", allowed("streams")),
        (
            "b --stream",
            denied([
                caller,
                "is about requests, and this is an opaque stream",
                "is about requests, and this is an opaque stream",
                caller,
            ]),
        ),
    ] {
        let (from, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
        let from = format!("spiffe://demo.outrider/{from}");
        let rest: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
        let (code, out, err) = explain(&file, &[&["--from", &from], &rest[..]].concat());
        assert_eq!((code, out), expected, "{arguments}: {err}");
    }
}

#[test]
fn what_the_sidecar_refuses_before_the_rules_is_told_as_that() {
    let file = format!("{TOP}{TWO}authorization: {RULES}\n");
    for (arguments, code, says) in [
        (
            &["--port", "8080", "--host", "orders", "--path", "/x/../items"][..],
            0,
            "the app gets the path /items\nallowed by rule reads",
        ),
        (&["--port", "8080", "--path", "/items;a"], 1, "refused with 400: a ; in a path that rules look at"),
        (&["--port", "8080", "--method", "get"], 1, "refused with 400: a method in other letters"),
        (&["--port", "8080", "--method", "CONNECT"], 1, "refused with 501: "),
        (&["--port", "8080", "--path", "items"], 1, "refused with 400: "),
        (&["--port", "8080", "-H", "host: a", "-H", "host: a"], 1, "refused with 400: host is repeated"),
        (
            &["--port", "8080", "--host", "orders", "--path", "/items", "-H", "origin: a", "-H", "origin: a"],
            1,
            "refused with 400: authorization, content-type or origin is repeated",
        ),
        (&["--port", "8080", "--stream"], 1, "denied: port 8080 is for requests (protocol: http)"),
    ] {
        let (found, out, err) =
            explain(&file, &[&["--from", "spiffe://demo.outrider/a"], arguments].concat());
        assert!(found == code && out.starts_with(says), "{arguments:?}: {found} {out}{err}");
    }
    for (from, says) in [
        ("spiffe://demo.outrider/c", "may not connect to port 5432: it is not on the list allow"),
        ("spiffe://demo.outrider/a", "denied: no rule fits\n  reads: is not about this port"),
    ] {
        let (code, out, err) = explain(&file, &["--from", from, "--port", "5432"]);
        assert!(code == 1 && out.contains(says), "{from}: {code} {out}{err}");
    }
    let (code, out, _) = explain(&file, &["--from", "spiffe://other/a", "--port", "8080"]);
    assert!(code == 1 && out.contains("is no workload of the own trust domain"), "{code} {out}");
    let audited = format!("{TOP}{ONE}authorization: {{mode: audit}}\n");
    let (code, out, _) = explain(&audited, &["--from", "spiffe://demo.outrider/a"]);
    assert!(code == 0 && out.starts_with("audited: no rule fits"), "{code} {out}");
    let (code, out, _) = explain(&format!("{TOP}{ONE}"), &["--from", "spiffe://demo.outrider/a"]);
    assert!(code == 0 && out.starts_with("allowed: there is no authorization section"), "{code} {out}");
}

#[test]
fn no_rule_is_said_to_fit_a_path_that_rules_do_not_look_at() {
    let rules =
        "{mode: audit, rules: [{name: reads, from: [spiffe://demo.outrider/a], path_prefixes: [/items]}]}";
    let file = format!("{TOP}{ONE}authorization: {rules}\n");
    let explain = |path| explain(&file, &["--from", "spiffe://demo.outrider/a", "--path", path]);
    let audited = "audited: no rule fits, and it passes as mode is audit\n";
    let unclear =
        "  the path is not clear: a ; in a path that rules look at; mode enforce refuses it with 400\n";
    for (path, says) in [
        ("/items/a;b", format!("{audited}{unclear}")),
        ("/carts", format!("{audited}  reads: is about another path\n")),
        ("//items", "allowed by rule reads\n".to_owned()),
    ] {
        let (code, out, err) = explain(path);
        assert_eq!((code, out), (0, says), "{path}: {err}");
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    let file = format!("{TOP}{TWO}authorization: {RULES}\n");
    let a = "spiffe://demo.outrider/a";
    for (arguments, code, says) in [
        (&["--from", a][..], 1, "name the app's port by --port"),
        (&["--from", a, "--port", "9"], 1, "no listener leads to port 9"),
        (&["--from", "web"], 2, "does not start with"),
        (&["--from", a, "--port", "8080", "--host", "a b"], 1, "is not a host"),
        (&["--from", a, "--port", "8080", "--path", "/a#b"], 1, "has a #"),
        (&["--from", a, "--port", "8080", "--host", "a", "-H", "host: a"], 1, "not by both"),
        (&["--from", a, "--port", "5432", "--path", "/a"], 1, "port 5432 carries opaque streams"),
        (&["--from", a, "--port", "5432", "--method", "GET"], 1, "port 5432 carries opaque streams"),
        (&["--from", a, "-H", "x"], 2, "write it as name: value"),
        (&["--from", a, "--stream", "--path", "/a"], 2, "cannot be used with"),
    ] {
        let (found, _, err) = explain(&file, arguments);
        assert!(found == code && err.contains(says), "{arguments:?}: {found} {err}");
    }
    let (code, _, err) = explain("service: a", &["--from", a]);
    assert!(code == 1 && err.contains("outrider check names them"), "{code} {err}");
}

#[test]
fn where_rules_do_not_hold_is_said() {
    let intercept = "intercept: {inbound: {except_ports: [22], ports: [{port: 80, probes: [/healthz]}]}}\n";
    let file = format!("{TOP}{intercept}authorization: {{rules: []}}\n");
    let explain = |port| explain(&file, &["--from", "spiffe://demo.outrider/a", "--port", port]);
    let (code, out, err) = explain("22");
    assert!(code == 1 && out.is_empty() && err.contains("port 22 is left alone"), "{code} {out}{err}");
    let exceptions =
        "has exceptions from mutual TLS: whoever comes by one proves nothing, and no rule is asked";
    for (port, has) in [("80", true), ("90", false)] {
        let (code, out, err) = explain(port);
        assert!(code == 1 && out.contains(exceptions) == has, "{port}: {code} {out}{err}");
    }
}

#[test]
fn the_documentations_example_says_what_it_says_there() {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/authorization.md");
    let doc = fs::read_to_string(doc).unwrap();
    let block = |kind: &str| {
        let after = doc.split_once(&format!("```{kind}\n")).unwrap().1;
        after.split_once("```").unwrap().0.to_owned()
    };
    let file = format!("{TOP}{}{}", TWO.replace(", allow: [spiffe://demo.outrider/a]", ""), block("yaml"));
    let console = block("console");
    let mut checked = 0;
    for example in console.split("$ ").filter(|example| !example.is_empty()) {
        let (command, expected) = example.split_once('\n').unwrap();
        let arguments = command.strip_prefix("outrider policy explain --config outrider.yaml ").unwrap();
        let (_, out, err) = explain(&file, &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(out, expected, "{command}: {err}");
        checked += 1;
    }
    assert_eq!(checked, 2);
}
