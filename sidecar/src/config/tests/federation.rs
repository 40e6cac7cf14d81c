//! `federation`.

use super::{TOP, assert_faults, settings};
use crate::model::{Settings, federation::Profile, transport::Roots};

fn parse_ok(rest: &str) -> Settings {
    settings(&format!("{TOP}{rest}"))
}

/// The file's beginning with these other trust domains, and something that is served.
fn with(domains: &[&str], rest: &str) -> String {
    let domains: Vec<_> = domains.iter().map(|domain| format!("  - {domain}\n")).collect();
    format!("outbound: [{{listen: '127.0.0.1:0'}}]\nfederation:\n{}{rest}", domains.concat())
}

#[test]
fn each_way_to_a_bundle_is_read() {
    let settings = parse_ok(&with(
        &[
            "{trust_domain: a.mesh, endpoint: 'https://Bundles.a.example/x?y=1', profile: https_web}",
            "{trust_domain: b.mesh, endpoint: 'https://10.0.0.7:8443', profile: https_web, roots: b.pem, bundle_file: b.json}",
            "{trust_domain: c.mesh, endpoint: 'https://c/', profile: https_spiffe, endpoint_spiffe_id: spiffe://c.mesh/ca, bundle_file: c.pem}",
            "{trust_domain: d.mesh, endpoint: 'https://c/d', profile: https_spiffe, endpoint_spiffe_id: spiffe://c.mesh/ca}",
            "{trust_domain: e.mesh, endpoint: 'https://o/', profile: https_spiffe, endpoint_spiffe_id: spiffe://demo.outrider/ca}",
            "{trust_domain: f.mesh, bundle_file: /f.pem}",
        ],
        "",
    ));
    let shown: Vec<_> = settings.federation.iter().map(|domain| domain.source()).collect();
    assert_eq!(
        shown,
        [
            "https://bundles.a.example/x?y=1 (https_web)",
            "https://10.0.0.7:8443/ (https_web)",
            "https://c/ (https_spiffe, spiffe://c.mesh/ca)",
            "https://c/d (https_spiffe, spiffe://c.mesh/ca)",
            "https://o/ (https_spiffe, spiffe://demo.outrider/ca)",
            "/f.pem",
        ]
    );
    let roots = |index: usize| match &settings.federation[index].endpoint.as_ref().unwrap().profile {
        Profile::Web(roots) => roots.clone(),
        Profile::Spiffe(_) => panic!(),
    };
    assert_eq!(roots(0), Roots::System);
    assert!(matches!(roots(1), Roots::File(path) if path.ends_with("b.pem")));
}

#[test]
fn every_fault_of_a_trust_domain_has_its_place() {
    let web = "endpoint: 'https://a/', profile: https_web";
    let cases: &[(String, &str)] = &[
        (web.to_owned(), "federation[0].trust_domain (6): is missing"),
        (
            format!("trust_domain: 'a/b', {web}"),
            "federation[0].trust_domain (6): \"a/b\" is not a trust domain",
        ),
        (
            format!("trust_domain: demo.outrider, {web}"),
            "federation[0].trust_domain (6): demo.outrider is our own",
        ),
        ("trust_domain: a".to_owned(), "federation[0] (6): has neither endpoint nor bundle_file"),
        ("trust_domain: a, endpoint: 'https://a/'".to_owned(), "federation[0].profile (6): is missing"),
        (
            "trust_domain: a, bundle_file: b, profile: https_web".to_owned(),
            "federation[0].profile (6): is about an endpoint",
        ),
        (
            "trust_domain: a, bundle_file: b, roots: r".to_owned(),
            "federation[0].roots (6): is about an endpoint",
        ),
        (
            "trust_domain: a, endpoint: 'http://a/', profile: https_web".to_owned(),
            "federation[0].endpoint (6): is not a URL with https",
        ),
        (
            "trust_domain: a, endpoint: 'https://u:p@a/', profile: https_web".to_owned(),
            "federation[0].endpoint (6): is a URL with a user",
        ),
        (
            "trust_domain: a, endpoint: 'https://a/', profile: web".to_owned(),
            "federation[0].profile (6): \"web\" is not known here",
        ),
        (
            format!("trust_domain: a, {web}, endpoint_spiffe_id: spiffe://a/b"),
            "federation[0].endpoint_spiffe_id (6): is for profile https_spiffe only",
        ),
    ];
    for (text, fault) in cases {
        assert_faults(&with(&[&format!("{{{text}}}")], ""), &[fault]);
    }
}

#[test]
fn who_vouches_for_an_endpoint_must_be_known_by_other_means() {
    let spiffe = |domain: &str, server: &str, more: &str| {
        format!(
            "{{trust_domain: {domain}, endpoint: 'https://x/', profile: https_spiffe, endpoint_spiffe_id: {server}{more}}}"
        )
    };
    let faults = |domains: &[String], expected: &[&str]| {
        let domains: Vec<_> = domains.iter().map(String::as_str).collect();
        assert_faults(&with(&domains, ""), expected);
    };
    faults(&[spiffe("a", "x", "")], &["federation[0].endpoint_spiffe_id (6): \"x\" is not the SPIFFE ID"]);
    faults(
        &[spiffe("a", "spiffe://a/ca", ", roots: r, bundle_file: b")],
        &["federation[0].roots (6): is for profile https_web only"],
    );
    faults(
        &[spiffe("a", "spiffe://a/ca", "")],
        &["federation[0].bundle_file (6): what vouches for this server"],
    );
    faults(
        &[spiffe("a", "spiffe://b/ca", "")],
        &["federation[0].endpoint_spiffe_id (6): b is a trust domain that nobody"],
    );
    let (a, b) = (spiffe("a", "spiffe://b/ca", ""), spiffe("b", "spiffe://a/ca", ""));
    faults(
        &[a.clone(), b],
        &["federation[0].bundle_file (6): what vouches", "federation[1].bundle_file (7): what vouches"],
    );
    parse_ok(&with(&[&a, &spiffe("b", "spiffe://a/ca", ", bundle_file: b.pem")], ""));
}

#[test]
fn ids_are_of_known_trust_domains() {
    let rest = "clusters:\n\
                - {name: a, spiffe_ids: [spiffe://partner/a], endpoints: [{address: '10.0.0.1:1'}, {address: '10.0.0.2:1', spiffe_id: 'spiffe://stranger/a'}]}\n\
                inbound: [{listen: '127.0.0.1:0', app: '127.0.0.1:1', allow: [spiffe://partner/b, spiffe://stranger/b, spiffe://demo.outrider/b]}]\n\
                intercept: {inbound: {ports: [{port: 80, allow: [spiffe://stranger/c]}], other_ports: {allow: [spiffe://stranger/d]}}}\n";
    assert_faults(
        &with(&["{trust_domain: partner, bundle_file: p.pem}"], rest),
        &[
            "clusters[0].endpoints[1].spiffe_id (8): spiffe://stranger/a is of a trust domain whose roots",
            "inbound[0].allow[1] (9): spiffe://stranger/b is",
            "intercept.inbound.ports[0].allow[0] (10): spiffe://stranger/c is",
            "intercept.inbound.other_ports.allow[0] (10): spiffe://stranger/d is",
        ],
    );
}

#[test]
fn every_domain_stands_there_once_and_there_are_not_too_many() {
    let domain = "{trust_domain: a, bundle_file: b}";
    assert_faults(&with(&[domain, domain], ""), &["federation[1].trust_domain (7): a stands here twice"]);
    assert_faults(&with(&[domain; 65], ""), &["federation (6): 65 trust domains"]);
}
