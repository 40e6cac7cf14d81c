//! The edges of one cluster's requests, found once and kept: so that a request takes no lock for its edge.

use std::sync::{Arc, OnceLock};

use super::edge::EdgeCounts;

/// A place for each of a cluster's routes, and one for requests that are of none. Clones share it.
#[derive(Clone, Debug)]
pub struct EdgeCells(Arc<[OnceLock<Arc<EdgeCounts>>]>);

impl EdgeCells {
    /// Nothing found yet, of a cluster with so many routes.
    #[must_use]
    pub fn new(routes: usize) -> Self {
        Self((0..=routes).map(|_| OnceLock::new()).collect())
    }

    /// The edge of requests of the route at that place, or of none; found by `find` the first time, which also says whether
    /// it is to be kept.
    pub fn of(
        &self,
        route: Option<usize>,
        find: impl FnOnce() -> (Arc<EdgeCounts>, bool),
    ) -> Arc<EdgeCounts> {
        let cell = self.0.get(route.map_or(0, |route| route + 1));
        if let Some(kept) = cell.and_then(OnceLock::get) {
            return Arc::clone(kept);
        }
        match (find(), cell) {
            ((found, true), Some(cell)) => Arc::clone(cell.get_or_init(|| found)),
            ((found, _), _) => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_and_no_route_is_found_once() {
        let cells = EdgeCells::new(2);
        let found: Vec<_> =
            [None, Some(0), Some(1)].map(|route| cells.of(route, || (Arc::default(), true))).into();
        for (route, first) in [None, Some(0), Some(1)].into_iter().zip(&found) {
            let again = cells.clone().of(route, || panic!("found already"));
            assert!(Arc::ptr_eq(first, &again));
        }
        assert!(!Arc::ptr_eq(&found[0], &found[1]) && !Arc::ptr_eq(&found[1], &found[2]));
    }

    #[test]
    fn a_route_that_there_is_not_is_found_each_time_and_so_is_what_had_no_room() {
        let cells = EdgeCells::new(0);
        for (route, is_named) in [(Some(0), true), (None, false)] {
            let find = || cells.of(route, || (Arc::default(), is_named));
            assert!(!Arc::ptr_eq(&find(), &find()));
        }
    }
}
