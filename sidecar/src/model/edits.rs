//! What a route changes: fields, path and host of what goes on, or the place that a caller is sent to instead.

use http::{HeaderName, HeaderValue, StatusCode};

/// What is changed of a request that goes on, and of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields of the request.
    pub request: FieldEdits,
    /// Fields of the upstream's answer.
    pub response: FieldEdits,
    /// Whom the next hop is asked for instead: a canonical authority; `None`: whom the caller asks for.
    pub host: Option<Box<str>>,
    /// The path that it is asked for; `None`: the caller's.
    pub path: Option<PathEdit>,
}

impl Edits {
    /// Whether anything is changed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// These changes, and then the next ones.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        Self {
            request: self.request.then(&next.request),
            response: self.response.then(&next.response),
            host: next.host.clone().or_else(|| self.host.clone()),
            path: next.path.clone().or_else(|| self.path.clone()),
        }
    }
}

/// Changes of a head's fields: removed is first, added is last. None of the names is one that is ours to write
/// (`headers::edits::is_editable`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Taken off.
    pub remove: Vec<HeaderName>,
    /// In the place of whatever was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside whatever is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl FieldEdits {
    /// These changes, and then the next ones, as one.
    fn then(&self, next: &Self) -> Self {
        let replaces = |name: &HeaderName| {
            next.remove.contains(name) || next.set.iter().any(|(replaced, _)| replaced == name)
        };
        let left = |fields: &[(HeaderName, HeaderValue)], more: &[(HeaderName, HeaderValue)]| {
            fields.iter().filter(|(name, _)| !replaces(name)).chain(more).cloned().collect()
        };
        let remove = self.remove.iter().filter(|name| !replaces(name)).chain(&next.remove);
        Self {
            remove: remove.cloned().collect(),
            set: left(&self.set, &next.set),
            add: left(&self.add, &next.add),
        }
    }
}

/// A change of a path. The query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// To this one, in canonical form.
    Whole(Box<str>),
    /// This in the place of the prefix by which the route was found. In canonical form, without a `/` at its end, so that
    /// of `/` nothing is left.
    Prefix(Box<str>),
}

/// Where a caller is sent instead of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`; `None`: as it was asked.
    pub scheme: Option<&'static str>,
    /// A canonical host, brackets included; `None`: the one that was asked.
    pub host: Option<Box<str>>,
    /// A port; `None`: the one that was asked, if neither scheme nor host is another; else the scheme's own.
    pub port: Option<u16>,
    /// The path; `None`: the one that was asked.
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}
