//! The mark: what injection changed of a pod, so that it can be taken back exactly.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    denial::{Denial, quoted},
    json::Nothing,
    names::INJECTED,
};

/// The form of marks that this version writes. Later forms are refused: it is not known what they mean.
const FORM: u32 = 1;

/// What was changed, as the annotation `outrider.io/injected` holds it (JSON).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// How the mark is to be read.
    pub(super) form: u32,
    /// The version of the injector.
    pub(super) version: String,
    /// Init containers that were added.
    pub(super) init_containers: Vec<String>,
    /// Volumes that were added.
    pub(super) volumes: Vec<String>,
    /// Labels that were added.
    pub(super) labels: Vec<String>,
    /// Annotations that were added, the mark itself included.
    pub(super) annotations: Vec<String>,
    /// Keys that held nothing before, by JSON Pointer, and whether they were there with `null`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(super) made: IndexMap<String, WasNothing>,
    /// What probes did before, by `container/kind`: the handler alone (`{"httpGet": …}`).
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(super) probes: IndexMap<String, Value>,
    /// Seconds of grace, before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grace: Option<Grace>,
}

/// The pod's termination grace period, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grace {
    /// As it was; `null` if nothing was said.
    pub(super) was: Value,
    /// As it was made.
    pub(super) is: Value,
}

/// [`Nothing`] in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WasNothing {
    Absent,
    Null,
}

impl From<Nothing> for WasNothing {
    fn from(nothing: Nothing) -> Self {
        match nothing {
            Nothing::Absent => Self::Absent,
            Nothing::Null => Self::Null,
        }
    }
}

impl Mark {
    /// A mark of this version, of nothing yet.
    pub(super) fn new() -> Self {
        Self { form: FORM, version: env!("CARGO_PKG_VERSION").to_owned(), ..Self::default() }
    }

    /// The mark of a pod; `None` if it has none.
    ///
    /// # Errors
    /// There is one that cannot be read, or of a later form.
    pub(super) fn of(pod: &Value) -> Result<Option<Self>, Denial> {
        let place = format!("annotation {INJECTED}");
        let Some(found) = pod.pointer("/metadata/annotations").and_then(|all| all.get(INJECTED)) else {
            return Ok(None);
        };
        let text = found.as_str().unwrap_or_default();
        let form = serde_json::from_str::<Value>(text).ok().and_then(|mark| mark.get("form")?.as_u64());
        if let Some(later) = form.filter(|form| *form > u64::from(FORM)) {
            let problem = format!("has the form {later}, which a later version has written");
            return Err(Denial::of(&place, &problem, "use that version's injector"));
        }
        let mark = serde_json::from_str(text).map_err(|error| {
            let problem = format!("{} is no mark of an injection ({error})", quoted(text));
            Denial::of(&place, &problem, "the injector writes it; take it and what was injected out by hand")
        })?;
        Ok(Some(mark))
    }

    /// Its text.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("names and JSON can be written as JSON")
    }

    /// Notes that there was nothing at a pointer, if so.
    pub(super) fn note(&mut self, pointer: &str, made: Option<Nothing>) {
        if let Some(nothing) = made {
            self.made.insert(pointer.to_owned(), nothing.into());
        }
    }

    /// Puts nothing back at `key` of `parent`, which is what stood at `pointer`, if the mark says so and what is there
    /// now is empty.
    pub(super) fn unmake(&self, parent: &mut Map<String, Value>, key: &str, pointer: &str) {
        let is_empty = match parent.get(key) {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(object)) => object.is_empty(),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => false,
        };
        if is_empty {
            self.put_back(parent, key, pointer);
        }
    }

    /// The same whatever is there now.
    pub(super) fn put_back(&self, parent: &mut Map<String, Value>, key: &str, pointer: &str) {
        match self.made.get(pointer) {
            Some(WasNothing::Absent) => drop(parent.shift_remove(key)),
            Some(WasNothing::Null) => drop(parent.insert(key.to_owned(), Value::Null)),
            None => {}
        }
    }
}
