//! The difference of two pods as a JSON Patch (RFC 6902), as the API server takes it.
//!
//! Items of lists that have a `name` are told apart by it, so that containers which are put before others are added, and
//! nothing that stays is written again.

use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation,
    jsonptr::{PointerBuf, Token},
};
use serde_json::{Map, Value};

/// What makes `to` of `from`; empty if they are the same.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Patch {
    let mut patch = Patch(Vec::new());
    values(from, to, &mut PointerBuf::new(), &mut patch);
    // Nobody should have to trust the lines below: where they were wrong, the whole is replaced.
    let mut applied = from.clone();
    if json_patch::patch(&mut applied, &patch).is_err() || applied != *to {
        let whole = ReplaceOperation { path: PointerBuf::new(), value: to.clone() };
        return Patch(vec![PatchOperation::Replace(whole)]);
    }
    patch
}

fn values(from: &Value, to: &Value, path: &mut PointerBuf, patch: &mut Patch) {
    match (from, to) {
        _ if from == to => {}
        (Value::Object(from), Value::Object(to)) => objects(from, to, path, patch),
        (Value::Array(from), Value::Array(to)) => lists(from, to, path, patch),
        _ => replace(path, to, patch),
    }
}

fn objects(from: &Map<String, Value>, to: &Map<String, Value>, path: &mut PointerBuf, patch: &mut Patch) {
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        at(path, Token::new(key), |path| remove(path, patch));
    }
    for (key, value) in to {
        at(path, Token::new(key), |path| match from.get(key) {
            Some(from) => values(from, value, path, patch),
            None => add(path, value, patch),
        });
    }
}

/// Goes along both lists. Where the same items have changed places, the list is replaced.
fn lists(from: &[Value], to: &[Value], path: &mut PointerBuf, patch: &mut Patch) {
    let is_in = |item: &Value, list: &[Value]| list.iter().any(|other| is_same(item, other));
    let mut changes = Patch(Vec::new());
    let (mut from_rest, mut to_rest, mut index) = (from, to, 0_usize);
    loop {
        match (from_rest.split_first(), to_rest.split_first()) {
            (None, None) => break,
            (Some((old, old_rest)), Some((new, new_rest))) if is_same(old, new) => {
                at(path, Token::from(index), |path| values(old, new, path, &mut changes));
                (from_rest, to_rest, index) = (old_rest, new_rest, index + 1);
            }
            (_, Some((new, new_rest))) if !is_in(new, from_rest) => {
                at(path, Token::from(index), |path| add(path, new, &mut changes));
                (to_rest, index) = (new_rest, index + 1);
            }
            (Some((old, old_rest)), _) if !is_in(old, to_rest) => {
                at(path, Token::from(index), |path| remove(path, &mut changes));
                from_rest = old_rest;
            }
            _ => return replace(path, &Value::Array(to.to_vec()), patch),
        }
    }
    patch.0.append(&mut changes.0);
}

/// Whether they are one item, perhaps changed: by name, or else as a whole.
fn is_same(one: &Value, other: &Value) -> bool {
    let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    match (name(one), name(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn at(path: &mut PointerBuf, token: Token<'_>, then: impl FnOnce(&mut PointerBuf)) {
    path.push_back(token);
    then(path);
    drop(path.pop_back());
}

fn add(path: &PointerBuf, value: &Value, patch: &mut Patch) {
    patch.0.push(PatchOperation::Add(AddOperation { path: path.clone(), value: value.clone() }));
}

fn remove(path: &PointerBuf, patch: &mut Patch) {
    patch.0.push(PatchOperation::Remove(RemoveOperation { path: path.clone() }));
}

fn replace(path: &PointerBuf, value: &Value, patch: &mut Patch) {
    patch.0.push(PatchOperation::Replace(ReplaceOperation { path: path.clone(), value: value.clone() }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_before_others_are_added_and_those_stay() {
        let from = json!({"spec": {"initContainers": [{"name": "a", "image": "x"}, {"name": "b"}]}});
        let to = json!({"spec": {"initContainers": [
            {"name": "outrider-init"}, {"name": "outrider"}, {"name": "a", "image": "y"}, {"name": "b"}]}});
        let patch = serde_json::to_value(diff(&from, &to)).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "add", "path": "/spec/initContainers/0", "value": {"name": "outrider-init"}},
                {"op": "add", "path": "/spec/initContainers/1", "value": {"name": "outrider"}},
                {"op": "replace", "path": "/spec/initContainers/2/image", "value": "y"},
            ])
        );
    }

    #[test]
    fn keys_with_slashes_and_tildes_are_escaped() {
        let to = json!({"metadata": {"annotations": {"outrider.io/a~b": "1"}}});
        let patch = serde_json::to_value(diff(&json!({"metadata": {"annotations": {}}}), &to)).unwrap();
        assert_eq!(patch[0]["path"], "/metadata/annotations/outrider.io~1a~0b");
    }

    #[test]
    fn what_is_the_same_needs_no_patch() {
        assert!(diff(&json!({"a": [1, {"b": 2}]}), &json!({"a": [1, {"b": 2}]})).0.is_empty());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3_u8).prop_map(Value::from),
            "[ab/~]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("(name|a|b|/|~)", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_applied_gives_the_other(from in value(), to in value()) {
            let mut applied = from.clone();
            json_patch::patch(&mut applied, &diff(&from, &to)).unwrap();
            prop_assert_eq!(applied, to);
        }
    }
}
