//! What is set of the chart's values: the defaults, a file over them, single keys over that.

use serde_json::{Map, Value};

/// Keys below which anything may stand: Kubernetes' own words.
const FREE: [&str; 6] = [
    "nodeSelector",
    "tolerations",
    "resources.ca",
    "resources.controller",
    "resources.injector",
    "image.pullSecrets",
];

/// Lays `over` over `values`: sections are joined key by key, everything else is replaced, as Helm does.
///
/// # Errors
/// A key that there is not, or a value of another kind than the default; with its path and what would fit.
pub(super) fn lay(values: &mut Value, over: Value, path: &str) -> Result<(), String> {
    let is_free = FREE.contains(&path);
    match (values, over) {
        (values @ (Value::Object(_) | Value::Array(_)), over) if is_free => {
            if std::mem::discriminant(&*values) != std::mem::discriminant(&over) {
                return Err(wrong_kind(path, values, &over));
            }
            join(values, over);
        }
        (Value::Object(fields), Value::Object(over)) => {
            for (key, value) in over {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let known = known(fields);
                let field = fields
                    .get_mut(&key)
                    .ok_or_else(|| format!("{path}: there is no such key; known here: {known}"))?;
                lay(field, value, &path)?;
            }
        }
        (values, over) if std::mem::discriminant(&*values) == std::mem::discriminant(&over) => *values = over,
        (values, over) => return Err(wrong_kind(path, values, &over)),
    }
    Ok(())
}

/// Joins what may be anything: sections key by key, where nothing takes a key away; all else is replaced.
fn join(values: &mut Value, over: Value) {
    match (values, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    fields.shift_remove(&key);
                } else {
                    join(fields.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (values, over) => *values = over,
    }
}

/// Reads `a.b=c` as `{a: {b: c}}`, where `c` is YAML; but where the default is a string, words such as `off` and `1.10`
/// stay what they are.
///
/// # Errors
/// What is wrong with it.
pub(super) fn single(text: &str, defaults: &Value) -> Result<Value, String> {
    let (path, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: write it as key=value"))?;
    let default = path.split('.').try_fold(defaults, |section, key| section.get(key));
    let read: Value = serde_saphyr::from_str(value).map_err(|error| format!("{path}: {error}"))?;
    let value = match (default, read) {
        (Some(Value::String(_)), Value::Null | Value::Bool(_) | Value::Number(_)) => {
            Value::String(value.to_owned())
        }
        (_, read) => read,
    };
    Ok(path.rsplit('.').fold(value, |value, key| Value::Object(Map::from_iter([(key.to_owned(), value)]))))
}

fn known(fields: &Map<String, Value>) -> String {
    fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn wrong_kind(path: &str, default: &Value, given: &Value) -> String {
    let kind = match default {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string (in quotes, if YAML would take it for something else)",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    };
    let path = if path.is_empty() { "the values" } else { path };
    format!("{path}: {given} does not fit; {kind} is wanted here, as the default {default}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaults() -> Value {
        json!({"replicas": 2, "image": {"tag": "1", "registry": "r"}, "nodeSelector": {"a": "b"}, "resources": {"ca": {"limits": {}}}})
    }

    #[test]
    fn sections_are_joined_and_the_rest_is_replaced() {
        let mut values = defaults();
        lay(&mut values, json!({"image": {"tag": "2"}, "nodeSelector": {"a": null, "c": "d"}}), "").unwrap();
        for over in ["replicas=3", "resources.ca={limits: {memory: 1Gi}}"] {
            lay(&mut values, single(over, &defaults()).unwrap(), "").unwrap();
        }
        let expected = json!({"replicas": 3, "image": {"tag": "2", "registry": "r"}, "nodeSelector": {"c": "d"}, "resources": {"ca": {"limits": {"memory": "1Gi"}}}});
        assert_eq!(values, expected);
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        for (given, told) in [
            ("image.tga=2", "image.tga: there is no such key; known here: tag, registry"),
            ("replicas=many", "replicas: \"many\" does not fit; a number is wanted here, as the default 2"),
            ("image=2", "image: 2 does not fit; a section is wanted here"),
            ("nodeSelector=2", "nodeSelector: 2 does not fit; a section is wanted here"),
        ] {
            let fault = lay(&mut defaults(), single(given, &defaults()).unwrap(), "").unwrap_err();
            assert!(fault.starts_with(told), "{fault}");
        }
        assert!(single("replicas", &defaults()).unwrap_err().contains("key=value"));
    }

    #[test]
    fn text_stays_text_where_the_default_is_text() {
        for (given, tag) in
            [("off", "off"), ("1.10", "1.10"), ("true", "true"), ("", ""), ("'2'", "2"), ("1e3", "1e3")]
        {
            let mut values = defaults();
            lay(&mut values, single(&format!("image.tag={given}"), &defaults()).unwrap(), "").unwrap();
            assert_eq!(values["image"]["tag"], tag, "{given}");
        }
    }
}
