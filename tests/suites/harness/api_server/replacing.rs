//! What a new version of an object may change of it.

use serde_json::Value;

use super::{failure::Failure, kinds::Kind, store::Part};

/// What becomes of `old` if `object` replaces that part of it.
pub(super) fn replacement(kind: &Kind, old: &Value, mut object: Value, part: Part) -> Result<Value, Failure> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    if !object["metadata"].is_object() {
        return Err(Failure::bad_request("the body of the request is no object with metadata"));
    }
    for field in ["resourceVersion", "uid"] {
        let said = object["metadata"][field].as_str().unwrap_or_default();
        if !said.is_empty() && old["metadata"][field] != said {
            let why =
                "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Failure::conflict(kind, name, why));
        }
    }
    if part == Part::Status {
        let mut new = old.clone();
        new["status"] = object["status"].take();
        return Ok(new);
    }
    if kind.has_status && part == Part::Main {
        let fields = object.as_object_mut().expect("it has metadata");
        match old.get("status") {
            Some(status) => fields.insert("status".to_owned(), status.clone()),
            None => fields.shift_remove("status"),
        };
    }
    object["apiVersion"] = old["apiVersion"].clone();
    object["kind"] = old["kind"].clone();
    if kind.kind == "Secret" {
        if old["immutable"] == true && object["data"] != old["data"] {
            return Err(Failure::invalid(
                kind,
                name,
                "data: Forbidden: field is immutable when `immutable` is set",
            ));
        }
        bytes_of_texts(&mut object);
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp"] {
        if let Some(value) = old["metadata"].get(field) {
            object["metadata"][field] = value.clone();
        } else if part != Part::All && field == "deletionTimestamp" {
            object["metadata"].as_object_mut().expect("looked at").shift_remove(field);
        }
    }
    if object["spec"] != old["spec"] {
        object["metadata"]["generation"] = (old["metadata"]["generation"].as_u64().unwrap_or(1) + 1).into();
    }
    Ok(object)
}

/// `stringData` of a Secret is for writing only.
pub(super) fn bytes_of_texts(secret: &mut Value) {
    use base64::Engine as _;
    let texts = secret.as_object_mut().and_then(|fields| fields.shift_remove("stringData"));
    for (name, text) in texts.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let text = text.as_str().unwrap_or_default();
        secret["data"][name] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}
