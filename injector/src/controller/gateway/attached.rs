//! Which routes hold for a port of a Service.
//!
//! Routes in the Service's own namespace are its producer's, and hold for all callers; routes in another namespace are a
//! consumer's, and hold for the callers of that namespace, in the place of the producer's (GEP-1294, "Namespace boundaries").

use super::{
    book::Book,
    route::{Parent, Route, RouteKey, RouteKind},
};
use crate::controller::model::{
    cluster::Cluster,
    objects::{Name, ObjectKey, Protocol, Reach, ServicePort},
};

/// Matches that a sidecar compares for one service, over all its routes.
const MAX_MATCHES: usize = 1024;
/// Bytes of one route.
pub const MAX_ROUTE_BYTES: usize = 64 * 1024;
/// Bytes of all routes of one service: a message of the stream carries them.
const MAX_SERVICE_BYTES: usize = 512 * 1024;

/// Why a route does not hold for a port, though it names it and is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There are routes of a kind that wins.
    Conflicted,
    /// The older ones are as much as a sidecar takes.
    TooMany,
}

/// The sound routes of a namespace that name a port of a Service.
#[derive(Debug, Default)]
pub struct Sorted<'a> {
    /// Those that hold, the oldest first.
    pub taken: Vec<(&'a RouteKey, &'a Route)>,
    /// Those that do not.
    pub left: Vec<(&'a RouteKey, Left)>,
}

/// Whether a parent stands for this port.
#[must_use]
pub fn is_for(parent: &Parent, port: &ServicePort) -> bool {
    parent.port.is_none_or(|number| number == port.port)
        && parent.section.as_ref().is_none_or(|name| *name == port.name)
        && port.protocol != Protocol::Tcp
}

/// The routes of `namespace` for this port of a Service.
#[must_use]
pub fn sorted<'a>(book: &'a Book, service: &ObjectKey, port: &ServicePort, namespace: &Name) -> Sorted<'a> {
    let names =
        |route: &Route| route.parents.iter().any(|parent| parent.service == *service && is_for(parent, port));
    let mut found: Vec<(&RouteKey, &Route)> = book
        .of_parent(service)
        .filter(|(key, route)| key.key.namespace == *namespace && route.is_usable() && names(route))
        .collect();
    found.sort_by_key(|(key, route)| (route.created, *key));
    let winner = found.iter().map(|(key, _)| key.kind).min().unwrap_or(RouteKind::Http);
    let (mut sorted, mut matches, mut bytes) = (Sorted::default(), 0, 0);
    for (key, route) in found {
        let (more, size) = route.size();
        if key.kind != winner {
            sorted.left.push((key, Left::Conflicted));
        } else if matches + more > MAX_MATCHES || size > MAX_ROUTE_BYTES || bytes + size > MAX_SERVICE_BYTES {
            sorted.left.push((key, Left::TooMany));
        } else {
            (matches, bytes) = (matches + more, bytes + size);
            sorted.taken.push((key, route));
        }
    }
    sorted
}

/// The namespace whose routes hold for callers in `caller` that call this port of a Service; `None`: there are none.
#[must_use]
pub fn whose(cluster: &Cluster, service: &ObjectKey, port: u16, caller: &Name) -> Option<Name> {
    let book = cluster.book();
    book.of_parent(service).next()?;
    let found = cluster.service(service).filter(|found| !matches!(found.reach, Reach::Name(_)))?;
    let port = found.ports.iter().find(|found| found.port == port)?;
    let has = |namespace: &Name| !sorted(book, service, port, namespace).taken.is_empty();
    [caller, &service.namespace].into_iter().find(|namespace| has(namespace)).cloned()
}
