//! Routes of a service, as they were said, and which services they name.

use std::{collections::BTreeSet, mem, sync::Arc};

use serde::{Deserialize, de::IgnoredAny};

use crate::model::{
    ClusterName,
    controller::{MAX_ROUTES, MAX_ROUTES_BYTES},
};

/// What was said of a service's routes last, and what they need.
#[derive(Debug)]
pub(super) struct Routing {
    /// `None`: more than is taken.
    routes: Option<Arc<[Box<str>]>>,
    needs: BTreeSet<Box<str>>,
    /// What earlier ones need, which stay in force if the last are refused.
    before: BTreeSet<Box<str>>,
    /// They were there at the last look.
    is_old: bool,
}

impl Routing {
    pub(super) fn new(said: Vec<String>) -> Self {
        let routes = taken(said);
        let needs = named(routes.as_deref().unwrap_or_default());
        Self { routes, needs, before: BTreeSet::new(), is_old: false }
    }

    /// These are said; whether they are others.
    pub(super) fn say(&mut self, said: Vec<String>) -> bool {
        let routes = taken(said);
        if self.routes == routes {
            return false;
        }
        let needs = named(routes.as_deref().unwrap_or_default());
        self.before.extend(mem::replace(&mut self.needs, needs));
        (self.routes, self.is_old) = (routes, false);
        true
    }

    /// Forgets what earlier ones need, once the last are in force: after one whole time between two looks, far more than
    /// that takes.
    pub(super) fn age(&mut self, is_rejected: bool) {
        if self.is_old && !is_rejected {
            self.before.clear();
        }
        self.is_old = true;
    }

    pub(super) fn routes(&self) -> Option<Arc<[Box<str>]>> {
        self.routes.clone()
    }

    /// What they name, as said last.
    pub(super) fn needs(&self) -> impl Iterator<Item = &str> {
        self.needs.iter().map(|name| &**name)
    }

    /// What they name, and earlier ones.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.needs().chain(self.before.iter().map(|name| &**name))
    }
}

fn taken(said: Vec<String>) -> Option<Arc<[Box<str>]>> {
    let bytes: usize = said.iter().map(String::len).sum();
    let is_taken = said.len() <= MAX_ROUTES && bytes <= MAX_ROUTES_BYTES;
    is_taken.then(|| said.into_iter().map(String::into_boxed_str).collect())
}

#[derive(Deserialize)]
struct Route {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    clusters: Vec<Target>,
    redirect: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Target {
    name: Box<str>,
}

/// The clusters that rules send requests to. What is no such thing names none, and is refused where its meaning is read.
fn named(routes: &[Box<str>]) -> BTreeSet<Box<str>> {
    let read = routes.iter().filter_map(|text| serde_json::from_str::<Route>(text).ok());
    let rules = read.flat_map(|route| route.rules);
    let names = rules.flat_map(|rule| {
        // Where requests are counted that are sent elsewhere.
        let redirect = rule.redirect.map(|_any| ClusterName::redirect().as_str().into());
        rule.clusters.into_iter().map(|target| target.name).chain(redirect)
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(routes: &[&str]) -> Vec<String> {
        let routing = Routing::new(routes.iter().map(|text| (*text).to_owned()).collect());
        routing.needs().map(str::to_owned).collect()
    }

    #[test]
    fn routes_need_what_their_rules_name() {
        let split = r#"{"name":"r","rules":[{"clusters":[{"name":"b","weight":1},{"name":"a"}]},{"clusters":[{"name":"a"}]}]}"#;
        assert_eq!(names(&[split]), ["a", "b"]);
        assert_eq!(
            names(&[r#"{"rules":[{"redirect":{"path":"/"}}]}"#, split]),
            ["a", "b", "outrider/redirect"]
        );
        for odd in ["", "{", "[]", r#"{"rules":7}"#, r#"{"rules":[{"clusters":[{}]}]}"#] {
            assert_eq!(names(&[odd]), [""; 0], "{odd}");
        }
    }

    #[test]
    fn more_than_is_taken_is_not_kept() {
        assert_eq!(Routing::new(vec![String::new(); MAX_ROUTES + 1]).routes(), None);
        assert_eq!(Routing::new(vec!["x".repeat(MAX_ROUTES_BYTES + 1)]).routes(), None);
        assert!(Routing::new(vec![String::new(); MAX_ROUTES]).routes().is_some());
    }

    #[test]
    fn what_earlier_routes_need_is_kept_until_the_last_are_in_force() {
        let to = |name: &str| vec![format!(r#"{{"rules":[{{"clusters":[{{"name":"{name}"}}]}}]}}"#)];
        let mut routing = Routing::new(to("a"));
        assert!(routing.say(to("b")) && !routing.say(to("b")));
        let all = |routing: &Routing| routing.all().map(str::to_owned).collect::<Vec<_>>();
        routing.age(false);
        assert_eq!(all(&routing), ["b", "a"], "it may not have come into force yet");
        routing.age(true);
        assert_eq!(all(&routing), ["b", "a"], "it was refused");
        routing.age(false);
        assert_eq!(all(&routing), ["b"]);
    }
}
