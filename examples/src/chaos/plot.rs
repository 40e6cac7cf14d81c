//! The report as a picture: a panel for each scenario, latency over time on a logarithmic scale, failures below it, the
//! time when things were broken shaded.
//!
//! Written by hand, as SVG with its own style: it follows the reader's light or dark setting, and tells lines apart by
//! dashes as well as by colour.

use std::fmt::{self, Write as _};

use super::{
    measure::{Point, WINDOW},
    report::{Report, Run},
    sidecar::Proxy,
};

/// Size of a panel, and where the curves are in it.
const PANEL: (f64, f64) = (470.0, 210.0);
const LEFT: f64 = 52.0;
const TOP: f64 = 30.0;
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 110.0;
/// The strip of failures under the curves.
const STRIP_TOP: f64 = TOP + HEIGHT + 6.0;
const STRIP: f64 = 26.0;
/// Panels side by side.
const COLUMNS: usize = 2;
/// Above the panels: the legend.
const HEAD: f64 = 46.0;
/// Latency at the bottom and at the top of the scale, as powers of ten of milliseconds.
const DECADES: (f64, f64) = (-0.5, 4.0);

const STYLE: &str = "
  svg { background: #ffffff; font: 11px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 12px; font-weight: 600; }
  .grid { stroke: #d0d7de; stroke-width: 0.5; }
  .fault { fill: #bf8700; opacity: 0.16; }
  .line { fill: none; stroke-width: 1.6; }
  .p50 { stroke-width: 1.2; stroke-dasharray: 3 2; }
  .outrider { stroke: #0969da; } .envoy { stroke: #bc4c00; }
  .bar { stroke: none; } .bar.outrider { fill: #0969da; } .bar.envoy { fill: #bc4c00; }
  .dim { fill: #59636e; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; fill: #e6edf3; }
    .grid { stroke: #3d444d; } .fault { fill: #d29922; opacity: 0.22; } .dim { fill: #9198a1; }
    .outrider { stroke: #58a6ff; } .envoy { stroke: #f0883e; }
    .bar.outrider { fill: #58a6ff; } .bar.envoy { fill: #f0883e; }
  }
";

/// The whole picture.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    draw(&mut text, report).unwrap_or_default();
    text
}

fn draw(out: &mut String, report: &Report) -> fmt::Result {
    let panels: Vec<_> = report.runs.chunk_by(|one, next| one.scenario == next.scenario).collect();
    let (width, rows) = (PANEL.0 * COLUMNS as f64, panels.len().div_ceil(COLUMNS));
    let height = HEAD + PANEL.1 * rows as f64;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Latency and failures of each scenario over time\">\
         <style>{STYLE}</style>"
    )?;
    legend(out)?;
    for (number, runs) in panels.iter().enumerate() {
        let (column, row) = (number % COLUMNS, number / COLUMNS);
        let (x, y) = (column as f64 * PANEL.0, HEAD + row as f64 * PANEL.1);
        writeln!(out, "<g transform=\"translate({x} {y})\">")?;
        panel(out, runs)?;
        writeln!(out, "</g>")?;
    }
    writeln!(out, "</svg>")
}

fn legend(out: &mut String) -> fmt::Result {
    let mut x = LEFT;
    for proxy in [Proxy::Outrider, Proxy::Envoy] {
        for (class, what) in [("p99", "p99"), ("p50", "p50")] {
            let end = x + 26.0;
            let name = proxy.name();
            writeln!(
                out,
                "<line class=\"line {class} {name}\" x1=\"{x}\" y1=\"20\" x2=\"{end}\" y2=\"20\"/>"
            )?;
            writeln!(out, "<text x=\"{}\" y=\"24\">{name} {what}</text>", end + 5.0)?;
            x += 112.0;
        }
    }
    writeln!(out, "<rect class=\"fault\" x=\"{x}\" y=\"13\" width=\"26\" height=\"14\"/>")?;
    writeln!(out, "<text x=\"{}\" y=\"24\">things are broken</text>", x + 31.0)?;
    writeln!(
        out,
        "<text class=\"dim\" x=\"{LEFT}\" y=\"40\">latency in ms, logarithmic, over seconds; below: share of requests \
         that failed</text>"
    )
}

/// One scenario, behind each kind of sidecar.
fn panel(out: &mut String, runs: &[Run]) -> fmt::Result {
    let Some(first) = runs.first() else { return Ok(()) };
    let window = WINDOW.as_secs_f64();
    let seconds = runs.iter().filter_map(|run| Some(run.cost.series.last()?.at_s + window / 2.0));
    let scale = Scale { seconds: seconds.fold(1.0, f64::max) };
    writeln!(out, "<text class=\"title\" x=\"{LEFT}\" y=\"18\">{}</text>", first.title)?;
    // What takes its time ends when the slowest is done.
    let from = runs.iter().map(|run| run.cost.fault_s.0).fold(f64::MAX, f64::min);
    let to = runs.iter().map(|run| run.cost.fault_s.1).fold(0.0, f64::max);
    let (x, width, height) = (scale.x(from), scale.x(to) - scale.x(from), STRIP_TOP + STRIP - TOP);
    writeln!(
        out,
        "<rect class=\"fault\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>"
    )?;
    axes(out, scale)?;
    for run in runs {
        let name = run.proxy.name();
        for (class, of) in [("p50", p50 as fn(&Point) -> Option<f64>), ("p99", p99)] {
            let path = path(&run.cost.series, scale, of);
            writeln!(out, "<path class=\"line {class} {name}\" d=\"{path}\"/>")?;
        }
    }
    for (place, run) in runs.iter().enumerate() {
        bars(out, run, scale, place as f64 / runs.len() as f64, runs.len() as f64)?;
    }
    Ok(())
}

fn p50(point: &Point) -> Option<f64> {
    point.latency.p50_ms
}

fn p99(point: &Point) -> Option<f64> {
    point.latency.p99_ms
}

#[derive(Clone, Copy)]
struct Scale {
    seconds: f64,
}

impl Scale {
    fn x(self, seconds: f64) -> f64 {
        LEFT + seconds / self.seconds * WIDTH
    }

    fn y(self, millis: f64) -> f64 {
        let (low, high) = DECADES;
        let share = (millis.max(1e-3).log10().clamp(low, high) - low) / (high - low);
        TOP + HEIGHT * (1.0 - share)
    }
}

fn axes(out: &mut String, scale: Scale) -> fmt::Result {
    let right = LEFT + WIDTH;
    for (millis, label) in [(1.0, "1"), (10.0, "10"), (100.0, "100"), (1000.0, "1 s"), (10_000.0, "10 s")] {
        let y = scale.y(millis);
        writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>")?;
        writeln!(
            out,
            "<text class=\"dim\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    let bottom = STRIP_TOP + STRIP;
    writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>")?;
    writeln!(
        out,
        "<text class=\"dim\" x=\"{}\" y=\"{}\" text-anchor=\"end\">failed</text>",
        LEFT - 6.0,
        bottom - 8.0
    )?;
    let step = if scale.seconds > 24.0 { 5 } else { 2 };
    for second in (0..=scale.seconds as u32).step_by(step) {
        let x = scale.x(f64::from(second));
        writeln!(
            out,
            "<text class=\"dim\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{second}</text>",
            bottom + 14.0
        )?;
    }
    Ok(())
}

/// A line through the windows that have a value; windows without an answer leave a gap.
fn path(series: &[Point], scale: Scale, of: fn(&Point) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for point in series {
        let Some(millis) = of(point) else {
            is_drawing = false;
            continue;
        };
        let command = if is_drawing { 'L' } else { 'M' };
        let _infallible = write!(path, "{command}{:.1} {:.1}", scale.x(point.at_s), scale.y(millis));
        is_drawing = true;
    }
    path
}

/// A bar for each window with failures; runs side by side share a window's width.
fn bars(out: &mut String, run: &Run, scale: Scale, place: f64, runs: f64) -> fmt::Result {
    let width = (scale.x(WINDOW.as_secs_f64()) - scale.x(0.0)) / runs;
    for point in run.cost.series.iter().filter(|point| point.failed > 0) {
        let share = point.failed as f64 / point.requests.max(1) as f64;
        // A single failure must be seen.
        let height = (share * STRIP).max(2.0);
        let left = scale.x(point.at_s - WINDOW.as_secs_f64() / 2.0) + place * width * runs;
        writeln!(
            out,
            "<rect class=\"bar {}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
            run.proxy.name(),
            STRIP_TOP + STRIP - height
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_puts_more_latency_higher_and_later_seconds_further_right() {
        let scale = Scale { seconds: 10.0 };
        assert!(scale.y(100.0) < scale.y(10.0) && scale.y(0.0001) <= TOP + HEIGHT && scale.y(1e9) >= TOP);
        assert!((scale.x(10.0) - LEFT - WIDTH).abs() < 0.01);
    }

    #[test]
    fn a_window_without_an_answer_is_a_gap() {
        let point = |at_s: f64, p50_ms| Point {
            at_s,
            requests: 1,
            failed: 0,
            latency: super::super::measure::Quantiles { p50_ms, p99_ms: None },
        };
        let series = [point(0.5, Some(1.0)), point(1.0, None), point(1.5, Some(1.0)), point(2.0, Some(1.0))];
        let path = path(&series, Scale { seconds: 2.0 }, p50);
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 1, "{path}");
    }
}
