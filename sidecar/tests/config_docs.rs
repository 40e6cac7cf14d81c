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
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in doc_file("config.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = if title == "Top level" { String::new() } else { title.to_owned() };
        }
        let Some(cells) = line.strip_prefix("| `") else { continue };
        if section == "Environment" {
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
    // Outside the mesh nobody has an ID.
    let outside = match section {
        "clusters[].public" => format!("tls: public, public: {{server_name: a, {line}}}"),
        _ => String::new(),
    };
    let is_inside = outside.is_empty() && !line.contains("tls: none");
    let id = if is_inside { "spiffe_id: spiffe://t/c, " } else { "" };
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
    let source = match section {
        "clusters[].dns" => format!("dns: {{name: c, port: 1, {line}}}, spiffe_ids: [spiffe://t/c]"),
        _ => format!("endpoints: [{{address: '1.2.3.4:5', {id}{}}}]", at("clusters[].endpoints[]")),
    };
    format!(
        "service: a\ntrust_domain: t\n{identity}\n{intercept}tls: {{{}}}\nadmin: {{{}}}\ndrain: {{{}}}\nlimits: {{{}}}\ndns: {{{}}}\n\
         inbound: [{{listen: '127.0.0.1:0', app: '127.0.0.1:2', {}}}]\noutbound: [{{listen: '127.0.0.1:0', {}}}]\n\
         clusters: [{{name: c, {source}, \
         retry: {{{}}}, {outside} {}}}]\n{}\n",
        at("tls"),
        at("admin"),
        at("drain"),
        at("limits"),
        at("dns"),
        at("inbound[]"),
        at("outbound[]"),
        at("clusters[].retry"),
        at("clusters[]"),
        at(""),
    )
}

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
    assert_eq!(sections.len(), 21, "{sections:?}");
    for section in sections {
        let fault = only_fault(&file_with(section, "zz_probe: 1"));
        assert_eq!(fault.path, path_of(section, "zz_probe"));
        let (_, accepted) = fault.remedy.split_once("keys here: ").unwrap();
        let accepted: BTreeSet<&str> = accepted.split(", ").collect();
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
        let company = if key == "mark" { "own: mark, " } else { "" };
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
        if range.is_empty() && !is_choice {
            continue;
        }
        // Some keys belong to one kind of peer, or to one transport.
        let company = match key.as_str() {
            "peer_protocol" => "peer: standard, ",
            "plain_protocol" => "tls: none, ",
            "mark" => "own: mark, ",
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
    let doc = doc_file("config.md");
    let (_, rest) = doc.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(
        example,
        doc_file("outrider.yaml"),
        "docs/outrider.yaml and the example in docs/config.md differ"
    );
    config::parse(example, Path::new("/etc/outrider")).unwrap_or_else(|error| panic!("{error}"));
    for ((section, key), _) in documented() {
        assert!(example.contains(&format!("{key}:")), "the example does not show {section}.{key}");
    }
}
