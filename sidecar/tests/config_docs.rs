//! `docs/config.md` says what the code does: keys, types, defaults and ranges, and its example is sound.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use outrider::config::{self, Error, Fault};

type Key = (String, String);
type Facts = (String, String, String);

fn doc_file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// (section, key) with (type, default, range) of every row of the tables, without back-ticks.
fn documented() -> Vec<(Key, Facts)> {
    let (mut section, mut is_of_keys) = (String::new(), true);
    let mut rows = Vec::new();
    for line in doc_file("config.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = if title == "Top level" { String::new() } else { title.to_owned() };
            is_of_keys = true;
        }
        // What explains keys has tables of its own.
        is_of_keys &= !line.starts_with("### ");
        let Some(cells) = line.strip_prefix("| `") else { continue };
        if section == "Environment" || !is_of_keys {
            continue;
        }
        let cells: Vec<String> =
            cells.split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        assert_eq!(cells.len(), 5, "{line}");
        let facts = (cells[1].clone(), cells[2].clone(), cells[3].clone());
        rows.push(((section.clone(), cells[0].clone()), facts));
    }
    rows
}

/// A file that is sound but for `line`, which stands in `section`.
fn file_with(section: &str, line: &str) -> String {
    let at = |name: &str| if section == name { line } else { "" };
    let identity = match section {
        "identity.file" => format!("identity: {{file: {{certificate: c, key: k, bundle: b, {line}}}}}"),
        "identity.ca" => format!("identity: {{ca: {{address: 'h:1', {line}}}}}"),
        "identity" => format!("identity: {{ca: {{address: 'h:1'}}, {line}}}"),
        _ => "identity: {ca: {address: 'h:1'}}".to_owned(),
    };
    let intercept = if section.starts_with("intercept") {
        format!(
            "intercept: {{{}, outbound: {{{}}}, inbound: {{{}, ports: [{{port: 8080, {}}}], other_ports: {{{}}}}}}}\n",
            at("intercept"),
            at("intercept.outbound"),
            at("intercept.inbound"),
            at("intercept.inbound.ports[]"),
            at("intercept.inbound.other_ports"),
        )
        .replace("{,", "{")
    } else {
        String::new()
    };
    let controller = if section == "controller" {
        format!("controller: {{address: 'h:1', spiffe_id: 'spiffe://t/c', {line}}}\n")
    } else {
        String::new()
    };
    let telemetry = telemetry_with(section, line);
    let authorization = authorization_with(section, line);
    let tcp_routes = tcp_route_with(section, line);
    let probes = probe_with(section, line);
    let federation = if section == "federation[]" {
        format!("federation: [{{trust_domain: o, endpoint: 'https://o/', profile: https_web, {line}}}]\n")
    } else {
        String::new()
    };
    format!(
        "service: a\ntrust_domain: t\n{identity}\n{intercept}{controller}{telemetry}{authorization}{federation}{probes}{tcp_routes}tls: {{{}}}\nadmin: {{{}}}\ndrain: {{{}}}\nlimits: {{{}}}\ndns: {{{}}}\n\
         inbound: [{{listen: '127.0.0.1:0', app: '127.0.0.1:2', {} {}}}]\noutbound: [{{listen: '127.0.0.1:0', {}}}]\n\
         clusters: [{{{}}}{}]\nforwarded: {{{}}}\n{}{}\n",
        at("tls"),
        at("admin"),
        at("drain"),
        at("limits"),
        at("dns"),
        inbound_with(section, line),
        at("inbound[]"),
        at("outbound[]"),
        cluster_with(section, line),
        if section.ends_with("routes[].clusters[]") || section == "routes[].rules[].clusters[]" {
            OTHER
        } else {
            ""
        },
        at("forwarded"),
        http_route_with(section, line),
        at(""),
    )
}

/// The probe of that file; none if the line is of none.
fn probe_with(section: &str, line: &str) -> String {
    let inside = match section {
        "probes[]" => format!("tcp: {{port: 1}}, {line}"),
        "probes[].http" => format!("http: {{port: 1, {line}}}"),
        "probes[].http.headers[]" => format!("http: {{port: 1, headers: [{{name: a, value: b, {line}}}]}}"),
        "probes[].tcp" => format!("tcp: {{port: 1, {line}}}"),
        "probes[].grpc" => format!("grpc: {{port: 1, {line}}}"),
        _ => return String::new(),
    };
    format!("probes: [{{name: p, {inside}}}]\n")
}

/// The rules of that file; none if the line is of another section.
fn authorization_with(section: &str, line: &str) -> String {
    let inside = match section {
        "authorization" => line.to_owned(),
        "authorization.rules[]" => format!("rules: [{{name: r, from_trust_domains: [t], {line}}}]"),
        "authorization.rules[].headers[]" => {
            format!("rules: [{{name: r, from_trust_domains: [t], headers: [{{name: a, {line}}}]}}]")
        }
        _ => return String::new(),
    };
    format!("authorization: {{{inside}}}\n")
}

/// A second cluster.
const OTHER: &str = ", {name: other, tls: none, endpoints: [{address: '1.2.3.4:6'}]}";

/// What limits, routes and proxies the inbound listener of that file has.
fn inbound_with(section: &str, line: &str) -> String {
    match section {
        "inbound[].rate_limits[]" => rate_limits(line),
        "inbound[].routes[]" if is_path(line) => format!("routes: [{{{line}}}],"),
        "inbound[].routes[]" => format!("routes: [{{path: /a, {line}}}],"),
        "inbound[].proxy_protocol" if line.starts_with("from:") => format!("proxy_protocol: {{{line}}},"),
        "inbound[].proxy_protocol" => format!("proxy_protocol: {{from: [10.0.0.1], {line}}},"),
        _ => String::new(),
    }
}

/// The routes of streams of that file; none if the line is of none.
fn tcp_route_with(section: &str, line: &str) -> String {
    let (route, clusters) = match section {
        "tcp_routes[]" => (line, "{name: c}".to_owned()),
        // With another beside it, a weight may be 0.
        "tcp_routes[].clusters[]" => ("", format!("{{name: c, {line}}}, {{name: other}}")),
        _ => return String::new(),
    };
    let comma = if route.is_empty() { "" } else { ", " };
    format!("tcp_routes: [{{name: r, services: [c], clusters: [{clusters}]{comma}{route}}}]\n")
}

/// The routes of that file; none if the line is of none.
fn http_route_with(section: &str, line: &str) -> String {
    let at = |name: &str| if section == name { line } else { "" };
    let matches = match section {
        "routes[].rules[].matches[]" if is_path(line) => format!("{{{line}}}"),
        "routes[].rules[].matches[]" => format!("{{path: /a, {line}}}"),
        "routes[].rules[].matches[].headers[]" => format!("{{headers: [{{name: a, {line}}}]}}"),
        "routes[].rules[].matches[].query[]" => format!("{{query: [{{name: a, {line}}}]}}"),
        "routes[].rules[].matches[].cookies[]" => format!("{{cookies: [{{name: a, {line}}}]}}"),
        _ => "{path: /a}".to_owned(),
    };
    // With another beside it, a weight may be 0.
    let clusters = match section {
        "routes[].rules[].clusters[]" => format!("{{name: c, {line}}}, {{name: other}}"),
        _ => "{name: c}".to_owned(),
    };
    let sticky = match section {
        "routes[].rules[].sticky" => format!("sticky: {{header: x, {line}}},"),
        "routes[].rules[].mirror[]" => format!("mirror: [{{cluster: c, {line}}}],"),
        _ => String::new(),
    };
    if !section.starts_with("routes[]") {
        return String::new();
    }
    format!(
        "routes: [{{name: r, services: [c], {} rules: [{{matches: [{matches}], clusters: [{clusters}], {sticky} \
         retry: {{{}}}, {} {} {}}}]}}]\n",
        at("routes[]").to_owned() + if at("routes[]").is_empty() { "" } else { "," },
        at("routes[].rules[].retry"),
        rate_limits(at("routes[].rules[].rate_limits[]")),
        fault(at("routes[].rules[].fault")),
        at("routes[].rules[]"),
    )
}

/// Whether it is a key that says what the path is.
fn is_path(line: &str) -> bool {
    line.starts_with("path")
}

/// The section of telemetry of that file; none if the line is of another section.
fn telemetry_with(section: &str, line: &str) -> String {
    let inside = match section {
        "telemetry" => line.to_owned(),
        "telemetry.traces" => format!("traces: {{{line}}}"),
        "telemetry.traces.headers[]" => format!("traces: {{headers: [{{name: a, value: b, {line}}}]}}"),
        "telemetry.metrics" => format!("metrics: {{{line}}}"),
        "telemetry.metrics.headers[]" => format!("metrics: {{headers: [{{name: a, value: b, {line}}}]}}"),
        "telemetry.access_log" => format!("access_log: {{{line}}}"),
        "telemetry.attributes[]" => format!("attributes: [{{name: a, value: b, {line}}}]"),
        _ => return String::new(),
    };
    format!("telemetry: {{{inside}}}\n")
}

/// What stands in the cluster of that file.
fn cluster_with(section: &str, line: &str) -> String {
    let at = |name: &str| if section == name { line } else { "" };
    // Outside the mesh nobody has an ID.
    let is_inside = section != "clusters[].public" && !line.contains("tls: none");
    let id = if is_inside { "spiffe_id: spiffe://t/c, " } else { "" };
    let source = match section {
        "clusters[].dns" => format!("dns: {{name: c, port: 1, {line}}}, spiffe_ids: [spiffe://t/c]"),
        _ => format!("endpoints: [{{address: '1.2.3.4:5', {id}{}}}]", at("clusters[].endpoints[]")),
    };
    // Some keys have a meaning only beside others.
    let section_of_its_own = match section {
        "clusters[].public" => format!("tls: public, public: {{server_name: a, {line}}}"),
        "clusters[].affinity" if line.starts_with("by:") => {
            format!("balance: maglev, affinity: {{{line}}}")
        }
        "clusters[].affinity" => format!("balance: maglev, affinity: {{by: cookie, name: stick, {line}}}"),
        "clusters[].health_check" if line.contains("service") => {
            format!("health_check: {{protocol: grpc, {line}}}")
        }
        "clusters[].health_check" => format!("health_check: {{{line}}}"),
        _ => String::new(),
    };
    format!(
        "name: c, {source}, retry: {{{}}}, outlier_detection: {{{}}}, routes: [{}], {} {} {section_of_its_own} {}",
        at("clusters[].retry"),
        at("clusters[].outlier_detection"),
        route_with(section, line),
        rate_limits(at("clusters[].rate_limits[]")),
        fault(at("clusters[].fault")),
        at("clusters[]"),
    )
}

/// The route of that cluster; none if the line is of no route.
fn route_with(section: &str, line: &str) -> String {
    match section {
        "clusters[].routes[]" if is_path(line) => format!("{{{line}}}"),
        "clusters[].routes[]" => format!("{{path: /a, {line}}}"),
        "clusters[].routes[].headers[]" => format!("{{headers: [{{name: a, {line}}}]}}"),
        "clusters[].routes[].query[]" => format!("{{query: [{{name: a, {line}}}]}}"),
        "clusters[].routes[].cookies[]" => format!("{{cookies: [{{name: a, {line}}}]}}"),
        "clusters[].routes[].retry" => format!("{{path: /a, retry: {{{line}}}}}"),
        "clusters[].routes[].fault" => format!("{{path: /a, {}}}", fault(line)),
        "clusters[].routes[].rate_limits[]" => format!("{{path: /a, {}}}", rate_limits(line)),
        "clusters[].routes[].rewrite" => format!("{{path_prefix: /a, rewrite: {{{line}}}}}"),
        "clusters[].routes[].redirect" => format!("{{path_prefix: /a, redirect: {{host: b, {line}}}}}"),
        _ => edits_with(section, line),
    }
}

/// The route that changes fields; none if the line is of no such section.
fn edits_with(section: &str, line: &str) -> String {
    let of = section.strip_prefix("clusters[].routes[].").unwrap_or_default();
    match of.split_once('.').unwrap_or((of, "")) {
        (which @ ("request_headers" | "response_headers"), "") => {
            format!("{{path: /a, {which}: {{remove: [x], {line}}}}}").replace("remove: [x], remove", "remove")
        }
        (which @ ("request_headers" | "response_headers"), list) => {
            let list = list.trim_end_matches("[]");
            format!("{{path: /a, {which}: {{{list}: [{{name: a, value: b, {line}}}]}}}}")
        }
        _ => String::new(),
    }
}

fn rate_limits(line: &str) -> String {
    match line {
        "" => String::new(),
        line if line.contains("requests:") => format!("rate_limits: [{{{line}}}],"),
        line => format!("rate_limits: [{{requests: 1, {line}}}],"),
    }
}

fn fault(line: &str) -> String {
    match line {
        "" => String::new(),
        line if line.starts_with("delay:") => format!("fault: {{{line}}},"),
        line if line.starts_with("abort_percent:") => format!("fault: {{abort: 503, {line}}},"),
        line => format!("fault: {{delay: 1s, {line}}},"),
    }
}

/// Without it nobody is believed in anything.
const PLAINTEXT: &str = "plaintext: permissive, plaintext_until: 2999-01-01, ";

fn path_of(section: &str, key: &str) -> String {
    let section = section.replace("[]", "[0]");
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// The only fault of a file.
fn only_fault(text: &str) -> Fault {
    match config::parse(text, Path::new("")) {
        Err(Error::Faults(faults)) => {
            assert_eq!(faults.len(), 1, "{faults:#?}\n{text}");
            faults[0].clone()
        }
        other => panic!("{other:?}\n{text}"),
    }
}

#[test]
fn the_doc_lists_every_key_with_its_type_default_and_range() {
    let strip = |text: &str| text.replace('`', "");
    let expected: BTreeSet<(Key, Facts)> = config::rows()
        .into_iter()
        .map(|row| {
            let facts = (strip(&row.kind), strip(&row.default), strip(&row.range));
            ((row.section.to_owned(), row.name.to_owned()), facts)
        })
        .collect();
    let found: BTreeSet<(Key, Facts)> = documented().into_iter().collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    let wrong: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "not in the doc: {missing:#?}\nonly there: {wrong:#?}");
}

#[test]
fn the_doc_lists_exactly_the_keys_that_are_accepted() {
    let documented: Vec<Key> = documented().into_iter().map(|(key, _)| key).collect();
    let sections: BTreeSet<&str> = documented.iter().map(|(section, _)| section.as_str()).collect();
    assert_eq!(sections.len(), 76, "{sections:?}");
    for section in sections {
        let fault = only_fault(&file_with(section, "zz_probe: 1"));
        assert_eq!(fault.path, path_of(section, "zz_probe"));
        let (_, accepted) = fault.remedy.split_once("keys here: ").unwrap();
        // A route is told where these belong.
        let is_refused = |key: &&str| {
            (section.ends_with("routes[].retry") || section == "routes[].rules[].retry")
                && (key.starts_with("budget_") || *key == "max_active")
        };
        let accepted: BTreeSet<&str> = accepted.split(", ").filter(|key| !is_refused(key)).collect();
        let listed: BTreeSet<&str> =
            documented.iter().filter(|(of, _)| of == section).map(|(_, key)| key.as_str()).collect();
        assert_eq!(listed, accepted, "section {section:?}");
    }
}

#[test]
fn every_documented_range_is_enforced_at_its_key() {
    let mut checked = 0;
    for ((section, key), (kind, _, range)) in documented() {
        if range.is_empty() {
            continue;
        }
        let beyond = if kind.starts_with("duration") {
            "1000d"
        } else if kind.starts_with("size") {
            "10000GiB"
        } else {
            "10000000000"
        };
        let company = match key.as_str() {
            "mark" => "own: mark, ",
            "trusted_hops" => PLAINTEXT,
            _ => "",
        };
        let fault = only_fault(&file_with(&section, &format!("{company}{key}: {beyond}")));
        assert_eq!(fault.path, path_of(&section, &key));
        assert_eq!(fault.remedy, format!("keep to {range}"), "{fault}");
        // Both ends are in the range, and so is `none` where the doc says so.
        let (min, max) = range.split_once("..=").unwrap();
        let mut good = vec![min, max];
        if kind.ends_with("none") {
            good.push("none");
        }
        for value in good {
            // Two times may hold each other in check; each end is fine with a fitting other one.
            let line = match (section.as_str(), key.as_str()) {
                ("drain", "idle_grace") => format!("idle_grace: {value}, deadline: 24h"),
                ("clusters[].dns", "min_ttl") => format!("min_ttl: {value}, max_ttl: 24h"),
                ("clusters[].dns", "max_ttl") => format!("min_ttl: 50ms, max_ttl: {value}"),
                ("intercept", "mark") => format!("own: mark, mark: {value}"),
                (_, "trusted_hops") => format!("{PLAINTEXT}{key}: {value}"),
                ("drain", "deadline") => format!("idle_grace: 0s, deadline: {value}"),
                _ => format!("{key}: {value}"),
            };
            let parsed = config::parse(&file_with(&section, &line), Path::new(""));
            assert!(parsed.is_ok(), "{section}.{key}: {value}: {parsed:?}");
        }
        checked += 1;
    }
    assert!(checked >= 25, "{checked}");
}

#[test]
fn writing_a_documented_default_changes_nothing() {
    for ((section, key), (kind, default, range)) in documented() {
        let is_choice = kind.split(" or ").any(|word| word == default);
        // What is the cluster's is written nowhere.
        if (range.is_empty() && !is_choice)
            || ["the cluster's", "requests", "required", "as asked"].contains(&&*default)
        {
            continue;
        }
        // Some keys belong to one kind of peer, or to one transport.
        let company = match key.as_str() {
            "peer_protocol" => "peer: standard, ",
            "plain_protocol" => "tls: none, ",
            "mark" => "own: mark, ",
            _ if section.ends_with("rate_limits[]") => "requests: 1, ",
            "abort_percent" => "abort: 503, ",
            _ if section.ends_with("fault") && key != "delay" => "delay: 1s, ",
            _ => "",
        };
        let show = |line: &str| {
            let text = file_with(&section, line.trim_end_matches(", "));
            let settings = config::parse(&text, Path::new(""));
            format!("{:?}", settings.unwrap_or_else(|error| panic!("{error}\n{text}")))
        };
        assert_eq!(show(company), show(&format!("{company}{key}: {default}")), "{section}.{key}");
    }
}

#[test]
fn the_example_is_sound_and_complete() {
    let example = doc_file("outrider.yaml");
    config::parse(&example, Path::new("/etc/outrider")).unwrap_or_else(|error| panic!("{error}"));
    for ((section, key), _) in documented() {
        assert!(example.contains(&format!("{key}:")), "the example does not show {section}.{key}");
    }
}
