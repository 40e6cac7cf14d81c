//! One trace as a picture: a line for each span, with a bar on a common axis of time.
//!
//! ```text
//! trace 4bf92f3577b34da6a3ce929d0e0e4736, 5 spans, 2.00 ms
//!                          0                                               2.00 ms
//! web GET                  ──────────────────────────────────────────────  2.00 ms
//! └ web out GET            ▒▒▒▒▒──────────────────────────────────▒▒▒▒▒▒▒  1.96 ms
//!   └ orders in GET            ████████████──────────────██████████        1.50 ms
//!     └ orders out GET                     ▒▒──────────▒▒                   600 µs
//!       └ inventory in GET                   ██████████                     400 µs
//!
//! ▒ proxies   700 µs  35 %  web ▸ orders 500 µs, orders ▸ inventory 200 µs
//! █ apps     1.30 ms  65 %  orders 900 µs, inventory 400 µs
//! ```
//! Solid is a span's own time ([`shares`]), light of proxies and dark of apps; a line is waiting for what is below. Names came
//! over the network: everything but printable ASCII is escaped.

use std::fmt::Write as _;

use super::{
    shares::{self, Own, Share, Shares},
    span::{Kind, Span},
    tree::{Node, Tree},
};

/// The narrowest that it is drawn.
pub const MIN_WIDTH: usize = 60;
/// Where nobody says how wide the terminal is.
pub const WIDTH: usize = 80;
/// Columns of a duration.
const DURATION: usize = 8;

/// Draws the spans of one trace, at most `width` columns wide ([`MIN_WIDTH`] at least). Nothing without spans.
#[must_use]
pub fn draw(spans: &[Span], width: usize) -> Vec<String> {
    let tree = Tree::new(spans);
    let Some((start, end)) = tree.extent() else { return Vec::new() };
    let own = shares::own(&tree);
    let width = width.max(MIN_WIDTH);
    let labels: Vec<String> = (0..tree.nodes.len()).map(|place| label(&tree, place)).collect();
    let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let left = longest.min(width * 5 / 9);
    let axis = Axis { start, nanos: (end - start).max(1), columns: width - left - DURATION - 2 };

    let trace = spans.first().map_or(0, |span| span.trace);
    let total = duration(end - start);
    let plural = if spans.len() == 1 { "" } else { "s" };
    let mut lines = vec![
        format!("trace {trace:032x}, {} span{plural}, {total}", spans.len()),
        format!("{:left$} 0{:>right$}", "", total, right = axis.columns + DURATION),
    ];
    for (place, (node, label)) in tree.nodes.iter().zip(&labels).enumerate() {
        let bar = axis.bar(node.span, place, &own);
        let took = duration(node.span.nanos());
        lines.push(format!("{} {bar} {took:>DURATION$}", fitted(label, left)));
    }
    let orphans = tree.nodes.iter().filter(|node| node.is_orphan).count();
    match orphans {
        // A call that somebody outside began has one, and nothing is missing.
        _ if tree.roots().count() < 2 => {}
        0 => {}
        1 => lines.push("1 span names a parent that did not arrive".to_owned()),
        more => lines.push(format!("{more} spans name parents that did not arrive")),
    }
    lines.extend(sums(&Shares::new(&tree, &own), width));
    lines
}

/// Proxy time apart from app time.
fn sums(shares: &Shares, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let of = |nanos: u64| nanos as f64 * 100.0 / shares.total.max(1) as f64;
    for (sign, whose, all, parts) in [
        ('▒', "proxies", shares.of_proxies(), &shares.proxies),
        ('█', "apps", shares.of_apps(), &shares.apps),
    ] {
        let head = format!("{sign} {whose:<7} {:>DURATION$} {:>3.0} %", duration(all), of(all));
        lines.extend(wrapped(&head, parts, width));
    }
    lines
}

/// The parts behind their sum, on as many lines as it takes.
fn wrapped(head: &str, parts: &[Share], width: usize) -> Vec<String> {
    let indent = head.chars().count();
    let mut lines = vec![head.to_owned()];
    for (index, Share { whose, nanos }) in parts.iter().enumerate() {
        let comma = if index + 1 < parts.len() { "," } else { "" };
        let part = format!("{} {}{comma}", escaped(whose, &['▸']), duration(*nanos));
        let is_full = |line: &String| line.chars().count() + 2 + part.chars().count() > width;
        if index > 0 && lines.last().is_some_and(is_full) {
            lines.push(" ".repeat(indent));
        }
        if let Some(line) = lines.last_mut() {
            let gap = if line.chars().count() == indent { "  " } else { " " };
            let _infallible = write!(line, "{gap}{part}");
        }
    }
    lines
}

/// What is written left of a bar.
fn label(tree: &Tree<'_>, place: usize) -> String {
    let Some(node) = tree.nodes.get(place) else { return String::new() };
    let mut branches: Vec<&str> =
        tree.upwards(place).filter(|above| above.parent.is_some()).map(tail).collect();
    if let Some(own) = branches.first_mut() {
        *own = if node.is_last { "└ " } else { "├ " };
    }
    branches.reverse();
    format!("{}{}", branches.concat(), said(node.span))
}

/// Below a span: whether a brother of it follows.
fn tail(node: &Node<'_>) -> &'static str {
    if node.is_last { "  " } else { "│ " }
}

fn said(span: &Span) -> String {
    let side = match (span.is_proxy, span.kind) {
        (false, _) => "app ",
        (true, Kind::Server) => "in ",
        (true, Kind::Client) => "out ",
        (true, Kind::Internal) => "",
    };
    let mut said = format!("{} {side}{}", escaped(&span.service, &[]), escaped(&span.name, &[]));
    if span.resend > 0 {
        let _infallible = write!(said, " again");
    }
    if span.resend > 1 {
        let _infallible = write!(said, " {}", span.resend);
    }
    match span.status {
        Some(status) if status >= 400 => drop(write!(said, " {status}")),
        _ if span.is_error => said.push_str(" failed"),
        _ => {}
    }
    said
}

/// Cut, or filled with spaces.
fn fitted(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return format!("{text:<columns$}");
    }
    let cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// Printable ASCII, and `more`; the rest as `\u{1b}`.
fn escaped(text: &str, more: &[char]) -> String {
    let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() || more.contains(&c);
    text.chars().fold(String::new(), |mut safe, c| {
        if is_plain(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
        safe
    })
}

/// A duration in three digits or so: `431 µs`, `2.31 ms`, `1.20 s`.
#[must_use]
pub fn duration(nanos: u64) -> String {
    let micros = nanos as f64 / 1e3;
    match nanos {
        0..999_500 => format!("{micros:.0} µs"),
        999_500..99_995_000 => format!("{:.2} ms", micros / 1e3),
        99_995_000..999_500_000 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Time from left to right.
#[derive(Clone, Copy, Debug)]
struct Axis {
    start: u64,
    nanos: u64,
    columns: usize,
}

impl Axis {
    /// A span's bar, all columns of it.
    fn bar(self, span: &Span, place: usize, own: &[Own]) -> String {
        let solid = if shares::is_app(span) { '█' } else { '▒' };
        let first = self.column(span.start).min(self.columns - 1);
        let mut bar = String::new();
        for column in 0..self.columns {
            let (from, to) = (self.instant(column), self.instant(column + 1));
            let covered = overlap((from, to), (span.start, span.end));
            let mine = own.iter().filter(|own| own.place == place);
            let mine: u64 = mine.map(|own| overlap((from, to), (own.from, own.to))).sum();
            bar.push(match (covered, mine >= covered.saturating_sub(mine)) {
                (0, _) if column == first && span.nanos() == 0 => solid,
                (0, _) => ' ',
                (_, true) => solid,
                (_, false) => '─',
            });
        }
        bar
    }

    fn column(self, instant: u64) -> usize {
        let part = u128::from(instant - self.start) * self.columns as u128 / u128::from(self.nanos);
        usize::try_from(part).unwrap_or(usize::MAX)
    }

    /// When a column begins.
    fn instant(self, column: usize) -> u64 {
        let part = u128::from(self.nanos) * column as u128 / self.columns as u128;
        self.start.saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

fn overlap(one: (u64, u64), other: (u64, u64)) -> u64 {
    one.1.min(other.1).saturating_sub(one.0.max(other.0))
}

#[cfg(test)]
mod tests;
