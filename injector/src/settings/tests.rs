use super::*;
use crate::installation::{NAMESPACE, REGISTRY, TRUST_DOMAIN};

fn installation() -> Installation {
    Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), REGISTRY)
}

fn read(annotations: &[(&str, &str)]) -> Result<Settings, Denial> {
    Settings::read(&annotations.iter().copied().collect(), &installation())
}

/// The only reason why these are denied.
fn reason(annotations: &[(&str, &str)]) -> String {
    let denial = read(annotations).unwrap_err();
    assert_eq!(denial.reasons().len(), 1, "{denial}");
    denial.to_string()
}

#[test]
fn nothing_said_means_the_documented_defaults() {
    let settings = read(&[("prometheus.io/scrape", "true")]).unwrap();
    assert_eq!(settings.drain_time, Duration::from_secs(20));
    assert_eq!(settings.uid, 4343);
    assert!(settings.are_probes_rewritten && settings.plaintext.is_none());
    assert_eq!(settings.resources.memory_limit.unwrap().text, "256Mi");
    assert_eq!(settings.resources.cpu_limit, None);
    for key in KEYS {
        let is_text = ["the ", "as "].iter().any(|start| key.default.starts_with(start));
        if !key.default.is_empty() && !is_text {
            assert_eq!(read(&[(key.name, key.default)]), read(&[]), "{}", key.name);
        }
    }
}

#[test]
fn a_bad_value_is_denied_by_the_annotations_name_and_what_is_allowed() {
    for key in KEYS {
        let wrong = reason_of_any(&[(key.name, "\u{1}no such thing,,=")]);
        assert!(wrong.contains(key.name) && wrong.contains("allowed: "), "{wrong}");
        assert!(!wrong.contains(['\u{1}', '\n', '`']), "{wrong:?}");
    }
    assert_eq!(
        reason(&[("outrider.io/drain-time", "2h")]),
        "annotation outrider.io/drain-time: \"2h\" is out of range; allowed: duration, 1s..=1h"
    );
}

fn reason_of_any(annotations: &[(&str, &str)]) -> String {
    read(annotations).unwrap_err().reasons().first().unwrap().clone()
}

#[test]
fn both_ends_of_every_range_are_in_it() {
    for key in KEYS.iter().filter(|key| !key.range.is_empty()) {
        let (min, max) = key.range.split_once("..=").unwrap();
        for end in [min, max] {
            // A request is never more than the limit.
            let mut annotations = vec![(key.name, end)];
            for limit in ["outrider.io/cpu-limit", "outrider.io/memory-limit"] {
                if key.name != limit {
                    annotations.push((limit, "none"));
                }
            }
            for request in ["outrider.io/cpu-request", "outrider.io/memory-request"] {
                if key.name != request {
                    annotations.push((request, "none"));
                }
            }
            assert!(read(&annotations).is_ok(), "{} {end}", key.name);
        }
    }
}

#[test]
fn an_unknown_annotation_of_ours_is_denied_with_those_that_are_known() {
    let wrong = reason(&[("outrider.io/drain-tiem", "20s")]);
    assert!(wrong.contains("drain-tiem") && wrong.contains("drain-time"), "{wrong}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let denial = read(&[("outrider.io/uid", "root"), ("outrider.io/probes", "no")]).unwrap_err();
    assert_eq!(denial.reasons().len(), 2, "{denial}");
}

#[test]
fn what_makes_no_sense_together_is_denied() {
    for (annotations, words) in [
        (&[("outrider.io/plaintext-ports", "8080")][..], "without an end"),
        (&[("outrider.io/plaintext-until", "2027-01-01")], "no meaning alone"),
        (&[("outrider.io/inbound-except-ports", "80"), ("outrider.io/protocols", "80=http")], "never comes"),
        (&[("outrider.io/protocols", "80=tcp"), ("outrider.io/app-protocols", "80=http2")], "carries tcp"),
        (&[("outrider.io/memory-request", "300Mi")], "more than the limit"),
        (&[("outrider.io/traces-endpoint", "http://c:4318/spans")], "has a path, which gRPC has no use for"),
    ] {
        let wrong = reason(annotations);
        assert!(wrong.contains(words), "{wrong}");
    }
}

#[test]
fn the_installation_has_the_say_where_the_pod_is_silent() {
    let defaults = [("drain-time", "40s"), ("outrider.io/log-level", "warn")];
    let defaults = defaults.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let installation = installation().with_defaults(defaults).unwrap();
    let annotations = BTreeMap::from([("outrider.io/log-level", "debug")]);
    let settings = Settings::read(&annotations, &installation).unwrap();
    assert_eq!((settings.drain_time.as_secs(), settings.log_level.as_str()), (40, "debug"));
}

#[test]
fn what_is_told_and_where_to_is_typed() {
    let settings = read(&[
        ("outrider.io/traces-endpoint", "http://c:4318/spans"),
        ("outrider.io/otlp-protocol", "http"),
        ("outrider.io/trace-sample-percent", "0.5"),
        ("outrider.io/access-log", "errors"),
    ]);
    let expected = Telemetry {
        traces: Some("http://c:4318/spans".to_owned()),
        metrics: None,
        protocol: "http",
        sample_permille: 5,
        access_log: Some("errors"),
    };
    assert_eq!(settings.unwrap().telemetry, expected);
    let secret = reason(&[("outrider.io/metrics-endpoint", "http://u:secret@c:4317")]);
    assert!(secret.contains("user or password") && !secret.contains("secret@"), "{secret}");
}

#[test]
fn what_the_installation_forbids_is_denied_to_pods_and_holds_as_a_default() {
    let installation = installation()
        .with_defaults([("inbound-except-ports".to_owned(), "9100".to_owned())])
        .unwrap()
        .with_forbidden(["inbound-except-ports".to_owned()])
        .unwrap();
    let settings = Settings::read(&BTreeMap::new(), &installation).unwrap();
    assert_eq!(settings.inbound_except.ports, [9100]);
    let annotations = BTreeMap::from([("outrider.io/inbound-except-ports", "9200")]);
    let denial = Settings::read(&annotations, &installation).unwrap_err().to_string();
    assert!(denial.contains("inbound-except-ports: is forbidden in this cluster"), "{denial}");
    let unknown = self::installation().with_forbidden(["inbound-excpet-ports".to_owned()]);
    assert!(unknown.unwrap_err().to_string().contains("is not known"));
}

#[test]
fn a_default_that_no_pod_could_have_is_refused_at_the_start() {
    for (name, text) in [("drain-time", "soon"), ("drain-tiem", "20s")] {
        let result = installation().with_defaults([(name.to_owned(), text.to_owned())]);
        assert!(result.unwrap_err().to_string().contains(name));
    }
}
