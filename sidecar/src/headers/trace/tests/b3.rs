//! B3's forms, after its specification.

use super::*;

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const SPAN: &str = "e457b5a2e4d86bd1";

/// What one `b3` field says.
fn single(value: &str) -> (Option<(String, String)>, Option<bool>) {
    told(&[("b3", value)])
}

fn context(trace: &str, span: &str) -> Option<(String, String)> {
    Some((format!("{trace:0>32}"), span.to_owned()))
}

#[test]
fn the_specifications_examples_of_one_field() {
    let whole = format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90");
    assert_eq!(single(&whole), (context(TRACE, SPAN), Some(true)));
    assert_eq!(single(&format!("{TRACE}-{SPAN}-d")), (context(TRACE, SPAN), Some(true)));
    assert_eq!(single(&format!("{TRACE}-{SPAN}-0")), (context(TRACE, SPAN), Some(false)));
    assert_eq!(single(&format!("{TRACE}-{SPAN}")), (context(TRACE, SPAN), None));
    assert_eq!(single("0"), (None, Some(false)));
    assert_eq!(single("1"), (None, Some(true)));
    assert_eq!(single("d"), (None, Some(true)));
}

#[test]
fn a_trace_of_64_bits_keeps_its_16_digits() {
    let short = "64fe8b2a57d3eff7";
    assert_eq!(single(&format!("{short}-{SPAN}-1")), (context(short, SPAN), Some(true)));
    let sent = resent(&[("b3", &format!("{short}-{SPAN}-1"))], ALL);
    assert_eq!(sent["b3"], format!("{short}-0000000000000009-1"));
    assert_eq!(sent["x-b3-traceid"], short);
    assert_eq!(sent["traceparent"], format!("00-0000000000000000{short}-0000000000000009-01"));
}

#[test]
fn one_field_that_is_not_well_formed_says_nothing() {
    let zeros = "0".repeat(16);
    for bad in [
        "",
        "2",
        "-",
        "dd",
        TRACE,
        &format!("{TRACE}-"),
        &format!("{}-{SPAN}", TRACE.to_uppercase()),
        &format!("{TRACE}-{SPAN}-"),
        &format!("{TRACE}-{SPAN}-2"),
        &format!("{TRACE}-{SPAN}-10"),
        &format!("{TRACE}-{SPAN}-1-"),
        &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b9"),
        &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-"),
        &format!("{TRACE}-{SPAN}0-1"),
        &format!("{TRACE}0-{SPAN}-1"),
        &format!("{zeros}-{SPAN}-1"),
        &format!("{TRACE}-{zeros}-1"),
    ] {
        assert_eq!(single(bad), (None, None), "{bad}");
    }
    let one = format!("{TRACE}-{SPAN}-1");
    assert_eq!(told(&[("b3", &one), ("b3", &one)]), (None, None), "twice");
}

#[test]
fn a_field_for_each_part() {
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    let with = |more: &[(&'static str, &'static str)]| told(&[&ids[..], more].concat());
    let found = context(TRACE, SPAN);
    assert_eq!(with(&[]), (found.clone(), None), "left to us");
    for (value, is_sampled) in
        [("1", Some(true)), ("0", Some(false)), ("true", Some(true)), ("false", Some(false)), ("yes", None)]
    {
        assert_eq!(with(&[("x-b3-sampled", value)]), (found.clone(), is_sampled), "{value}");
    }
    assert_eq!(with(&[("x-b3-flags", "1"), ("x-b3-sampled", "0")]), (found.clone(), Some(true)), "debug");
    assert_eq!(with(&[("x-b3-flags", "0")]), (found.clone(), None));
    assert_eq!(with(&[("x-b3-parentspanid", "05e3ac9a4f6e3b90")]), (found, None));
    assert_eq!(with(&[("x-b3-spanid", SPAN)]), (None, None), "twice");
    assert_eq!(told(&[("x-b3-sampled", "0")]), (None, Some(false)), "a trace that begins is not wanted");
    assert_eq!(told(&ids[..1]), (None, None), "without a span");
    assert_eq!(told(&[("x-b3-traceid", "64fe8b2a57d3eff7"), ids[1]]).0, context("64fe8b2a57d3eff7", SPAN));
}
