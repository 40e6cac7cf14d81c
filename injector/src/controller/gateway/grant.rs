//! ReferenceGrants: who may refer to Services of another namespace.

use serde::Deserialize;
use serde_json::Value as Json;

use super::route::RouteKind;
use crate::controller::model::objects::Name;

/// Entries of one grant, of each list (Gateway API: 16).
const MAX_ENTRIES: usize = 16;
/// The group of routes.
const GROUP: &str = "gateway.networking.k8s.io";

/// What is kept of a ReferenceGrant: what routes may refer to which Services of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Routes of these kinds in these namespaces.
    from: Vec<(RouteKind, Name)>,
    /// To these Services; `None`: to all.
    to: Vec<Option<Name>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Debug, Deserialize)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct To {
    group: String,
    kind: String,
    #[serde(default)]
    name: Option<String>,
}

impl Grant {
    /// By its `spec`. What cannot be read grants nothing, and what is about other kinds is not ours.
    #[must_use]
    pub fn read(spec: &Json) -> Self {
        let raw = Raw::deserialize(spec).unwrap_or_default();
        let kind =
            |kind: &str| [RouteKind::Grpc, RouteKind::Http].into_iter().find(|known| known.as_str() == kind);
        let from = raw.from.into_iter().take(MAX_ENTRIES).filter(|from| from.group == GROUP);
        let to = raw.to.into_iter().take(MAX_ENTRIES);
        let to = to.filter(|to| to.group.is_empty() && to.kind == "Service");
        Self {
            from: from.filter_map(|from| Some((kind(&from.kind)?, from.namespace.into()))).collect(),
            to: to.map(|to| to.name.filter(|name| !name.is_empty()).map(Into::into)).collect(),
        }
    }

    /// Whether routes of this kind in `namespace` may refer to `service`.
    #[must_use]
    pub fn permits(&self, kind: RouteKind, namespace: &str, service: &str) -> bool {
        self.from.iter().any(|(known, from)| *known == kind && **from == *namespace)
            && self.to.iter().any(|to| to.as_deref().is_none_or(|name| name == service))
    }
}
