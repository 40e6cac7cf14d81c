//! `GET /explain/route` and `GET /explain/policy`: what would become of a call, by what is in force.
//!
//! What is asked is as hostile as anything else that comes in: each part has a bound here, all together have that of a head.

use std::{fmt::Display, str::FromStr, sync::Arc};

use axum::{
    Json,
    extract::{Query, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::super::{State, routes::refusal};
use crate::explain::{By, Explained, policy, route};

/// Fields of the call that is described.
const MAX_FIELDS: usize = 64;
/// Longest part of what is asked, in bytes.
const MAX_PART_BYTES: usize = 8192;
/// What may be said several times.
const FIELD: &str = "header";

type Pairs = Vec<(String, String)>;

pub(super) async fn route(Shared(state): Shared<Arc<State>>, Query(pairs): Query<Pairs>) -> Response {
    let snapshot = state.snapshots.load();
    let rejected = state.controller.rejected();
    let explained = Asked::new(pairs, &["method", "url", "to", "listener"])
        .and_then(route_question)
        .and_then(|question| route::explain(&snapshot, By::Running(&rejected), &question));
    answer(explained)
}

pub(super) async fn policy(Shared(state): Shared<Arc<State>>, Query(pairs): Query<Pairs>) -> Response {
    let snapshot = state.snapshots.load();
    let rejected = state.controller.rejected();
    let known = ["from", "port", "method", "path", "host", "grpc", "stream"];
    let explained = Asked::new(pairs, &known)
        .and_then(policy_question)
        .and_then(|question| policy::explain(&snapshot.config.settings, By::Running(&rejected), &question));
    answer(explained)
}

fn answer(explained: Result<Explained, String>) -> Response {
    match explained {
        Ok(Explained { lines, passes }) => Json(json!({ "passes": passes, "lines": lines })).into_response(),
        Err(problem) => refusal(StatusCode::BAD_REQUEST, &problem),
    }
}

fn route_question(mut asked: Asked) -> Result<route::Question, String> {
    Ok(route::Question {
        method: asked.take("method").unwrap_or_else(|| "GET".to_owned()),
        url: asked.take("url").ok_or("url is missing")?,
        to: asked.parsed("to")?,
        listener: asked.take("listener"),
        headers: asked.fields,
    })
}

fn policy_question(mut asked: Asked) -> Result<policy::Question, String> {
    let headers = asked.fields.iter().map(|field| field.parse().map_err(|error| format!("{FIELD}: {error}")));
    Ok(policy::Question {
        headers: headers.collect::<Result<_, String>>()?,
        from: asked.parsed("from")?.ok_or("from is missing: a SPIFFE ID")?,
        port: asked.parsed("port")?,
        method: asked.parsed("method")?,
        path: asked.take("path"),
        host: asked.take("host"),
        grpc: asked.take("grpc"),
        stream: asked.parsed("stream")?.unwrap_or_default(),
    })
}

/// What is asked: each part once, but for fields.
#[derive(Debug)]
struct Asked {
    parts: Pairs,
    fields: Vec<String>,
}

impl Asked {
    fn new(pairs: Pairs, known: &[&str]) -> Result<Self, String> {
        let mut asked = Self { parts: Vec::new(), fields: Vec::new() };
        for (name, value) in pairs {
            if value.len() > MAX_PART_BYTES {
                return Err(format!("a part has more than {MAX_PART_BYTES} bytes"));
            }
            if name == FIELD {
                asked.fields.push(value);
            } else if !known.contains(&&*name) {
                return Err(format!("there is no such part; there are {}, {FIELD}", known.join(", ")));
            } else if asked.parts.iter().any(|(other, _)| *other == name) {
                return Err(format!("{name} is there twice"));
            } else {
                asked.parts.push((name, value));
            }
        }
        if asked.fields.len() > MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} fields"));
        }
        Ok(asked)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.parts.iter().position(|(known, _)| known == name)?;
        Some(self.parts.swap_remove(place).1)
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, String> {
        self.take(name).map(|text| text.parse().map_err(|error| format!("{name}: {error}"))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn problem(asked: &[(&str, &str)]) -> String {
        Asked::new(pairs(asked), &["url", "to"]).and_then(route_question).unwrap_err()
    }

    #[test]
    fn fields_may_be_repeated_and_nothing_else() {
        let asked = [("header", "a: 1"), ("url", "/a"), ("header", "a: 2"), ("to", "10.0.0.1:80")];
        let question = Asked::new(pairs(&asked), &["url", "to"]).and_then(route_question).unwrap();
        assert_eq!(
            (question.headers.as_slice(), &*question.method),
            (&["a: 1".to_owned(), "a: 2".to_owned()][..], "GET")
        );
        assert_eq!(question.to, Some("10.0.0.1:80".parse().unwrap()));
        assert_eq!(problem(&[("url", "/"), ("url", "/")]), "url is there twice");
        assert_eq!(problem(&[("ulr", "/")]), "there is no such part; there are url, to, header");
        assert_eq!(problem(&[]), "url is missing");
        assert_eq!(problem(&[("url", "/"), ("to", "x")]), "to: invalid socket address syntax");
    }

    #[test]
    fn what_is_asked_has_bounds() {
        let long = "a".repeat(MAX_PART_BYTES + 1);
        assert_eq!(problem(&[("url", &long)]), "a part has more than 8192 bytes");
        assert_eq!(problem(&[("header", "a: b"); MAX_FIELDS + 1]), "more than 64 fields");
        assert_eq!(problem(&[("header", "a: b"); MAX_FIELDS]), "url is missing");
    }

    #[test]
    fn what_describes_no_call_is_refused() {
        let problem = |asked: &[(&str, &str)]| {
            let known = ["from", "port", "method", "stream"];
            Asked::new(pairs(asked), &known).and_then(policy_question).unwrap_err()
        };
        assert_eq!(problem(&[]), "from is missing: a SPIFFE ID");
        let from = ("from", "spiffe://a/b");
        for (name, odd) in
            [("from", "web"), ("port", "70000"), ("method", "G T"), ("stream", "yes"), ("header", "x")]
        {
            let asked = if name == "from" { vec![(name, odd)] } else { vec![from, (name, odd)] };
            assert!(problem(&asked).starts_with(&format!("{name}: ")), "{}", problem(&asked));
        }
    }
}
