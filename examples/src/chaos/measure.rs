//! From single requests to what a scenario cost.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    load::{Record, Sample},
    scenario::Span,
};
use crate::demo::{latency::Latency, load::Failure};

/// What is judged at once.
pub const WINDOW: Duration = Duration::from_millis(500);
/// Windows in a row that must be good for the mesh to have recovered: two seconds.
const STEADY: usize = 4;
/// A window is good only with a p99 of at most twice what it was before...
const TIMES: f64 = 2.0;
/// ...or that many milliseconds more: twice next to nothing is a hiccup of the machine.
const SLACK_MS: f64 = 10.0;

/// What came of one scenario behind one kind of sidecar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Requests made while it was measured: before, during and after the fault.
    pub requests: u64,
    /// Those that were not answered as they should be.
    pub failed: u64,
    /// What went wrong with them.
    pub failures: Vec<Failure>,
    /// Attempts that the apps saw per hundred requests during the fault, less a hundred.
    pub extra_load_percent: f64,
    /// Latency before the fault.
    pub before: Quantiles,
    /// During the fault.
    pub during: Quantiles,
    /// After it.
    pub after: Quantiles,
    /// Seconds from the fault (from the first one back, where all were gone) until two seconds without a failure and
    /// with a p99 near that of before begin; none: that never was.
    pub recovered_s: Option<f64>,
    /// Seconds in all that were not so, from the same moment on.
    pub disturbed_s: f64,
    /// From when to when things were broken, in seconds since measuring began.
    pub fault_s: (f64, f64),
    /// Half a second each.
    pub series: Vec<Point>,
}

/// Latency of the requests that were answered as they should be, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50_ms: Option<f64>,
    /// 99 of 100.
    pub p99_ms: Option<f64>,
}

/// One window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Its middle, in seconds since measuring began.
    pub at_s: f64,
    /// Requests due in it.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Latency of the others.
    #[serde(flatten)]
    pub latency: Quantiles,
}

/// When what was measured.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From here on; what was before warmed things up.
    pub begin: Instant,
    /// When things were broken.
    pub span: Span,
    /// Until here.
    pub end: Instant,
}

/// Works out what it cost. `attempts` are those that the apps saw during the fault.
#[must_use]
pub fn cost(record: &Record, times: Times, attempts: u64) -> Cost {
    let Times { begin, span, end } = times;
    let between = |from: Instant, to: Instant| {
        record.samples.iter().filter(move |sample| (from..to).contains(&sample.due))
    };
    let of = |from, to| quantiles(between(from, to));
    let before = of(begin, span.start);
    let during = between(span.start, span.end).count();
    let series = series(record, begin, end);
    let after: Vec<_> = windows_from(&series, begin, span.judged_from).collect();
    let is_good: Vec<_> = after.iter().map(|point| is_good(point, before)).collect();
    let since = |instant: Instant| instant.saturating_duration_since(begin).as_secs_f64();
    let recovered_s = is_good.windows(STEADY).position(|few| few.iter().all(|is_good| *is_good)).map(|at| {
        let from = after.get(at).map_or(0.0, |point| point.at_s - WINDOW.as_secs_f64() / 2.0);
        // The fault is somewhere in the first window that is looked at.
        if at == 0 { 0.0 } else { (from - since(span.judged_from)).max(0.0) }
    });
    Cost {
        requests: between(begin, end).count() as u64,
        failed: between(begin, end).filter(|sample| !sample.is_ok).count() as u64,
        failures: record.failures.clone(),
        extra_load_percent: ((attempts as f64 / during.max(1) as f64 - 1.0) * 100.0).max(0.0),
        before,
        during: of(span.start, span.end),
        after: of(span.end, end),
        recovered_s,
        disturbed_s: is_good.iter().filter(|is_good| !**is_good).count() as f64 * WINDOW.as_secs_f64(),
        fault_s: (since(span.start), since(span.end)),
        series,
    }
}

fn quantiles<'r>(samples: impl Iterator<Item = &'r Sample>) -> Quantiles {
    let mut latency = Latency::default();
    samples.filter(|sample| sample.is_ok).for_each(|sample| latency.record(sample.took));
    Quantiles { p50_ms: latency.quantile_ms(0.5), p99_ms: latency.quantile_ms(0.99) }
}

fn series(record: &Record, begin: Instant, end: Instant) -> Vec<Point> {
    let windows = end.saturating_duration_since(begin).div_duration_f64(WINDOW).floor() as usize;
    let mut sorted = vec![Vec::new(); windows];
    for sample in record.samples.iter().filter(|sample| sample.due >= begin) {
        let at = (sample.due - begin).div_duration_f64(WINDOW) as usize;
        if let Some(window) = sorted.get_mut(at) {
            window.push(*sample);
        }
    }
    let point = |(number, samples): (usize, Vec<Sample>)| Point {
        at_s: (number as f64 + 0.5) * WINDOW.as_secs_f64(),
        requests: samples.len() as u64,
        failed: samples.iter().filter(|sample| !sample.is_ok).count() as u64,
        latency: quantiles(samples.iter()),
    };
    sorted.into_iter().enumerate().map(point).collect()
}

/// The windows of which some part is not before `from`.
fn windows_from(series: &[Point], begin: Instant, from: Instant) -> impl Iterator<Item = &Point> {
    let from = from.saturating_duration_since(begin).as_secs_f64();
    series.iter().filter(move |point| point.at_s + WINDOW.as_secs_f64() / 2.0 > from)
}

fn is_good(point: &Point, before: Quantiles) -> bool {
    let Some(p99) = point.latency.p99_ms else { return false };
    let usual = before.p99_ms.unwrap_or_default();
    point.failed == 0 && p99 <= (usual * TIMES).max(usual + SLACK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects;

    /// Ten seconds at 100 per second, broken from 3 s to 6 s; what `change` says of the request at that second.
    fn measured(change: impl Fn(f64) -> (u64, bool)) -> Cost {
        let begin = effects::now();
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        let samples = (0..1000).map(|number| {
            let second = f64::from(number) / 100.0;
            let (took, is_ok) = change(second);
            Sample { due: at(second), took: Duration::from_millis(took), is_ok }
        });
        let record = Record { samples: samples.collect(), failures: Vec::new() };
        let span = Span { start: at(3.0), end: at(6.0), judged_from: at(3.0) };
        cost(&record, Times { begin, span, end: at(10.0) }, 330)
    }

    #[test]
    fn what_nobody_notices_costs_nothing_but_the_attempts() {
        let cost = measured(|_| (2, true));
        assert_eq!((cost.requests, cost.failed), (1000, 0));
        assert_eq!((cost.recovered_s, cost.disturbed_s), (Some(0.0), 0.0));
        assert!((cost.extra_load_percent - 10.0).abs() < 0.1, "{}", cost.extra_load_percent);
        assert_eq!(cost.series.len(), 20);
    }

    #[test]
    fn the_mesh_has_recovered_when_two_seconds_are_good() {
        // Failures until 4 s, slow answers until 5 s.
        let cost = measured(|second| match second {
            3.0..4.0 => (2, false),
            4.0..5.0 => (200, true),
            _ => (2, true),
        });
        assert_eq!(cost.failed, 100);
        assert_eq!((cost.recovered_s, cost.disturbed_s), (Some(2.0), 2.0));
        assert!(cost.during.p99_ms > Some(150.0) && cost.after.p99_ms < Some(3.0));
    }

    #[test]
    fn a_second_of_calm_is_not_recovery() {
        let is_slow = |second: f64| second >= 3.0 && (second as u64) % 2 == 1;
        let cost = measured(|second| (if is_slow(second) { 200 } else { 2 }, true));
        assert_eq!(cost.recovered_s, None, "{cost:?}");
    }

    #[test]
    fn a_window_without_an_answer_is_not_good() {
        let cost = measured(|second| (2, second < 3.0));
        assert_eq!(cost.recovered_s, None);
        assert!((cost.disturbed_s - 7.0).abs() < 0.1);
    }
}
