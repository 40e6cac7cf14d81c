//! The cases of the W3C's own validation suite (github.com/w3c/trace-context, `test/test.py`), by its names. What a
//! service does there for each request, [`super::resent`] does here.

use super::*;

/// The trace that most cases send.
const TRACE: &str = "12345678901234567890123456789012";
const SPAN: &str = "1234567890123456";
/// A valid field of that trace.
const VALID: &str = "00-12345678901234567890123456789012-1234567890123456-00";

/// The trace that goes on after `traceparent` fields with these values, and the span.
fn sent_after(values: &[&str]) -> (String, String) {
    let fields: Vec<_> = values.iter().map(|value| ("traceparent", *value)).collect();
    of(&resent(&fields, W3C))
}

/// Trace and span of the one `traceparent` field, which is well-formed.
fn of(headers: &HeaderMap) -> (String, String) {
    let values: Vec<_> = headers.get_all("traceparent").iter().collect();
    assert_eq!(values.len(), 1, "{headers:?}");
    let (trace, span, _) = w3c::parse(values[0].as_bytes()).unwrap();
    (trace.to_string(), span.to_string())
}

fn is_new(values: &[&str]) {
    assert_ne!(sent_after(values).0, TRACE, "{values:?}");
}

fn goes_on(values: &[&str]) {
    let (trace, span) = sent_after(values);
    assert_eq!(trace, TRACE, "{values:?}");
    assert_ne!(span, SPAN, "{values:?}");
}

/// What goes on of `tracestate` lines with these values beside a valid `traceparent`; the trace goes on in any case.
fn state_after(lines: &[&str]) -> Option<String> {
    let mut fields = vec![("traceparent", VALID)];
    fields.extend(lines.iter().map(|line| ("tracestate", *line)));
    let headers = resent(&fields, W3C);
    assert_eq!(of(&headers).0, TRACE);
    assert!(headers.get_all("tracestate").iter().count() <= 1);
    headers.get("tracestate").map(|state| String::from_utf8(state.as_bytes().to_vec()).unwrap())
}

fn state_is(lines: &[&str], expected: &str) {
    assert_eq!(state_after(lines).as_deref(), Some(expected), "{lines:?}");
}

fn state_is_discarded(lines: &[&str]) {
    assert_eq!(state_after(lines), None, "{lines:?}");
}

#[test]
fn test_both_traceparent_and_tracestate_missing() {
    of(&resent(&[], W3C));
}

#[test]
fn test_traceparent_included_tracestate_missing() {
    goes_on(&["00-12345678901234567890123456789012-1234567890123456-01"]);
}

#[test]
fn test_traceparent_duplicated() {
    let (trace, _span) = sent_after(&[
        "00-12345678901234567890123456789011-1234567890123456-01",
        "00-12345678901234567890123456789012-1234567890123456-01",
    ]);
    assert!(trace != "12345678901234567890123456789011" && trace != TRACE);
}

#[test]
fn test_traceparent_header_name() {
    for name in ["trace-parent", "trace.parent"] {
        let headers = resent(&[(name, "00-12345678901234567890123456789012-1234567890123456-01")], W3C);
        assert_ne!(of(&headers).0, TRACE);
    }
}

#[test]
fn test_traceparent_header_name_valid_casing() {
    for name in ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
        let headers = resent(&[(name, "00-12345678901234567890123456789012-1234567890123456-01")], W3C);
        assert_eq!(of(&headers).0, TRACE);
    }
}

#[test]
fn test_traceparent_version_0x00() {
    is_new(&["00-12345678901234567890123456789012-1234567890123456-01."]);
    is_new(&["00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like"]);
}

#[test]
fn test_traceparent_version_0xcc() {
    goes_on(&["cc-12345678901234567890123456789012-1234567890123456-01"]);
    goes_on(&["cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like"]);
    is_new(&["cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like"]);
}

#[test]
fn test_traceparent_version_0xff() {
    is_new(&["ff-12345678901234567890123456789012-1234567890123456-01"]);
}

#[test]
fn test_traceparent_version_illegal_characters() {
    is_new(&[".0-12345678901234567890123456789012-1234567890123456-01"]);
    is_new(&["0.-12345678901234567890123456789012-1234567890123456-01"]);
}

#[test]
fn test_traceparent_version_too_long() {
    is_new(&["000-12345678901234567890123456789012-1234567890123456-01"]);
    is_new(&["0000-12345678901234567890123456789012-1234567890123456-01"]);
}

#[test]
fn test_traceparent_version_too_short() {
    is_new(&["0-12345678901234567890123456789012-1234567890123456-01"]);
}

#[test]
fn test_traceparent_trace_id_illegal_characters() {
    is_new(&["00-.2345678901234567890123456789012-1234567890123456-01"]);
    is_new(&["00-1234567890123456789012345678901.-1234567890123456-01"]);
}

#[test]
fn test_traceparent_trace_id_too_long() {
    is_new(&["00-123456789012345678901234567890123-1234567890123456-01"]);
    let (trace, _span) = sent_after(&["00-123456789012345678901234567890123-1234567890123456-01"]);
    assert_ne!(trace, "23456789012345678901234567890123");
}

#[test]
fn test_traceparent_trace_id_too_short() {
    is_new(&["00-1234567890123456789012345678901-1234567890123456-01"]);
}

#[test]
fn test_traceparent_parent_id_all_zero() {
    is_new(&["00-12345678901234567890123456789012-0000000000000000-01"]);
}

#[test]
fn test_traceparent_parent_id_illegal_characters() {
    is_new(&["00-12345678901234567890123456789012-.234567890123456-01"]);
    is_new(&["00-12345678901234567890123456789012-123456789012345.-01"]);
}

#[test]
fn test_traceparent_parent_id_too_long() {
    is_new(&["00-12345678901234567890123456789012-12345678901234567-01"]);
}

#[test]
fn test_traceparent_parent_id_too_short() {
    is_new(&["00-12345678901234567890123456789012-123456789012345-01"]);
}

#[test]
fn test_traceparent_trace_flags_illegal_characters() {
    is_new(&["00-12345678901234567890123456789012-1234567890123456-.0"]);
    is_new(&["00-12345678901234567890123456789012-1234567890123456-0."]);
}

#[test]
fn test_traceparent_trace_flags_too_long() {
    is_new(&["00-12345678901234567890123456789012-1234567890123456-001"]);
}

#[test]
fn test_traceparent_trace_flags_too_short() {
    is_new(&["00-12345678901234567890123456789012-1234567890123456-1"]);
}

#[test]
fn test_traceparent_trace_id_all_zero() {
    let (trace, _span) = sent_after(&["00-00000000000000000000000000000000-1234567890123456-01"]);
    assert_ne!(trace, "0".repeat(32));
}

#[test]
fn test_traceparent_ows_handling() {
    let valid = "00-12345678901234567890123456789012-1234567890123456-01";
    for (before, after) in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")] {
        goes_on(&[&format!("{before}{valid}{after}")]);
    }
}

#[test]
fn test_tracestate_included_traceparent_missing() {
    for state in ["foo=1", "foo=1,bar=2"] {
        let headers = resent(&[("tracestate", state)], W3C);
        of(&headers);
        assert!(!headers.contains_key("tracestate"));
    }
}

#[test]
fn test_tracestate_included_traceparent_included() {
    state_is(&["foo=1,bar=2"], "foo=1,bar=2");
}

#[test]
fn test_tracestate_header_name() {
    for name in ["trace-state", "trace.state"] {
        let headers = resent(&[("traceparent", VALID), (name, "foo=1")], W3C);
        assert!(!headers.contains_key("tracestate"));
    }
}

#[test]
fn test_tracestate_header_name_valid_casing() {
    for name in ["TraceState", "TrAcEsTaTe", "TRACESTATE"] {
        assert_eq!(resent(&[("traceparent", VALID), (name, "foo=1")], W3C)["tracestate"], "foo=1");
    }
}

#[test]
fn test_tracestate_empty_header() {
    state_is_discarded(&[""]);
    state_is(&["foo=1", ""], "foo=1");
    state_is(&["", "foo=1"], "foo=1");
}

#[test]
fn test_tracestate_multiple_headers_different_keys() {
    state_is(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3");
}

#[test]
fn test_tracestate_duplicated_keys() {
    state_is(&["foo=1,foo=1"], "foo=1,foo=1");
    state_is(&["foo=1,foo=2"], "foo=1,foo=2");
    state_is(&["foo=1", "foo=1"], "foo=1,foo=1");
    state_is(&["foo=1", "foo=2"], "foo=1,foo=2");
}

#[test]
fn test_tracestate_all_allowed_characters() {
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (' '..='~').filter(|char| !matches!(char, ',' | '=')).collect();
    for key in [key.to_owned(), format!("{key}@a-z0-9_-*/")] {
        let member = format!("{key}={value}");
        state_is(&[&member], &member);
    }
}

#[test]
fn test_tracestate_ows_handling() {
    state_is(&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3");
    state_is(&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3");
    for state in [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"] {
        state_is(&[state], "foo=1");
    }
}

#[test]
fn test_tracestate_key_illegal_characters() {
    for state in ["foo =1", "FOO=1", "foo.bar=1"] {
        state_is_discarded(&[state]);
    }
}

#[test]
fn test_tracestate_key_illegal_vendor_format() {
    state_is(&["foo@=1,bar=2"], "foo@=1,bar=2");
    state_is_discarded(&["@foo=1,bar=2"]);
    state_is(&["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2");
    state_is(&["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2");
}

#[test]
fn test_tracestate_member_count_limit() {
    let members: Vec<_> = (1..=33).map(|number| format!("bar{number:02}={number:02}")).collect();
    let lines = |count: usize| -> Vec<_> { members[..count].chunks(10).map(|line| line.join(",")).collect() };
    let all = lines(32);
    state_is(&all.iter().map(String::as_str).collect::<Vec<_>>(), &members[..32].join(","));
    let too_many = lines(33);
    state_is_discarded(&too_many.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn test_tracestate_key_length_limit() {
    for key in [
        "z".repeat(256),
        format!("{}@{}", "t".repeat(241), "v".repeat(14)),
        format!("{}@v", "t".repeat(242)),
        format!("t@{}", "v".repeat(15)),
    ] {
        state_is(&["foo=1", &format!("{key}=1")], &format!("foo=1,{key}=1"));
    }
    state_is_discarded(&["foo=1", &format!("{}=1", "z".repeat(257))]);
}

#[test]
fn test_tracestate_value_illegal_characters() {
    state_is_discarded(&["foo=bar=baz"]);
    state_is_discarded(&["foo=,bar=3"]);
}
