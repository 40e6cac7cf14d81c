//! Which of a cluster's routes a request is of.
//!
//! One whose path is named in full is found first, then the longest prefix, then one that names methods, then the one
//! with the most fields, then the one with the most parameters of a query, then the first in the file: the Gateway API's
//! order for an `HTTPRoute`. The list is sorted once, when it is read, so that the first match is the right one.
//!
//! Paths are compared in their one spelling ([`crate::canonical::path`]), which is what the next hop gets in the mesh.

use std::{cmp::Reverse, sync::Arc};

use http::request::Parts;

use super::matching::{Asked, rank};
use crate::model::{
    Cluster,
    policy::{PathMatch, Policy, Route, RouteMatch},
};

/// What holds for a request to a cluster, and which of its routes says so.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// What holds.
    pub policy: &'a Arc<Policy>,
    /// The route's place in the cluster's list, and its name; `None`: it is of none.
    pub route: Option<(usize, &'a Arc<str>)>,
    /// The prefix of the path by which the route was found, without a `/` at its end; `None`: by something else.
    pub prefix: Option<&'a str>,
}

/// The rule that has led a request to a cluster.
#[derive(Clone, Debug)]
pub struct ByRule {
    /// The rule's name, which is that of its route in the cluster.
    pub name: Arc<str>,
    /// The place of that route.
    pub place: usize,
    /// By which of its matches.
    pub matches: Arc<RouteMatch>,
}

/// What holds for a request to a cluster.
#[must_use]
pub fn policy<'a>(cluster: &'a Cluster, head: &Parts) -> Chosen<'a> {
    match choose(&cluster.settings.routes, head) {
        Some((place, route)) => {
            let prefix = route.matches.as_ref().and_then(prefix);
            Chosen { policy: &route.policy, route: Some((place, &route.name)), prefix }
        }
        None => Chosen { policy: &cluster.settings.policy, route: None, prefix: None },
    }
}

fn prefix(matches: &RouteMatch) -> Option<&str> {
    match &matches.path {
        PathMatch::Prefix(prefix) => Some(prefix),
        PathMatch::Any | PathMatch::Exact(_) => None,
    }
}

/// What holds for a request to a cluster, where a rule may have led it.
#[must_use]
pub fn chosen<'a>(cluster: &'a Cluster, head: &Parts, rule: Option<&'a ByRule>) -> Chosen<'a> {
    rule.map_or_else(|| policy(cluster, head), |rule| of_rule(cluster, rule, rule.place))
}

/// The same where the cluster may be of another configuration than the rule. A rule that is not there any more leaves the
/// cluster's own policy.
#[must_use]
pub fn chosen_again<'a>(cluster: &'a Cluster, head: &Parts, rule: Option<&'a ByRule>) -> Chosen<'a> {
    let Some(rule) = rule else { return policy(cluster, head) };
    let mut routes = cluster.settings.routes.iter();
    let place = routes.position(|route| route.matches.is_none() && route.name == rule.name);
    of_rule(cluster, rule, place.unwrap_or(usize::MAX))
}

fn of_rule<'a>(cluster: &'a Cluster, rule: &'a ByRule, place: usize) -> Chosen<'a> {
    match cluster.settings.routes.get(place) {
        Some(route) => {
            Chosen { policy: &route.policy, route: Some((place, &route.name)), prefix: prefix(&rule.matches) }
        }
        None => Chosen { policy: &cluster.settings.policy, route: None, prefix: None },
    }
}

/// The route that a request is of, and its place in a list with the most specific first; `None` if it is of none. Looks at
/// one after the other; the list is bounded where it is read.
fn choose<'a>(routes: &'a [Route], head: &Parts) -> Option<(usize, &'a Route)> {
    if routes.is_empty() {
        return None;
    }
    let asked = Asked::of(head);
    routes.iter().enumerate().find(|(_, route)| is_of(route, &asked))
}

/// Brings routes in the order in which they are looked at; those that are equally specific keep theirs. Those that only
/// rules lead to come last.
pub fn most_specific_first(routes: &mut [Route]) {
    routes.sort_by_key(|route| Reverse(route.matches.as_ref().map(rank)));
}

fn is_of(route: &Route, asked: &Asked<'_>) -> bool {
    route.matches.as_ref().is_some_and(|matches| asked.is_of(matches))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Request};
    use proptest::prelude::*;

    use super::*;
    use crate::model::policy::HeaderMatch;

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.trim_end_matches('/').into())
    }

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.into())
    }

    /// A field as `name` or `name=value`.
    fn field(text: &str) -> HeaderMatch {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        HeaderMatch {
            name: HeaderName::try_from(name).unwrap(),
            value: value.map(|value| HeaderValue::from_str(value).unwrap()),
        }
    }

    fn route(name: &str, path: PathMatch, methods: &[Method], headers: &[&str]) -> Route {
        let headers = headers.iter().map(|text| field(text)).collect();
        let matches = RouteMatch { path, methods: methods.to_vec(), headers, ..RouteMatch::ANY };
        Route { name: name.into(), matches: Some(matches), policy: Arc::new(Policy::bare()) }
    }

    fn head(method: &Method, target: &str, headers: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for text in headers {
            let field = field(text);
            request = request.header(field.name, field.value.unwrap_or(HeaderValue::from_static("")));
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The Gateway API's order for `HTTPRouteRule.matches`, continuing on ties: exact path, longest prefix, method,
    /// number of headers; then the first in the list.
    #[test]
    fn the_most_specific_route_is_taken() {
        let (get, post) = (Method::GET, Method::POST);
        let mut routes = vec![
            route("any, two fields", PathMatch::Any, &[], &["a", "b"]),
            route("any get", PathMatch::Any, &[Method::GET], &[]),
            route("root", prefix("/"), &[], &[]),
            route("/shop, first", prefix("/shop"), &[], &["a=1"]),
            route("/shop, second", prefix("/shop/"), &[], &["b=1"]),
            route("/shop, two fields", prefix("/shop"), &[], &["a=1", "b=1"]),
            route("/shop get", prefix("/shop"), &[Method::GET], &[]),
            route("/shop/carts", prefix("/shop/carts"), &[], &[]),
            route("=/shop/carts/7", exact("/shop/carts/7"), &[], &[]),
            route("=/shop/carts/7 get", exact("/shop/carts/7"), &[Method::GET, Method::HEAD], &[]),
        ];
        most_specific_first(&mut routes);
        for (method, target, headers, expected) in [
            (&get, "/shop/carts/7", &[][..], Some("=/shop/carts/7 get")),
            (&post, "/shop/carts/7?a=b", &["a=1", "b=1"], Some("=/shop/carts/7")),
            (&get, "/shop/carts/7/", &[], Some("/shop/carts")),
            (&get, "/shop/carts", &["a=1", "b=1"], Some("/shop/carts")),
            (&get, "/shop/cart", &["a=1", "b=1"], Some("/shop get")),
            (&post, "/shop", &["a=1", "b=1"], Some("/shop, two fields")),
            (&post, "/shop", &["a=1"], Some("/shop, first")),
            (&post, "/shop/", &["b=1"], Some("/shop, second")),
            (&post, "/shop/", &["b=2"], Some("root")),
            (&get, "/shopping", &["a", "b"], Some("any get")),
            (&get, "http://orders", &[], Some("any get")),
            (&post, "/shopping", &["a", "b"], Some("any, two fields")),
            (&post, "/shopping", &["a"], Some("root")),
            (&Method::OPTIONS, "*", &["a", "b"], Some("any, two fields")),
            (&Method::OPTIONS, "*", &["a"], None),
        ] {
            let found = choose(&routes, &head(method, target, headers)).map(|(_, route)| &*route.name);
            assert_eq!(found, expected, "{method} {target} {headers:?}");
        }
    }

    #[test]
    fn a_web_socket_is_a_get_in_every_version() {
        let routes = [route("get", PathMatch::Any, &[Method::GET], &[])];
        let extended =
            Request::builder().method(Method::CONNECT).uri("https://orders/chat").body(()).unwrap();
        assert!(choose(&routes, &extended.into_parts().0).is_some());
        assert!(choose(&routes, &head(&Method::POST, "/chat", &[])).is_none());
    }

    /// How specific a route is, said in another way than the code does: the larger wins.
    fn rank(route: &Route) -> (u8, usize, bool, usize) {
        let RouteMatch { path, methods, headers, .. } = route.matches.as_ref().unwrap();
        let (kind, length) = match path {
            PathMatch::Exact(_) => (1, 0),
            PathMatch::Prefix(path) => (0, path.len()),
            PathMatch::Any => (0, 0),
        };
        (kind, length, !methods.is_empty(), headers.len())
    }

    proptest! {
        #[test]
        fn no_route_that_matches_is_more_specific_than_the_chosen_one(
            kinds in proptest::collection::vec((0_u8..3, "(/[ab]){0,3}", any::<bool>(), 0_usize..3), 0..12),
            path in "(/[ab]){1,3}",
            fields in 0_usize..3,
        ) {
            const FIELDS: [&str; 2] = ["x=1", "y=1"];
            let unsorted: Vec<Route> = kinds.iter().enumerate().map(|(index, (kind, path, is_get, fields))| {
                let path = match kind {
                    0 => PathMatch::Any,
                    1 => prefix(path),
                    _ => exact(path),
                };
                let methods: &[Method] = if *is_get { &[Method::GET] } else { &[] };
                route(&index.to_string(), path, methods, &FIELDS[..*fields])
            }).collect();
            let head = head(&Method::GET, &path, &FIELDS[..fields]);
            let mut routes = unsorted.clone();
            most_specific_first(&mut routes);
            let asked = Asked::of(&head);
            let matching = unsorted.iter().filter(|route| is_of(route, &asked));
            // Of equals the first: `max_by_key` would take the last.
            let best = matching.rev().max_by_key(|route| rank(route));
            let chosen = choose(&routes, &head);
            prop_assert_eq!(chosen.map(|(_, route)| route), best);
            prop_assert!(chosen.is_none_or(|(place, route)| routes.get(place) == Some(route)));
        }
    }
}
