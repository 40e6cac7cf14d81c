//! Who calls whom, as a table.

use clap::ValueEnum;
use serde_json::Value;

use super::ask::safe;

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// Most requests first
    Rate,
    /// Lowest share of successes first
    Success,
    /// Slowest first
    P99,
    /// Most retries first
    Retries,
    /// By source, destination and route
    Name,
}

/// A column of numbers, right-aligned, and how it is filled.
struct Column {
    title: &'static str,
    width: usize,
    /// It is there from so many columns of the terminal.
    from: usize,
    cell: fn(&Value, f64) -> String,
}

const EDGES: [Column; 8] = [
    Column { title: "RATE/S", width: 8, from: 0, cell: |edge, _| rate(number(edge, "rate")) },
    Column { title: "OK %", width: 7, from: 0, cell: |edge, _| percent(number(edge, "success")) },
    Column { title: "P50", width: 7, from: 0, cell: |edge, _| millis(edge.get("p50_ms")) },
    Column { title: "P90", width: 7, from: 92, cell: |edge, _| millis(edge.get("p90_ms")) },
    Column { title: "P99", width: 7, from: 0, cell: |edge, _| millis(edge.get("p99_ms")) },
    Column { title: "RETRY", width: 6, from: 0, cell: |edge, _| whole(edge, "retries") },
    Column { title: "IN/S", width: 8, from: 110, cell: |edge, s| bytes(number(edge, "request_bytes") / s) },
    Column { title: "OUT/S", width: 8, from: 110, cell: |edge, s| bytes(number(edge, "response_bytes") / s) },
];

const CLUSTERS: [Column; 7] = [
    Column { title: "USABLE", width: 8, from: 0, cell: |cluster, _| usable(cluster) },
    Column { title: "EJECTED", width: 8, from: 0, cell: |it, _| whole(endpoints(it), "ejected") },
    Column { title: "IN FLIGHT", width: 10, from: 0, cell: |cluster, _| whole(cluster, "in_flight") },
    Column { title: "CONNS", width: 7, from: 0, cell: |cluster, _| whole(cluster, "connections") },
    Column { title: "RETRY", width: 6, from: 92, cell: |cluster, _| whole(cluster, "retries") },
    Column { title: "NO BUDGET", width: 10, from: 92, cell: |it, _| whole(it, "retries_over_budget") },
    Column { title: "BREAKER", width: 16, from: 0, cell: |cluster, _| breaker(cluster) },
];

/// The table of `/edges`, for `width` columns.
pub(super) fn render(answer: &Value, width: usize, sort: Sort) -> String {
    let seconds = number(answer, "seconds").max(0.001);
    let mut edges: Vec<&Value> = list(answer, "edges").collect();
    edges.sort_by(|a, b| order(a, b, sort));
    let mut out = String::new();
    let columns = fitting(&EDGES, width);
    let room = width.saturating_sub(4 + columns.iter().map(|column| column.width).sum::<usize>());
    let (source, destination) = (room / 2, room - room / 2);
    line(&mut out, ["", "SOURCE", "DESTINATION"], [4, source, destination], &columns, |it| {
        it.title.to_owned()
    });
    for edge in &edges {
        let arrow = if text(edge, "direction") == "inbound" { "in" } else { "out" };
        let from = safe(text(edge, "source").trim_start_matches("spiffe://"));
        let route = text(edge, "route");
        let to = safe(text(edge, "destination"));
        let to = if route.is_empty() { to } else { format!("{to} {}", safe(route)) };
        line(&mut out, [arrow, &from, &to], [4, source, destination], &columns, |it| {
            (it.cell)(edge, seconds)
        });
    }
    if edges.is_empty() {
        out.push_str("    no request ended in this time\n");
    }
    out.push('\n');
    let columns = fitting(&CLUSTERS, width);
    let name = width.saturating_sub(columns.iter().map(|column| column.width).sum());
    line(&mut out, ["CLUSTER"], [name], &columns, |it| it.title.to_owned());
    for cluster in list(answer, "clusters") {
        line(&mut out, [&safe(text(cluster, "name"))], [name], &columns, |it| (it.cell)(cluster, seconds));
    }
    out
}

fn fitting(all: &'static [Column], width: usize) -> Vec<&'static Column> {
    all.iter().filter(|column| width >= column.from).collect()
}

fn line<const N: usize>(
    out: &mut String,
    names: [&str; N],
    widths: [usize; N],
    columns: &[&Column],
    cell: impl Fn(&Column) -> String,
) {
    for (name, width) in names.into_iter().zip(widths) {
        out.push_str(&left(name, width));
    }
    for column in columns {
        out.push_str(&format!("{:>width$}", cell(column), width = column.width));
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// The text in that width; of one that is too long the end, which tells names apart. A blank follows in any case.
fn left(text: &str, width: usize) -> String {
    let length = text.chars().count();
    let room = width.saturating_sub(1);
    if length <= room {
        return format!("{text:<width$}");
    }
    let end: String = text.chars().skip(length - room.saturating_sub(1)).collect();
    format!("~{end} ")
}

fn order(a: &Value, b: &Value, sort: Sort) -> std::cmp::Ordering {
    let falling = |key: &str| number(b, key).total_cmp(&number(a, key));
    let name =
        |it: &Value| ["direction", "source", "destination", "route"].map(|key| text(it, key).to_owned());
    let first = match sort {
        Sort::Rate => falling("rate"),
        Sort::Success => falling("success").reverse(),
        Sort::P99 => falling("p99_ms"),
        Sort::Retries => falling("retries"),
        Sort::Name => std::cmp::Ordering::Equal,
    };
    first.then_with(|| name(a).cmp(&name(b)))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(value: &Value, key: &str) -> f64 {
    value.get(key).and_then(Value::as_f64).unwrap_or_default()
}

fn whole(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_u64).unwrap_or_default().to_string()
}

fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
}

/// Never 100 where something failed.
fn percent(ratio: f64) -> String {
    let shown = if ratio < 1.0 { (ratio * 1e4).floor() / 100.0 } else { 100.0 };
    format!("{shown:.2}")
}

fn millis(value: Option<&Value>) -> String {
    match value.and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
    }
}

fn bytes(count: f64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1000.0 && unit + 1 < units.len() {
        (count, unit) = (count / 1000.0, unit + 1);
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    if count < 10.0 && unit != "B" { format!("{count:.1}{unit}") } else { format!("{count:.0}{unit}") }
}

fn endpoints(cluster: &Value) -> &Value {
    cluster.get("endpoints").unwrap_or(&Value::Null)
}

fn usable(cluster: &Value) -> String {
    format!("{}/{}", whole(endpoints(cluster), "usable"), whole(endpoints(cluster), "all"))
}

/// The caps that are reached.
fn breaker(cluster: &Value) -> String {
    let open = list(cluster, "breaker").filter(|cap| cap.get("open").and_then(Value::as_bool) == Some(true));
    let open: Vec<_> = open.map(|cap| safe(text(cap, "cap"))).collect();
    if open.is_empty() { "-".to_owned() } else { open.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        let edge = |source: &str, rate: f64, success: f64| {
            json!({
                "direction": "inbound", "source": source, "destination": "inbound/in", "route": "reads",
                "rate": rate, "success": success, "p50_ms": 1.25, "p90_ms": 20.0, "p99_ms": 2500.0, "retries": 3,
                "request_bytes": 1_000_000, "response_bytes": 0,
            })
        };
        json!({
            "seconds": 10.0,
            "edges": [
                edge("spiffe://demo.outrider/a/very/long/name/of/a/web", 1.5, 1.0),
                edge("spiffe://demo.outrider/evil\u{1b}[2J", 120.0, 0.99999),
            ],
            "clusters": [{
                "name": "orders", "in_flight": 7, "connections": 2, "retries": 1, "retries_over_budget": 4,
                "endpoints": { "all": 3, "usable": 2, "ejected": 1 },
                "breaker": [{ "cap": "max_requests", "open": true }, { "cap": "max_pending", "open": false }],
            }],
        })
    }

    #[test]
    fn a_table_fits_its_width_and_uses_more() {
        for width in [60, 80, 92, 110, 200] {
            let table = render(&answer(), width, Sort::Rate);
            assert!(table.lines().all(|line| line.chars().count() <= width), "{width}:\n{table}");
            assert_eq!(table.contains("P90"), width >= 92, "{table}");
            assert_eq!(table.contains("100K"), width >= 110, "{table}");
            assert!(table.contains("2/3") && table.contains("max_requests"), "{table}");
        }
    }

    #[test]
    fn rows_are_sorted_as_asked_for_and_no_failure_is_rounded_away() {
        let by_rate = render(&answer(), 80, Sort::Rate);
        let by_name = render(&answer(), 80, Sort::Name);
        let row = |table: &str, at: usize| table.lines().nth(at).unwrap().to_owned();
        assert!(row(&by_rate, 1).contains("evil?[2J") && row(&by_rate, 1).contains(" 99.99"), "{by_rate}");
        assert!(row(&by_rate, 2).contains("~") && row(&by_rate, 2).contains("100.00"), "{by_rate}");
        assert_eq!(row(&by_name, 1), row(&by_rate, 2));
    }
}
