//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7396), strategic merge, and server-side apply.
//!
//! Strategic merge and apply know lists that are keyed by what the Kubernetes API's own types are keyed by in most cases:
//! `name`, `type`, `uid`. Of server-side apply there is what controllers lean on: what a manager applied before and does not
//! apply any more goes away; conflicts of managers are not told, as with `force`.

use serde_json::{Map, Value};

use super::failure::Failure;

/// Kinds of patches, by content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub(super) fn of(content_type: &str) -> Result<Self, Failure> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(Failure::new(
                415,
                "UnsupportedMediaType",
                format!("the body of the request was in an unknown format: {other}"),
            )),
        }
    }
}

/// `object` after the patch. `applied_before` is what this manager applied last.
pub(super) fn patched(
    kind: PatchKind,
    object: &Value,
    patch: Value,
    applied_before: Option<&Value>,
) -> Result<Value, Failure> {
    let mut object = object.clone();
    match kind {
        PatchKind::Json => {
            let patch: json_patch::Patch =
                serde_json::from_value(patch).map_err(|error| Failure::bad_request(error.to_string()))?;
            json_patch::patch(&mut object, &patch)
                .map_err(|error| Failure::new(422, "Invalid", error.to_string()))?;
        }
        PatchKind::Merge => json_patch::merge(&mut object, &patch),
        PatchKind::Strategic => merge(&mut object, &patch),
        PatchKind::Apply => {
            if let Some(before) = applied_before {
                give_up(&mut object, before, &patch);
            }
            merge(&mut object, &patch);
        }
    }
    Ok(object)
}

/// The key of a keyed list, if all items have it.
fn key_of(items: &[Value]) -> Option<&'static str> {
    let all = |key: &str| !items.is_empty() && items.iter().all(|item| item[key].is_string());
    ["name", "type", "uid"].into_iter().find(|key| all(key))
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => merge_fields(object, patch),
        (Value::Array(items), Value::Array(patch)) => match key_of(patch) {
            Some(key) if items.is_empty() || key_of(items) == Some(key) => {
                for change in patch {
                    match items.iter_mut().find(|item| item[key] == change[key]) {
                        Some(item) => merge(item, change),
                        None => items.push(change.clone()),
                    }
                }
            }
            _ => patch.clone_into(items),
        },
        (object, patch) => *object = patch.clone(),
    }
}

fn merge_fields(object: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, change) in patch {
        match (object.get_mut(name), change) {
            (_, Value::Null) => {
                object.remove(name);
            }
            (Some(value), _) => merge(value, change),
            (None, _) => {
                object.insert(name.clone(), change.clone());
            }
        }
    }
}

/// Takes out what was applied before and is not applied now.
fn give_up(object: &mut Value, before: &Value, now: &Value) {
    match (object, before) {
        (Value::Object(object), Value::Object(before)) => {
            for (name, old) in before {
                match (now.get(name), object.get_mut(name)) {
                    (Some(new), Some(value)) => give_up(value, old, new),
                    (None, Some(_)) => {
                        object.remove(name);
                    }
                    (_, None) => {}
                }
            }
        }
        (Value::Array(items), Value::Array(before)) => {
            let (Some(key), Some(now)) = (key_of(before), now.as_array()) else { return };
            items.retain(|item| {
                let is_same = |other: &&Value| other[key] == item[key];
                !before.iter().any(|old| is_same(&old)) || now.iter().any(|new| is_same(&new))
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_applied_patch_takes_back_what_it_leaves_out() {
        let first =
            json!({"spec": {"a": 1, "b": 2}, "status": {"conditions": [{"type": "X", "status": "True"}]}});
        let object = patched(PatchKind::Apply, &json!({"spec": {"other": 1}}), first.clone(), None).unwrap();
        let second = json!({"spec": {"a": 3}, "status": {"conditions": [{"type": "Y", "status": "True"}]}});
        let object = patched(PatchKind::Apply, &object, second, Some(&first)).unwrap();
        assert_eq!(
            object,
            json!({"spec": {"other": 1, "a": 3}, "status": {"conditions": [{"type": "Y", "status": "True"}]}})
        );
    }

    #[test]
    fn merge_patches_replace_lists_and_strategic_ones_merge_them() {
        let object = json!({"list": [{"name": "a", "v": 1}], "gone": 1});
        let patch = json!({"list": [{"name": "b"}], "gone": null});
        let merged = patched(PatchKind::Merge, &object, patch.clone(), None).unwrap();
        assert_eq!(merged, json!({"list": [{"name": "b"}]}));
        let merged = patched(PatchKind::Strategic, &object, patch, None).unwrap();
        assert_eq!(merged, json!({"list": [{"name": "a", "v": 1}, {"name": "b"}]}));
        let patch = json!([{"op": "test", "path": "/gone", "value": 2}]);
        assert_eq!(patched(PatchKind::Json, &object, patch, None).unwrap_err().code, 422);
    }
}
