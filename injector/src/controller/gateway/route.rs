//! What is kept of a route.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::controller::model::objects::{Kind, Name, ObjectKey};

/// Bytes of a route's text without its rules, at most: its name, and that of a cluster.
const ROUTE_BYTES: usize = 320;

/// The kinds of routes, the one that wins first: a port of a Service has routes of one kind only (GEP-1294, "Route types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// A GRPCRoute.
    Grpc,
    /// An HTTPRoute.
    Http,
}

impl RouteKind {
    /// As a kind that is watched.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Grpc => Kind::GrpcRoute,
            Self::Http => Kind::HttpRoute,
        }
    }

    /// As objects have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
        }
    }
}

/// Which route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Its kind.
    pub kind: RouteKind,
    /// Its namespace and name.
    pub key: ObjectKey,
}

/// A route, and what only its status is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Routed {
    /// What it says.
    pub route: Arc<Route>,
    /// As it was read.
    pub record: Record,
}

/// What a status is made of and written against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// `metadata.generation`: of this the conditions are.
    pub generation: i64,
    /// `metadata.resourceVersion`: a status is written to this version or not at all.
    pub version: String,
    /// `status.parents`, as it stands.
    pub parents: Vec<Json>,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// When it was made, in seconds since the Unix epoch: the oldest comes first.
    pub created: i64,
    /// Services that it is for; parents of other kinds are other controllers'.
    pub parents: Vec<Parent>,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// What is wrong with it as a whole: nothing is told of it then.
    pub faults: Vec<Problem>,
}

impl Route {
    /// Whether there is anything to be told of it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.faults.is_empty() && self.rules.iter().any(|rule| rule.words.is_some())
    }

    /// How many matches a sidecar compares for it, and bytes of its text, at most.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let told = self.rules.iter().filter(|rule| rule.words.is_some());
        told.fold((0, ROUTE_BYTES), |(matches, bytes), rule| (matches + rule.matches, bytes + rule.bytes))
    }
}

/// A Service that a route is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// As the route says it: a status repeats it.
    pub reference: Map<String, Json>,
    /// Which one.
    pub service: ObjectKey,
    /// Only this port of it.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section: Option<Name>,
}

/// A rule of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique in its route.
    pub name: String,
    /// An entry of `routes[].rules[]` of a sidecar's file, but for its `clusters`; `None`: nothing is told of it.
    pub words: Option<Map<String, Json>>,
    /// Matches in it.
    pub matches: usize,
    /// Bytes of it, at most, with its clusters.
    pub bytes: usize,
    /// Where its requests go.
    pub to: To,
    /// Where copies of them go.
    pub mirrors: Vec<Mirror>,
    /// What is wrong with it.
    pub faults: Vec<Problem>,
}

/// Where requests of a rule go.
#[derive(Clone, Debug, PartialEq)]
pub enum To {
    /// To these, by weight.
    Backends(Vec<Backend>),
    /// Their callers are sent elsewhere.
    Elsewhere,
    /// They are answered with an error, for something that the rule asks for cannot be done.
    Nobody,
}

/// One of a rule's backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its share, at most 1,000,000.
    pub weight: u32,
    /// A Service and its port, which may or may not be there; or why it is none.
    pub service: Result<(ObjectKey, u16), Problem>,
    /// What is changed of what goes there: keys of `routes[].rules[].clusters[]`.
    pub edits: Map<String, Json>,
}

impl Backend {
    /// Bytes of its changes.
    #[must_use]
    pub fn edits_bytes(&self) -> usize {
        if self.edits.is_empty() { 0 } else { Json::Object(self.edits.clone()).to_string().len() }
    }
}

/// Where copies of a rule's requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// To whom; of it weight and changes say nothing.
    pub backend: Backend,
    /// The share of the requests, in parts of a million.
    pub of_million: u32,
}

/// What is wrong, in the words of conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A reason of the specification.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Problem {
    /// One with this reason.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// A value that is not supported, or that the API server's schema would have refused.
    pub fn value(message: impl Into<String>) -> Self {
        Self::new("UnsupportedValue", message)
    }

    /// The same, with where it is in front.
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }
}
