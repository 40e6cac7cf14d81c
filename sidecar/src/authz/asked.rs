//! What a call asks for, as far as rules look at it.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONNECTION, CONTENT_TYPE},
};
use smallvec::SmallVec;

use crate::{
    headers::{grpc, reserved},
    model::authorization::Authorization,
};

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// To have bytes carried.
    Stream,
    /// To have a request answered.
    Request(Request<'a>),
}

/// A request, as the app gets it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method. A WebSocket is a `GET`, also where HTTP/2 says `CONNECT` (RFC 8441 §5): make it by [`method`](Self::method).
    pub method: &'a Method,
    /// The path of its target without the query, canonical.
    pub path: &'a str,
    /// Whom it is for, canonical; empty if it names nobody.
    pub authority: &'a str,
    /// Those of its fields that rules look at.
    pub fields: &'a Fields,
}

impl Request<'_> {
    /// A request's method as rules see it.
    #[must_use]
    pub fn method(sent: &Method) -> &Method {
        if *sent == Method::CONNECT { &Method::GET } else { sent }
    }
}

/// Those fields of a request that rules look at and that every reader takes alike: there once, in ASCII, not beside one
/// that is [alike](reserved::is_alike), which CGI and WSGI take for the same, and not named by `Connection`, for such a field
/// ends with the connection and the app would not get it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(SmallVec<[(HeaderName, HeaderValue); 2]>);

impl Fields {
    /// Those of a head, before fields for one connection are taken off it. No allocation where rules look at no more than
    /// two.
    #[must_use]
    pub fn of(headers: &HeaderMap, rules: &Authorization) -> Self {
        let only = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().filter(|_| values.next().is_none())?;
            let is_clear = value.to_str().is_ok()
                && !headers.keys().any(|other| other != name && reserved::is_alike(other, name))
                && !is_hop_by_hop(headers, name);
            is_clear.then(|| (name.clone(), value.clone()))
        };
        Self(rules.fields().iter().filter_map(only).collect())
    }

    /// The value of that field.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether they say that it is a call of gRPC: `application/grpc`, or that with a format or a parameter.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.get(&CONTENT_TYPE).is_some_and(grpc::is_type)
    }
}

/// Whether `Connection` names that field.
fn is_hop_by_hop(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut options =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// What a call asked for, kept for as long as it lasts, to be judged again by other rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// To have bytes carried.
    Stream,
    /// To have a request answered.
    Request(Box<KeptRequest>),
}

/// A request, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    method: Method,
    path: Box<str>,
    authority: Box<str>,
    fields: Fields,
}

impl Kept {
    /// What it asks for. A rule that comes later and looks at a field that none looked at before does not fit what was kept:
    /// what is not known is not allowed.
    #[must_use]
    pub fn asked(&self) -> Asked<'_> {
        match self {
            Self::Stream => Asked::Stream,
            Self::Request(kept) => Asked::Request(Request {
                method: &kept.method,
                path: &kept.path,
                authority: &kept.authority,
                fields: &kept.fields,
            }),
        }
    }
}

impl From<Asked<'_>> for Kept {
    fn from(asked: Asked<'_>) -> Self {
        match asked {
            Asked::Stream => Self::Stream,
            Asked::Request(Request { method, path, authority, fields }) => {
                Self::Request(Box::new(KeptRequest {
                    method: method.clone(),
                    path: path.into(),
                    authority: authority.into(),
                    fields: fields.clone(),
                }))
            }
        }
    }
}
