//! Which objects a list or a watch is about: label and field selectors as the API server reads them.

use serde_json::Value;

use super::failure::Failure;

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Labels {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// One condition of a field selector: a path, whether it should be equal, a value.
type Field = (String, bool, String);

/// Both selectors of a request. All conditions must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Labels>,
    fields: Vec<Field>,
}

/// Fields that can be selected by; the server knows few, and says so.
const FIELDS: [&str; 5] = ["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "type"];

impl Selector {
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, Failure> {
        let labels = split(labels.unwrap_or_default())
            .iter()
            .map(|text| label(text).ok_or_else(|| unreadable(text)))
            .collect::<Result<_, _>>()?;
        let fields = split(fields.unwrap_or_default())
            .iter()
            .map(|text| field(text).ok_or_else(|| unreadable(text)))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// The one name that is asked for, as authorization sees it.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|(path, is_equal, _)| path == "metadata.name" && *is_equal)
            .map(|(_, _, name)| name.as_str())
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let value = |key: &String| labels.get(key).and_then(Value::as_str);
        self.labels.iter().all(|condition| match condition {
            Labels::In(key, values) => value(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Labels::NotIn(key, values) => {
                value(key).is_none_or(|value| values.iter().all(|one| one != value))
            }
            Labels::Exists(key) => value(key).is_some(),
            Labels::Absent(key) => value(key).is_none(),
        }) && self.fields.iter().all(|(path, is_equal, wanted)| {
            let found = path.split('.').try_fold(object, |object, part| object.get(part));
            (found.and_then(Value::as_str).unwrap_or_default() == wanted) == *is_equal
        })
    }
}

fn unreadable(text: &str) -> Failure {
    Failure::bad_request(format!("unable to parse requirement: {text}"))
}

/// At commas that are not in parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_u32);
    for char in text.chars() {
        match char {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if char == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().expect("one").push(char);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn label(text: &str) -> Option<Labels> {
    let values = |list: &str| -> Option<Vec<String>> {
        let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(list.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((key, list)) = text.split_once(" notin ") {
        return Some(Labels::NotIn(key.trim().to_owned(), values(list)?));
    }
    if let Some((key, list)) = text.split_once(" in ") {
        return Some(Labels::In(key.trim().to_owned(), values(list)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Labels::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Labels::In(key.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    match text.strip_prefix('!') {
        _ if text.contains([' ', '(']) => None,
        Some(key) => Some(Labels::Absent(key.trim().to_owned())),
        None => Some(Labels::Exists(text.to_owned())),
    }
}

fn field(text: &str) -> Option<Field> {
    let (path, is_equal, value) = match text.split_once("!=") {
        Some((path, value)) => (path, false, value),
        None => {
            let (path, value) = text.split_once("==").or_else(|| text.split_once('='))?;
            (path, true, value)
        }
    };
    let is_known = FIELDS.contains(&path) || path.starts_with("involvedObject.");
    is_known.then(|| (path.to_owned(), is_equal, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_mean_what_the_api_says() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "n", "labels": {"app": "orders", "tier": "back"}},
            "spec": {"nodeName": "one"},
        });
        let matches = |labels, fields| Selector::parse(Some(labels), Some(fields)).unwrap().matches(&object);
        for good in [
            "",
            "app=orders",
            "app==orders,tier",
            "app in (x, orders)",
            "app notin (x,y)",
            "!none",
            "none!=x",
            "none notin (x)",
        ] {
            assert!(matches(good, ""), "{good}");
        }
        for bad in ["app=x", "app!=orders", "!app", "none", "app in (x,y)", "app=orders,tier=front"] {
            assert!(!matches(bad, ""), "{bad}");
        }
        assert!(matches("", "metadata.name=a,spec.nodeName=one,metadata.namespace!=b"));
        assert!(!matches("", "spec.nodeName=two"));
        assert!(!matches("", "spec.nodeName!=one"));
        assert!(Selector::parse(Some("a b"), None).is_err());
        assert!(Selector::parse(None, Some("spec.colour=red")).is_err());
    }
}
