//! What a request asks for: its path and its query, in the API's words.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{failure::Failure, kinds::Kind, selectors::Selector, store::Store};

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub(crate) verb: String,
    /// `discovery.k8s.io/endpointslices`, `pods`.
    pub(crate) resource: String,
    /// `status`, `token`, or empty.
    pub(crate) subresource: String,
    /// Empty: all of them, or none.
    pub(crate) namespace: String,
    /// Empty in a list.
    pub(crate) name: String,
    /// Who asks.
    pub(crate) user: String,
    pub(crate) user_agent: String,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    /// Empty: all of them, or none.
    pub(super) namespace: String,
    /// Empty: all of them.
    pub(super) name: String,
    pub(super) subresource: String,
}

impl Target {
    /// By the parts of a path, which starts with `api` or `apis`.
    pub(super) fn find(store: &Store, segments: &[&str]) -> Result<Self, Failure> {
        let (group, version, rest) = match segments {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Failure::no_resource()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if *plural != "status" && *plural != "finalize" => {
                (*namespace, [&[*plural], rest].concat())
            }
            rest => ("", rest.to_vec()),
        };
        let (plural, name, subresource) = match rest.as_slice() {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return Err(Failure::no_resource()),
        };
        let kind = store.kind(group, version, plural).ok_or_else(Failure::no_resource)?;
        let is_whole = name.is_empty() || kind.is_namespaced != namespace.is_empty();
        let is_subresource = match subresource {
            "" => true,
            "status" => kind.has_status,
            "token" => kind.kind == "ServiceAccount",
            _ => false,
        };
        if !is_whole || !is_subresource || (!kind.is_namespaced && !namespace.is_empty()) {
            return Err(Failure::no_resource());
        }
        Ok(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }

    /// The namespace, if it is about one.
    pub(super) fn namespace(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }
}

/// The query, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.text(name), Some("true" | "1"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|_error| Failure::bad_request(format!("invalid {name}: not a number")))
    }

    pub(super) fn selector(&self) -> Result<Selector, Failure> {
        Selector::parse(self.text("labelSelector"), self.text("fieldSelector"))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("3f");
                u8::from_str_radix(digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// In which form objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Form {
    pub(super) fn of(accept: &str) -> Self {
        if accept.contains("as=PartialObjectMetadata") { Self::Metadata } else { Self::Whole }
    }

    /// One object as it stands alone or in an event.
    pub(super) fn one(self, object: &Value) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            }),
        }
    }

    /// A list.
    pub(super) fn list(self, kind: &Kind, metadata: &Value, items: &[std::sync::Arc<Value>]) -> Value {
        let items = items.iter().map(|item| {
            let mut item = self.one(item);
            // As the real server: types are told once for a list of what is built in.
            if self == Self::Whole && !kind.is_custom {
                let fields = item.as_object_mut().expect("an object");
                fields.shift_remove("apiVersion");
                fields.shift_remove("kind");
            }
            item
        });
        let items: Vec<_> = items.collect();
        match self {
            Self::Whole => json!({
                "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata,
                "items": items,
            }),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": items,
            }),
        }
    }
}
