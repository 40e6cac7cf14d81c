//! What a container is told of its pod: the downward API, and variables of its environment.

use serde_json::Value;

/// A text in an object; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A list in an object; empty if there is none.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A whole number in an object.
pub(super) fn number(object: &Value, pointer: &str) -> Option<u32> {
    object.pointer(pointer).and_then(Value::as_u64)?.try_into().ok()
}

/// A field of a pod, by its `fieldPath`.
pub(super) fn field(pod: &Value, path: &str) -> String {
    if let Some((part, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let part = pod.pointer(&format!("/{}", part.replace('.', "/")));
        return part.and_then(|part| part[key].as_str()).unwrap_or_default().to_owned();
    }
    match path {
        "status.podIPs" => {
            let all: Vec<_> = list(pod, "/status/podIPs").iter().map(|one| text(one, "/ip")).collect();
            all.join(",")
        }
        _ => text(pod, &format!("/{}", path.replace('.', "/"))).to_owned(),
    }
}

/// The environment that a container says, over what is there already.
pub(super) fn environment(
    container: &Value,
    pod: &Value,
    mut known: Vec<(String, String)>,
) -> Vec<(String, String)> {
    for entry in list(container, "/env") {
        let value = match entry.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
            Some(path) => field(pod, path),
            None => expanded(text(entry, "/value"), &known),
        };
        known.push((text(entry, "/name").to_owned(), value));
    }
    known
}

/// A text with variables put in: `$(NAME)`.
pub(super) fn expanded(text: &str, known: &[(String, String)]) -> String {
    known.iter().rev().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

/// A command's words with variables put in.
pub(super) fn words(container: &Value, pointer: &str, known: &[(String, String)]) -> Vec<String> {
    list(container, pointer).iter().map(|word| expanded(word.as_str().unwrap_or_default(), known)).collect()
}
