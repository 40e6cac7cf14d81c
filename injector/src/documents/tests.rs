use proptest::prelude::*;
use serde_json::json;

use super::*;

fn one(text: &str) -> Value {
    let (documents, _) = read(text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.into_iter().next().unwrap()
}

#[test]
fn values_are_what_kubectl_takes_them_for() {
    for (text, value) in [
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0777", json!(511)),
        ("'0644'", json!("0644")),
        ("8080", json!(8080)),
        ("\"8080\"", json!("8080")),
        ("yes", json!(true)),
        ("'yes'", json!("yes")),
        ("9007199254740993", json!(9_007_199_254_740_993_u64)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-5", json!(-5)),
        ("1.50", json!(1.5)),
        ("'1e3'", json!("1e3")),
        ("~", Value::Null),
        ("1.29.3", json!("1.29.3")),
        ("12:30:45", json!("12:30:45")),
        ("2027-01-01", json!("2027-01-01")),
    ] {
        assert_eq!(one(&format!("a: {text}\n")), json!({"a": value}), "{text}");
    }
}

#[test]
fn a_stream_has_several_documents_and_empty_ones_do_not_count() {
    let (documents, format) = read("---\n# nothing\n---\na: 1\n---\nb: 2\n...\n---\n").unwrap();
    assert_eq!((documents, format), (vec![json!({"a": 1}), json!({"b": 2})], Format::Yaml));
    let (documents, format) = read("{\"a\": 1}\n {\"b\": 0.5}").unwrap();
    assert_eq!((documents, format), (vec![json!({"a": 1}), json!({"b": 0.5})], Format::Json));
    let (documents, format) = read("{a: 1, b: [x]}\n").unwrap();
    assert_eq!((documents, format), (vec![json!({"a": 1, "b": ["x"]})], Format::Yaml));
    assert!(read("").unwrap().0.is_empty());
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let text = "base: &base {x: 1}\nother:\n  <<: *base\n  y: 2\n";
    assert_eq!(one(text), json!({"base": {"x": 1}, "other": {"x": 1, "y": 2}}));
}

#[test]
fn what_is_broken_is_told_with_its_line() {
    let error = read("a: 1\nb: [1\nc: 2\n").unwrap_err().to_string();
    assert!(error.contains("line 3") || error.contains("3:"), "{error}");
    assert!(read("{\"a\": ").unwrap_err().to_string().contains("JSON"));
    assert!(read("a: 1\na: 2\n").is_err(), "a key that is there twice");
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "));
    }
    assert!(read(&text).is_err());
}

#[test]
fn the_configuration_is_a_block_that_can_be_read() {
    let file = "service: orders\nidentity:\n  ca:\n    address: a:1\n\nlist: []\n";
    let written = yaml(&json!({"metadata": {"annotations": {"outrider.io/config": file}}}));
    assert!(written.contains("outrider.io/config: |\n      service: orders\n      identity:\n"), "{written}");
    assert_eq!(one(&written), json!({"metadata": {"annotations": {"outrider.io/config": file}}}));
}

/// Values as manifests hold them, and texts that some reader takes for something else.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-zA-Z0-9_./:-]{0,12}",
        "(yes|No|ON|off|y|N|null|~|Null|true|FALSE|\\.nan|\\.inf|=|<<|-|\\?|0x1f|0o17|0777|1_000|1e3|\\.5|\\+1|12:30)",
        "[ -~]{0,20}",
        "[a-z :\t\n#-]{0,40}",
        ".{0,12}",
        "(\\PC|[\u{85}\u{a0}\u{2028}\u{feff}\r\n\t])*",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // As many digits as manifests have; the last one of seventeen may be lost in JSON.
        (-1_000_000..1_000_000_i32).prop_map(|number| Value::from(f64::from(number) / 1024.0)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_is_read_again(values in prop::collection::vec(value(), 1..4)) {
        let kept: Vec<Value> = values.iter().filter(|value| !value.is_null()).cloned().collect();
        let (found, _) = read(&write(&values, Format::Yaml)).unwrap();
        prop_assert_eq!(found, kept);
        let objects: Vec<Value> = values.into_iter().filter(Value::is_object).collect();
        if !objects.is_empty() {
            prop_assert_eq!(read(&write(&objects, Format::Json)).unwrap(), (objects, Format::Json));
        }
    }
}
