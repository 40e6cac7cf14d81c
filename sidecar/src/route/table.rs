//! By which rules a request goes, and to which of a rule's clusters.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, request::Parts};

use super::{AtAddress, at_address, find, matching::Asked, weighted};
use crate::{
    canonical,
    headers::cookie,
    model::{
        Cluster, ClusterName, Endpoint, Snapshot,
        route_table::{Candidate, RouteTable, Rule, RuleList, Sticky},
        wanted::Key,
    },
};

/// By what it is decided where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// By the first of these that it is of; if it is of none, nowhere.
    Rules(&'a RuleList),
    /// To this cluster, whatever it is.
    Cluster(&'a Arc<Cluster>),
    /// To this endpoint of the cluster: whoever dialled it has chosen already.
    Endpoint(&'a Arc<Cluster>, &'a Arc<Endpoint>),
    /// Nobody knows.
    Unknown,
}

/// The way of a request for an authority; as [`find`], with rules.
#[must_use]
pub fn by_authority<'a>(snapshot: &'a Snapshot, authority: &str, default: Option<&ClusterName>) -> Way<'a> {
    if let Some(rules) = of_host(&snapshot.config.settings.routes, authority) {
        return Way::Rules(rules);
    }
    find(snapshot, authority, default).map_or(Way::Unknown, |cluster| to(snapshot, cluster))
}

/// The same where the app addresses the sidecar itself: what no cluster has as it is written is looked for with the port that
/// it means. Only a controller knows services by name and port alone.
#[must_use]
pub fn by_name<'a>(snapshot: &'a Snapshot, authority: &str, default: Option<&ClusterName>) -> Way<'a> {
    match by_authority(snapshot, authority, default) {
        Way::Unknown => with_port(snapshot, authority).map_or(Way::Unknown, |cluster| to(snapshot, cluster)),
        known @ (Way::Rules(_) | Way::Cluster(_) | Way::Endpoint(..)) => known,
    }
}

fn with_port<'a>(snapshot: &'a Snapshot, authority: &str) -> Option<&'a Arc<Cluster>> {
    snapshot.config.settings.bootstrap.controller.as_ref()?;
    match Key::name(&canonical::authority(authority)?)? {
        Key::Name(name) => find(snapshot, &name, None),
        Key::Address(_) => None,
    }
}

/// The way of a request for an authority that came by a connection to that address; as [`at_address`], with rules. The
/// authority counts only where nobody is known at the address.
#[must_use]
pub fn by_address<'a>(snapshot: &'a Snapshot, address: SocketAddr, authority: &str) -> Way<'a> {
    match at_address(snapshot, address) {
        AtAddress::Service(cluster) => to(snapshot, cluster),
        AtAddress::Endpoint(cluster, endpoint) => Way::Endpoint(cluster, endpoint),
        AtAddress::Unknown => by_authority(snapshot, authority, None),
    }
}

fn to<'a>(snapshot: &'a Snapshot, cluster: &'a Arc<Cluster>) -> Way<'a> {
    of_service(&snapshot.config.settings.routes, cluster.name()).map_or(Way::Cluster(cluster), Way::Rules)
}

/// The rules of the host of an authority, in whatever spelling: of the authority as a whole, then of its host alone, then
/// of the longest wildcard. A look-up each, and one for every label if there are wildcards.
#[must_use]
pub fn of_host<'a>(table: &'a RouteTable, authority: &str) -> Option<&'a RuleList> {
    if table.hosts.is_empty() && table.wildcards.is_empty() {
        return None;
    }
    let authority = canonical::authority(authority)?;
    let host = canonical::host(&authority);
    let exact = table.hosts.get(&*authority).or_else(|| table.hosts.get(host));
    if exact.is_some() || table.wildcards.is_empty() || host.starts_with('[') {
        return exact;
    }
    host.match_indices('.').find_map(|(at, _)| {
        let below = |text: &str| text.get(at + 1..).and_then(|rest| table.wildcards.get(rest));
        below(&authority).or_else(|| below(host))
    })
}

/// The rules of a service: of what would go to that cluster without them.
#[must_use]
pub fn of_service<'a>(table: &'a RouteTable, cluster: &ClusterName) -> Option<&'a RuleList> {
    table.services.get(cluster)
}

/// The rule that a request is of; `None` if it is of none. Looks at one match after the other; how many there are is bounded
/// where they are read.
#[must_use]
pub fn rule<'a>(rules: &'a RuleList, asked: &Asked<'_>) -> Option<&'a Candidate> {
    rules.iter().find(|candidate| asked.is_of(&candidate.matches))
}

/// The cluster of a rule that a request goes to, and the place of the rule's route in it. There always is one: `None` would
/// be a rule that no configuration makes.
pub fn cluster<'a>(
    rule: &'a Rule,
    head: &Parts,
    rng: &mut fastrand::Rng,
) -> Option<(&'a ClusterName, usize)> {
    let place = match kept_by(rule, &head.headers) {
        Some(value) => weighted::by_text(&rule.clusters, value),
        None => weighted::by_chance(&rule.clusters, rng),
    };
    let (cluster, place) = rule.clusters.list().get(place).zip(rule.places.get(place))?;
    Some((&cluster.name, *place))
}

/// The value that keeps a request with one of the clusters, if it has one.
#[must_use]
pub fn kept_by<'a>(rule: &Rule, fields: &'a HeaderMap) -> Option<&'a [u8]> {
    match rule.sticky.as_ref()? {
        Sticky::Header(name) => fields.get(name).map(HeaderValue::as_bytes),
        Sticky::Cookie(name) => cookie::value(fields, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route_table::Candidate;

    fn table(hosts: &[&str]) -> RouteTable {
        let mut table = RouteTable::default();
        for host in hosts {
            let (lists, key) = match host.strip_prefix("*.") {
                Some(rest) => (&mut table.wildcards, rest),
                None => (&mut table.hosts, *host),
            };
            // Told apart by their lengths.
            lists.insert(key.into(), Vec::<Candidate>::with_capacity(0));
        }
        table
    }

    /// The key of the table that an authority leads to.
    fn found(table: &RouteTable, authority: &str) -> Option<String> {
        let list = of_host(table, authority)?;
        let exact = table.hosts.iter().map(|(key, known)| (key.to_string(), known));
        let below = table.wildcards.iter().map(|(key, known)| (format!("*.{key}"), known));
        exact.chain(below).find(|(_, known)| std::ptr::eq(*known, list)).map(|(key, _)| key)
    }

    #[test]
    fn the_authority_comes_before_its_host_and_the_longest_wildcard_last() {
        let table = table(&[
            "shop.example:8080",
            "shop.example",
            "a.shop.example",
            "*.example",
            "*.shop.example",
            "*.shop.example:8080",
            "*.eu.shop.example",
            "[2001:db8::1]",
        ]);
        for (authority, expected) in [
            ("shop.example:8080", Some("shop.example:8080")),
            ("shop.example:81", Some("shop.example")),
            ("SHOP.example.", Some("shop.example")),
            ("a.shop.example:8080", Some("a.shop.example")),
            ("b.shop.example:8080", Some("*.shop.example:8080")),
            ("b.shop.example:81", Some("*.shop.example")),
            ("c.b.shop.example", Some("*.shop.example")),
            ("a.eu.shop.example:8080", Some("*.eu.shop.example")),
            ("eu.shop.example", Some("*.shop.example")),
            ("shops.example", Some("*.example")),
            ("example", None),
            ("ashop.other", None),
            ("[2001:db8::1]:80", Some("[2001:db8::1]")),
            ("[2001:db8::2]", None),
            ("", None),
            ("u@shop.example", None),
        ] {
            assert_eq!(found(&table, authority).as_deref(), expected, "{authority}");
        }
        assert_eq!(found(&RouteTable::default(), "shop.example"), None);
    }
}
