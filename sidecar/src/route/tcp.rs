//! Which route an opaque stream is of.

use std::cmp::Reverse;

use crate::model::{
    ClusterName,
    tcp_route::{Sni, TcpRoute, TcpRoutes},
};

/// What is known of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The cluster that it would go to; `None`: it would leave for where it was going, or go nowhere.
    pub service: Option<&'a ClusterName>,
    /// The port that it was made to.
    pub port: Option<u16>,
    /// Whom its ClientHello is for, as [`crate::detect::ClientHello`] has it.
    pub sni: Option<&'a str>,
}

/// Where a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// By this route.
    Route(&'a TcpRoute),
    /// Nowhere: its service has routes, and none fits.
    Nowhere,
    /// Where it would go if there were no routes.
    Unrouted,
}

/// Finds the route: of those that fit the one with the exact name, with the longest wildcard, with a service, with a port,
/// and the first of the configuration.
#[must_use]
pub fn find<'a>(routes: &'a TcpRoutes, asked: Asked<'_>) -> Found<'a> {
    let fits = |route: &&TcpRoute| fits_but_for_name(route, asked);
    let ranked = routes.0.iter().filter(fits).filter_map(|route| {
        let by_name = by_name(route, asked.sni)?;
        Some((route, (by_name, !route.services.is_empty(), !route.ports.is_empty())))
    });
    // Of equals the first.
    match ranked.min_by_key(|(_, rank)| Reverse(*rank)) {
        Some((route, _)) => Found::Route(route),
        None if has_routes(routes, asked.service) => Found::Nowhere,
        None => Found::Unrouted,
    }
}

/// Whether the name in a stream's ClientHello, if it has one, says more of where it goes.
#[must_use]
pub fn needs_name(routes: &TcpRoutes, asked: Asked<'_>) -> bool {
    routes.0.iter().any(|route| !route.snis.is_empty() && fits_but_for_name(route, asked))
}

fn fits_but_for_name(route: &TcpRoute, asked: Asked<'_>) -> bool {
    let is_service = |service| route.services.contains(service);
    let is_port = |port| route.ports.contains(&port);
    (route.services.is_empty() || asked.service.is_some_and(is_service))
        && (route.ports.is_empty() || asked.port.is_some_and(is_port))
}

/// How well a route's names fit; `None`: not at all.
fn by_name(route: &TcpRoute, name: Option<&str>) -> Option<usize> {
    if route.snis.is_empty() {
        return Some(0);
    }
    let name = name?;
    let length = |sni: &Sni| match sni {
        Sni::Exact(exact) => (**exact == *name).then_some(usize::MAX),
        // Something stands before the dot.
        Sni::Under(suffix) => {
            let is_under = name.strip_suffix(&**suffix).is_some_and(|label| !label.is_empty());
            is_under.then_some(suffix.len())
        }
    };
    route.snis.iter().filter_map(length).max()
}

fn has_routes(routes: &TcpRoutes, service: Option<&ClusterName>) -> bool {
    service.is_some_and(|service| routes.0.iter().any(|route| route.services.contains(service)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weighted::{WeightedCluster, WeightedClusters};

    fn sni(text: &str) -> Sni {
        match text.strip_prefix('*') {
            Some(suffix) => Sni::Under(suffix.into()),
            None => Sni::Exact(text.into()),
        }
    }

    fn route(name: &str, services: &[&str], ports: &[u16], snis: &[&str]) -> TcpRoute {
        let cluster = WeightedCluster { name: ClusterName::new("db"), weight: 1 };
        TcpRoute {
            name: name.into(),
            services: services.iter().map(|name| ClusterName::new(name)).collect(),
            ports: ports.to_vec(),
            snis: snis.iter().map(|text| sni(text)).collect(),
            clusters: WeightedClusters::new(vec![cluster]).unwrap(),
        }
    }

    fn found(routes: &TcpRoutes, service: &str, port: u16, sni: &str) -> String {
        let service = (!service.is_empty()).then(|| ClusterName::new(service));
        let sni = Some(sni).filter(|sni| !sni.is_empty());
        match find(routes, Asked { service: service.as_ref(), port: Some(port), sni }) {
            Found::Route(route) => route.name.to_string(),
            Found::Nowhere => "nowhere".to_owned(),
            Found::Unrouted => "unrouted".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        let all = [
            route("port", &[], &[5432], &[]),
            route("service", &["db"], &[], &[]),
            route("both", &["db"], &[5432], &[]),
            route("all-below", &[], &[], &["*.example"]),
            route("below", &[], &[], &["*.db.example"]),
            route("exact", &[], &[], &["a.db.example"]),
            route("exact-of-service", &["db"], &[], &["b.db.example"]),
            route("exact-of-port", &[], &[5432], &["b.db.example"]),
        ];
        let cases = [
            ("", 1, "", "unrouted"),
            ("", 5432, "", "port"),
            ("other", 5432, "", "port"),
            ("db", 1, "", "service"),
            ("db", 5432, "", "both"),
            ("db", 5432, "elsewhere.org", "both"),
            ("db", 5432, "x.example", "all-below"),
            ("db", 5432, "x.db.example", "below"),
            ("db", 5432, "x.y.db.example", "below"),
            ("db", 5432, "db.example", "all-below"),
            ("db", 5432, "xdb.example", "all-below"),
            ("", 1, "a.db.example", "exact"),
            ("db", 5432, "b.db.example", "exact-of-service"),
            ("other", 5432, "b.db.example", "exact-of-port"),
            ("other", 1, "example", "unrouted"),
        ];
        let mut routes = TcpRoutes(all.to_vec());
        for _turn in 0..2 {
            for (service, port, sni, expected) in cases {
                assert_eq!(found(&routes, service, port, sni), expected, "{service} {port} {sni}");
            }
            routes.0.reverse();
        }
    }

    #[test]
    fn of_equals_the_first_wins() {
        let routes = TcpRoutes(vec![
            route("first", &["db"], &[], &["a.example", "b.example"]),
            route("second", &["db"], &[], &["b.example"]),
        ]);
        assert_eq!(found(&routes, "db", 1, "b.example"), "first");
    }

    #[test]
    fn a_service_with_routes_goes_nowhere_else() {
        let routes =
            TcpRoutes(vec![route("a", &["db"], &[5432], &[]), route("b", &["db"], &[], &["x.example"])]);
        assert_eq!(found(&routes, "db", 5432, ""), "a");
        assert_eq!(found(&routes, "db", 1, ""), "nowhere");
        assert_eq!(found(&routes, "db", 1, "y.example"), "nowhere");
        assert_eq!(found(&routes, "other", 1, ""), "unrouted");
        assert_eq!(found(&routes, "", 5432, ""), "unrouted");
    }

    #[test]
    fn a_name_is_looked_for_only_where_it_can_decide() {
        let routes =
            TcpRoutes(vec![route("a", &["db"], &[5432], &["x.example"]), route("b", &["cache"], &[], &[])]);
        let (db, cache) = (ClusterName::new("db"), ClusterName::new("cache"));
        let needs = |service, port| needs_name(&routes, Asked { service, port: Some(port), sni: None });
        assert!(needs(Some(&db), 5432));
        assert!(!needs(Some(&db), 1) && !needs(Some(&cache), 5432) && !needs(None, 5432));
    }
}
