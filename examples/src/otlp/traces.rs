//! A bounded sample of whole traces.

use std::collections::HashMap;

use super::span::Span;

/// Traces kept at most.
pub const MAX_TRACES: usize = 4096;
/// Spans kept of one trace; what is more is left out.
pub const MAX_SPANS: usize = 64;

/// Spans by trace. When it is full, every other trace goes, chosen by trace ID, so that what is kept is whole, and is
/// from the whole time alike.
#[derive(Debug, Default)]
pub struct Traces {
    by_id: HashMap<u128, Vec<Span>>,
    /// Kept are traces whose ID ends in so many zero bits.
    zero_bits: u32,
    received: u64,
}

impl Traces {
    /// Takes a span. One that is there already (an exporter repeats a message whose answer got lost) is not kept twice.
    pub fn add(&mut self, span: Span) {
        self.received += 1;
        while self.is_wanted(span.trace) {
            if let Some(spans) = self.by_id.get_mut(&span.trace) {
                if spans.len() < MAX_SPANS && spans.iter().all(|known| known.id != span.id) {
                    spans.push(span);
                }
                return;
            }
            if self.by_id.len() < MAX_TRACES {
                self.by_id.insert(span.trace, vec![span]);
                return;
            }
            self.zero_bits += 1;
            let bits = self.zero_bits;
            self.by_id.retain(|trace, _| trace.trailing_zeros() >= bits);
        }
    }

    fn is_wanted(&self, trace: u128) -> bool {
        trace.trailing_zeros() >= self.zero_bits
    }

    /// Spans that came, kept or not.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The traces kept, each with its spans as they came.
    pub fn all(&self) -> impl Iterator<Item = &[Span]> {
        self.by_id.values().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::{made_up::span, span::Kind};

    fn of(trace: u128, id: u64) -> Span {
        Span { trace, ..span(id, 0, "web", Kind::Client, 0..1) }
    }

    #[test]
    fn spans_of_one_trace_are_together_once_each() {
        let mut traces = Traces::default();
        for (trace, id) in [(1, 1), (2, 1), (1, 2), (1, 2)] {
            traces.add(of(trace, id));
        }
        let mut sizes: Vec<_> = traces.all().map(<[Span]>::len).collect();
        sizes.sort_unstable();
        assert_eq!((sizes, traces.received()), (vec![1, 2], 4));
    }

    #[test]
    fn a_trace_keeps_so_many_spans_and_no_more() {
        let mut traces = Traces::default();
        (1..1000).for_each(|id| traces.add(of(1, id)));
        assert_eq!(traces.all().map(<[Span]>::len).collect::<Vec<_>>(), [MAX_SPANS]);
    }

    #[test]
    fn what_is_kept_of_many_traces_is_bounded_whole_and_from_the_whole_time() {
        let mut traces = Traces::default();
        let all = 10 * MAX_TRACES as u128;
        for trace in 1..=all {
            traces.add(of(trace, 1));
            // Its other span comes while others begin.
            if let Some(earlier) = trace.checked_sub(100).filter(|earlier| *earlier > 0) {
                traces.add(of(earlier, 2));
            }
        }
        let kept: Vec<_> = traces.all().collect();
        assert!((MAX_TRACES / 4..=MAX_TRACES).contains(&kept.len()), "{}", kept.len());
        let in_full = |spans: &&[Span]| spans.len() == 2 || spans[0].trace > all - 100;
        assert!(kept.iter().all(in_full), "a kept trace lost a span");
        let early = kept.iter().filter(|spans| spans[0].trace < all / 2).count();
        assert!((kept.len() / 3..kept.len() * 2 / 3).contains(&early), "{early} of {}", kept.len());
    }

    #[test]
    fn ids_that_were_chosen_to_be_kept_do_not_make_it_grow() {
        let mut traces = Traces::default();
        (1..=2 * MAX_TRACES as u128).for_each(|trace| traces.add(of(trace << 100, 1)));
        traces.add(of(1 << 127, 1));
        assert!(traces.all().count() <= MAX_TRACES);
    }
}
