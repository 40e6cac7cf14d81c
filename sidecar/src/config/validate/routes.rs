//! `clusters[].routes`, and those of the own app: requests of a certain kind, and what holds for them.

use serde_saphyr::Spanned;

use super::{edits, matches, policies, rate_limit};
use crate::{
    config::{
        raw,
        value::{Text, name},
    },
    model::{
        file::{Faults, OddKey, Place, quoted, report_odd_keys},
        policy::{Policy, Route},
    },
    route,
};

/// Routes of one cluster: a request is compared with one after the other.
const MAX_ROUTES: usize = 256;

/// One item of either kind of list.
pub(super) trait Section {
    /// Its limits.
    type Limit;

    /// Its name.
    fn name(&self) -> Text<'_>;
    /// Which requests it is about.
    fn matches(&self) -> matches::Keys<'_>;
    /// What holds for them.
    fn said(&self) -> policies::Said<'_, Self::Limit>;
    /// What does not belong there, and what does.
    fn odd_keys(&self) -> (&[OddKey], &'static [&'static str]);
}

impl Section for raw::Route {
    type Limit = raw::RateLimit;

    fn name(&self) -> Text<'_> {
        self.name.as_ref()
    }

    fn matches(&self) -> matches::Keys<'_> {
        self.into()
    }

    fn said(&self) -> policies::Said<'_, raw::RateLimit> {
        policies::Said {
            request_timeout: self.request_timeout.as_ref(),
            retry: self.retry.as_ref(),
            rate_limits: self.rate_limits.as_ref(),
            fault: self.fault.as_ref(),
            edits: edits::Sections {
                request: self.request_headers.as_ref(),
                response: self.response_headers.as_ref(),
                rewrite: self.rewrite.as_ref(),
                has_prefix: self.path_prefix.is_some(),
            },
            redirect: self.redirect.as_ref(),
        }
    }

    fn odd_keys(&self) -> (&[OddKey], &'static [&'static str]) {
        (&self.odd_keys, Self::KEYS)
    }
}

impl Section for raw::InboundRoute {
    type Limit = raw::InboundRateLimit;

    fn name(&self) -> Text<'_> {
        self.name.as_ref()
    }

    fn matches(&self) -> matches::Keys<'_> {
        self.into()
    }

    fn said(&self) -> policies::Said<'_, raw::InboundRateLimit> {
        policies::Said {
            request_timeout: self.request_timeout.as_ref(),
            // What the app may have seen is its callers' to repeat.
            retry: None,
            rate_limits: self.rate_limits.as_ref(),
            fault: self.fault.as_ref(),
            edits: edits::Sections {
                request: self.request_headers.as_ref(),
                response: self.response_headers.as_ref(),
                rewrite: self.rewrite.as_ref(),
                has_prefix: self.path_prefix.is_some(),
            },
            redirect: None,
        }
    }

    fn odd_keys(&self) -> (&[OddKey], &'static [&'static str]) {
        (&self.odd_keys, Self::KEYS)
    }
}

/// The routes of a cluster with that policy, the most specific first. One with a fault may be left out.
pub(super) fn routes<T: Section>(
    list: Option<&Spanned<Vec<Spanned<T>>>>,
    cluster: &Policy,
    place: &Place,
    faults: &mut Faults,
) -> Vec<Route>
where
    for<'a> rate_limit::Item<'a>: From<&'a T::Limit>,
{
    let Some(list) = list else { return Vec::new() };
    let place = place.key("routes").at(list);
    if list.value.len() > MAX_ROUTES {
        faults.add(&place, format!("{} routes", list.value.len()), format!("keep to {MAX_ROUTES}"));
        return Vec::new();
    }
    let mut routes: Vec<Route> = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(route) = route(&item.value, index, cluster, &place, faults) else { continue };
        if let Some(other) = routes.iter().find(|other| other.name == route.name) {
            let problem = format!("the name {} is that of another route here", quoted(&other.name));
            faults.add(&place, problem, "give each its own");
        }
        if let Some(other) = routes.iter().find(|other| other.matches == route.matches) {
            let problem = format!("matches what {} matches, and would never be used", quoted(&other.name));
            faults.add(&place, problem, "make one of them");
        }
        routes.push(route);
    }
    route::most_specific_first(&mut routes);
    routes
}

fn route<T: Section>(
    raw: &T,
    index: usize,
    cluster: &Policy,
    place: &Place,
    faults: &mut Faults,
) -> Option<Route>
where
    for<'a> rate_limit::Item<'a>: From<&'a T::Limit>,
{
    let (odd_keys, known) = raw.odd_keys();
    report_odd_keys(odd_keys, known, place, faults);
    let name = match raw.name() {
        Some(text) => name(text, &place.key("name"), faults),
        None => format!("route-{index}"),
    };
    let matches = matches::read(raw.matches(), place, faults);
    if raw.matches().is_empty() && odd_keys.is_empty() {
        let remedy = "give path, path_prefix, methods, headers, query, cookies or grpc";
        faults.add(place, "matches every request", remedy);
    }
    let policy = policies::of_route(&raw.said(), cluster, place, faults);
    Some(Route { name: name.into(), matches: Some(matches?), policy: policy.into() })
}
