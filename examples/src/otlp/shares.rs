//! Where the time of one trace went: to apps or to proxies.
//!
//! Every instant that a span covers is of exactly one span, the innermost: one that is under way while none of its
//! children is. Are there several (attempts side by side), then an app's goes before a proxy's, the deeper before the
//! less deep, the earlier in the tree before the later. A child counts within its parent only, so clocks that are apart
//! by some µs give nobody time twice.
//!
//! - **App time** of a service: instants of the SERVER spans that its sidecar made, that is, from a request's arrival at
//!   this sidecar until its answer has left, without what the app's own calls through the sidecar (CLIENT spans) cover. The
//!   way between the sidecar and its app on the same host is in it: only the app could tell them apart. Spans that apps made
//!   themselves are app time, all of them.
//! - **Proxy time** of a hop `a ▸ b`: instants of the CLIENT and INTERNAL spans of `a`'s sidecar, that is, what is
//!   not covered by `b`'s SERVER span: a's sidecar, the wire, connecting and TLS, rests between attempts, and attempts that
//!   nobody answered.
//!
//! What the first app of a call did is in neither, if no sidecar brought the call to it: nobody measured it.

use super::{
    span::{Kind, Span},
    tree::{Node, Tree},
};

/// Where the time went. All times are in nanoseconds; the parts add up to the total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Time that any span covers.
    pub total: u64,
    /// Per service, in the order in which the call reached them.
    pub apps: Vec<Share>,
    /// Per hop, the same.
    pub proxies: Vec<Share>,
}

/// Somebody's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// A service's name, or a hop's as `web ▸ orders`. Not escaped.
    pub whose: String,
    /// How long.
    pub nanos: u64,
}

/// From when to when a span is the innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Nanoseconds since 1970.
    pub from: u64,
    /// The same.
    pub to: u64,
    /// Its place in the tree.
    pub place: usize,
}

impl Shares {
    /// Adds up who had which instants.
    #[must_use]
    pub fn new(tree: &Tree<'_>, own: &[Own]) -> Self {
        let mut shares = Self::default();
        for (place, node) in tree.nodes.iter().enumerate() {
            let nanos = own.iter().filter(|own| own.place == place).map(|own| own.to - own.from).sum();
            shares.total += nanos;
            let (whose, parts) = match is_app(node.span) {
                true => (node.span.service.to_string(), &mut shares.apps),
                false => (hop(tree, place), &mut shares.proxies),
            };
            match parts.iter_mut().find(|share| share.whose == whose) {
                Some(share) => share.nanos += nanos,
                None => parts.push(Share { whose, nanos }),
            }
        }
        shares
    }

    /// App time of all.
    #[must_use]
    pub fn of_apps(&self) -> u64 {
        self.apps.iter().map(|share| share.nanos).sum()
    }

    /// Proxy time of all.
    #[must_use]
    pub fn of_proxies(&self) -> u64 {
        self.proxies.iter().map(|share| share.nanos).sum()
    }
}

/// Whether the time that a span does not spend waiting for its children is its app's.
#[must_use]
pub fn is_app(span: &Span) -> bool {
    !span.is_proxy || span.kind == Kind::Server
}

/// Who had which instants, by time.
#[must_use]
pub fn own(tree: &Tree<'_>) -> Vec<Own> {
    let within = within(&tree.nodes);
    let mut instants: Vec<u64> = within.iter().flat_map(|(from, to)| [*from, *to]).collect();
    instants.sort_unstable();
    instants.dedup();
    let mut owned: Vec<Own> = Vec::new();
    for (&from, &to) in instants.iter().zip(instants.iter().skip(1)) {
        let Some(place) = innermost(&tree.nodes, &within, from) else { continue };
        match owned.last_mut().filter(|last| last.place == place && last.to == from) {
            Some(last) => last.to = to,
            None => owned.push(Own { from, to, place }),
        }
    }
    owned
}

/// From when to when each counts: within what counts of its parent.
fn within(nodes: &[Node<'_>]) -> Vec<(u64, u64)> {
    let mut within: Vec<(u64, u64)> = Vec::with_capacity(nodes.len());
    for Node { span, parent, .. } in nodes {
        let of_parent = parent.and_then(|parent| within.get(parent)).copied().unwrap_or((0, u64::MAX));
        let at = |instant: u64| instant.clamp(of_parent.0, of_parent.1);
        within.push((at(span.start), at(span.end)));
    }
    within
}

/// Whose the instant is.
fn innermost(nodes: &[Node<'_>], within: &[(u64, u64)], instant: u64) -> Option<usize> {
    let covers = |place: usize| within.get(place).is_some_and(|(from, to)| (*from..*to).contains(&instant));
    let mut has_child = vec![false; nodes.len()];
    let mut covering = Vec::new();
    for (place, node) in nodes.iter().enumerate().filter(|(place, _)| covers(*place)) {
        covering.push((place, node));
        if let Some(parent) = node.parent.and_then(|parent| has_child.get_mut(parent)) {
            *parent = true;
        }
    }
    let leaves = covering.into_iter().filter(|(place, _)| has_child.get(*place) == Some(&false));
    let first = leaves.min_by_key(|(place, node)| (!is_app(node.span), usize::MAX - node.depth, *place));
    first.map(|(place, _)| place)
}

/// The hop that a proxy's span is of. An attempt that nobody answered is of the same as the one after it.
fn hop(tree: &Tree<'_>, place: usize) -> String {
    let Some(node) = tree.nodes.get(place) else { return String::new() };
    let is_next = |other: &Node<'_>| {
        let is_same_call = other.parent == node.parent && other.span.service == node.span.service;
        is_same_call && other.span.resend.checked_sub(1) == Some(node.span.resend)
    };
    let next = || tree.nodes.iter().position(is_next).and_then(|next| target(tree, next));
    format!("{} ▸ {}", node.span.service, target(tree, place).or_else(next).unwrap_or("?"))
}

/// The cluster that a proxy's span names, or the first service below it.
fn target<'a>(tree: &'a Tree<'_>, place: usize) -> Option<&'a str> {
    let node = tree.nodes.get(place)?;
    let mut below = tree.nodes.iter().skip(place + 1).take_while(|other| other.depth > node.depth);
    let first = || below.find(|other| is_app(other.span)).map(|other| &*other.span.service);
    node.span.cluster.as_deref().or_else(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::made_up::{call, span};

    /// Apps and hops with their microseconds.
    fn shares(spans: &[Span]) -> Vec<(String, u64)> {
        let tree = Tree::new(spans);
        let shares = Shares::new(&tree, &own(&tree));
        assert_eq!(shares.total, shares.of_apps() + shares.of_proxies());
        let parts = shares.apps.into_iter().chain(shares.proxies);
        parts.map(|share| (share.whose, share.nanos / 1000)).collect()
    }

    fn expect(spans: &[Span], expected: &[(&str, u64)]) {
        let expected: Vec<_> =
            expected.iter().map(|(whose, micros)| ((*whose).to_owned(), *micros)).collect();
        assert_eq!(shares(spans), expected);
    }

    #[test]
    fn a_call_is_apps_and_hops_and_nothing_is_counted_twice() {
        let expected =
            [("orders", 900), ("inventory", 400), ("web ▸ orders", 500), ("orders ▸ inventory", 200)];
        expect(&call(), &expected);
    }

    #[test]
    fn attempts_side_by_side_share_their_time() {
        let mut spans = vec![
            span(1, 0, "a", Kind::Client, 0..100),
            span(2, 1, "b", Kind::Server, 10..90),
            span(3, 2, "b", Kind::Client, 20..60), // the first, silent
            span(4, 2, "b", Kind::Client, 40..80), // beside it
            span(5, 4, "c", Kind::Server, 50..70),
        ];
        spans.iter_mut().for_each(|span| span.cluster = (span.service.as_ref() == "b").then(|| "c".into()));
        expect(&spans, &[("b", 20), ("c", 20), ("a ▸ b", 20), ("b ▸ c", 40)]);
    }

    #[test]
    fn an_attempt_that_nobody_answered_is_of_the_hop_of_the_next() {
        let spans = [
            span(1, 0, "a", Kind::Client, 0..10),
            Span { resend: 1, ..span(2, 0, "a", Kind::Client, 20..40) },
            span(3, 2, "b", Kind::Server, 25..30),
        ];
        expect(&spans, &[("b", 5), ("a ▸ b", 25)]);
    }

    #[test]
    fn a_span_that_did_not_arrive_gives_its_time_to_the_one_around_it() {
        let without = |id| call().into_iter().filter(|span| span.id != id).collect::<Vec<_>>();
        // Inventory's: as if nobody had answered.
        expect(&without(5), &[("orders", 900), ("web ▸ orders", 500), ("orders ▸ ?", 600)]);
        // A root: what is below it is a tree of its own.
        expect(
            &without(1),
            &[("orders", 900), ("inventory", 400), ("web ▸ orders", 460), ("orders ▸ inventory", 200)],
        );
        // One in the middle: two trees; what both cover is the deeper's, or an app's.
        expect(
            &without(2),
            &[("orders", 900), ("inventory", 400), ("web ▸ ?", 500), ("orders ▸ inventory", 200)],
        );
    }

    #[test]
    fn clocks_that_are_apart_by_some_micros_give_nobody_time_twice() {
        let mut early = call();
        early[0].start -= 150_000; // inventory's began before orders asked
        early[0].end += 150_000;
        expect(
            &early,
            &[("orders", 900), ("inventory", 600), ("web ▸ orders", 500), ("orders ▸ inventory", 0)],
        );
        let mut elsewhere = call();
        (elsewhere[0].start, elsewhere[0].end) = (0, 1); // far outside
        expect(
            &elsewhere,
            &[("orders", 900), ("inventory", 0), ("web ▸ orders", 500), ("orders ▸ inventory", 600)],
        );
    }

    #[test]
    fn an_apps_own_spans_are_app_time() {
        let app = Span { is_proxy: false, ..span(6, 3, "orders", Kind::Internal, 300..600) };
        let spans: Vec<_> = call().into_iter().chain([app]).collect();
        let expected =
            [("orders", 900), ("inventory", 400), ("web ▸ orders", 500), ("orders ▸ inventory", 200)];
        expect(&spans, &expected);
    }

    #[test]
    fn roots_apart_from_each_other_have_nothing_between_them() {
        let spans = [span(1, 0, "a", Kind::Server, 0..10), span(2, 9, "b", Kind::Server, 90..100)];
        expect(&spans, &[("a", 10), ("b", 10)]);
        expect(&[], &[]);
    }
}
