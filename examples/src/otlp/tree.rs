//! One trace's spans in the order in which they are read: each after its parent, brothers by time.

use std::collections::{HashMap, HashSet};

use super::span::Span;

/// The spans of one trace in order.
#[derive(Debug)]
pub struct Tree<'a> {
    /// A parent comes before its children, and all that is below a span comes before its next brother.
    pub nodes: Vec<Node<'a>>,
}

/// A span in its place.
#[derive(Debug)]
pub struct Node<'a> {
    /// It.
    pub span: &'a Span,
    /// Its parent's place in the order; none of roots.
    pub parent: Option<usize>,
    /// Spans above it.
    pub depth: usize,
    /// Whether it is the last of its brothers.
    pub is_last: bool,
    /// Whether it names a parent that is not there, or one that is below itself.
    pub is_orphan: bool,
}

impl<'a> Tree<'a> {
    /// Puts spans of one trace in order. Those whose parent is not among them are roots; of a circle of parents, the
    /// earliest is.
    #[must_use]
    pub fn new(spans: &'a [Span]) -> Self {
        let mut sorted: Vec<&Span> = spans.iter().collect();
        sorted.sort_by_key(|span| (span.start, u64::MAX - span.end, span.id));
        let known: HashSet<u64> = sorted.iter().map(|span| span.id).collect();
        let mut children: HashMap<u64, Vec<&Span>> = HashMap::new();
        let mut roots = Vec::new();
        for span in &sorted {
            match span.parent.filter(|parent| known.contains(parent)) {
                Some(parent) => children.entry(parent).or_default().push(span),
                None => roots.push(*span),
            }
        }
        let mut tree = Self { nodes: Vec::with_capacity(sorted.len()) };
        tree.place(roots, &mut children);
        // What is left hangs in circles.
        while let Some(first) = sorted.iter().find(|span| is_among(&children, span)) {
            if let Some(brothers) = first.parent.and_then(|parent| children.get_mut(&parent)) {
                brothers.retain(|span| span.id != first.id);
            }
            tree.place(vec![first], &mut children);
        }
        tree
    }

    /// Roots and all that is below them. Whose place is known is taken from `children`.
    fn place(&mut self, roots: Vec<&'a Span>, children: &mut HashMap<u64, Vec<&'a Span>>) {
        let mut waiting = Vec::new();
        push(&mut waiting, roots, None, 0);
        while let Some((span, parent, depth, is_last)) = waiting.pop() {
            let place = self.nodes.len();
            let is_orphan = parent.is_none() && span.parent.is_some();
            self.nodes.push(Node { span, parent, depth, is_last, is_orphan });
            push(&mut waiting, children.remove(&span.id).unwrap_or_default(), Some(place), depth + 1);
        }
    }

    /// The roots.
    pub fn roots(&self) -> impl Iterator<Item = &Node<'a>> {
        self.nodes.iter().filter(|node| node.parent.is_none())
    }

    /// When the first began and the last ended; none without spans.
    #[must_use]
    pub fn extent(&self) -> Option<(u64, u64)> {
        let start = self.nodes.iter().map(|node| node.span.start).min()?;
        let end = self.nodes.iter().map(|node| node.span.end).max()?;
        Some((start, end))
    }

    /// A node and all above it, from itself on.
    pub fn upwards(&self, place: usize) -> impl Iterator<Item = &Node<'a>> {
        std::iter::successors(self.nodes.get(place), |node| self.nodes.get(node.parent?))
    }
}

type Waiting<'a> = (&'a Span, Option<usize>, usize, bool);

/// The first of them ends up on top.
fn push<'a>(waiting: &mut Vec<Waiting<'a>>, spans: Vec<&'a Span>, parent: Option<usize>, depth: usize) {
    let last = spans.len().saturating_sub(1);
    let brothers = spans.into_iter().enumerate().rev();
    waiting.extend(brothers.map(|(index, span)| (span, parent, depth, index == last)));
}

fn is_among(children: &HashMap<u64, Vec<&Span>>, span: &Span) -> bool {
    let brothers = span.parent.and_then(|parent| children.get(&parent));
    brothers.is_some_and(|brothers| brothers.iter().any(|brother| brother.id == span.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::{made_up::span, span::Kind};

    fn order(spans: &[Span]) -> Vec<(u64, usize, bool, bool)> {
        let tree = Tree::new(spans);
        tree.nodes.iter().map(|node| (node.span.id, node.depth, node.is_last, node.is_orphan)).collect()
    }

    fn at(id: u64, parent: u64, start: u64) -> Span {
        span(id, parent, "x", Kind::Client, start..start + 10)
    }

    #[test]
    fn each_span_is_after_its_parent_and_brothers_are_by_time() {
        let spans = [at(4, 2, 4), at(3, 1, 6), at(2, 1, 2), at(1, 0, 0), at(5, 2, 3)];
        let expected = [
            (1, 0, true, false),
            (2, 1, false, false),
            (5, 2, false, false),
            (4, 2, true, false),
            (3, 1, true, false),
        ];
        assert_eq!(order(&spans), expected);
    }

    #[test]
    fn spans_without_their_parent_are_roots_and_told_apart() {
        assert_eq!(order(&[at(2, 9, 5), at(1, 0, 0)]), [(1, 0, false, false), (2, 0, true, true)]);
        assert_eq!(order(&[]), []);
    }

    #[test]
    fn circles_end() {
        assert_eq!(order(&[at(1, 1, 0)]), [(1, 0, true, true)]);
        let circle = [at(1, 3, 5), at(2, 1, 0), at(3, 2, 7), at(4, 3, 8)];
        assert_eq!(
            order(&circle),
            [(2, 0, true, true), (3, 1, true, false), (1, 2, false, false), (4, 2, true, false)]
        );
    }

    #[test]
    fn a_long_chain_does_not_use_up_the_stack() {
        let chain: Vec<_> = (1..50_000).map(|id| at(id, id - 1, id)).collect();
        assert_eq!(Tree::new(&chain).nodes.len(), chain.len());
    }
}
