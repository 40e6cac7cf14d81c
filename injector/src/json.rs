//! Small steps in JSON that belongs to others: what is not looked at stays as it is.

use serde_json::{Map, Value};

/// What stands at a key that holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// The key is not there.
    Absent,
    /// It is there, with `null`.
    Null,
}

/// The object at `key`; one is made where there is nothing, and it is said what there was. `None`: something else is
/// there.
pub(crate) fn object_at<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> Option<(&'a mut Map<String, Value>, Option<Nothing>)> {
    let made = nothing(parent, key);
    if made.is_some() {
        parent.insert(key.to_owned(), Value::Object(Map::new()));
    }
    parent.get_mut(key)?.as_object_mut().map(|object| (object, made))
}

/// The list at `key`, in the same way.
pub(crate) fn list_at<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> Option<(&'a mut Vec<Value>, Option<Nothing>)> {
    let made = nothing(parent, key);
    if made.is_some() {
        parent.insert(key.to_owned(), Value::Array(Vec::new()));
    }
    parent.get_mut(key)?.as_array_mut().map(|list| (list, made))
}

/// What there is at a key that holds nothing; `None` if it holds something.
pub(crate) fn nothing(parent: &Map<String, Value>, key: &str) -> Option<Nothing> {
    match parent.get(key) {
        None => Some(Nothing::Absent),
        Some(Value::Null) => Some(Nothing::Null),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            None
        }
    }
}

/// Writes a key of an object that was made here.
pub(crate) fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
}

/// The text at a pointer (RFC 6901).
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The list at a pointer; empty where there is none.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The `name` of an item.
pub(crate) fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}
