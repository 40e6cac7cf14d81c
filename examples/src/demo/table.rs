//! The report as a table for people.

use std::{fmt::Write as _, net::SocketAddr};

use super::{
    illness::Ejection,
    intruders::Attempt,
    load::Failure,
    plan::{Plan, Service},
    progress::millis,
    report::{Hop, Report},
    traces::Call,
};
use crate::otlp::waterfall;

/// Columns of a table; the first is the widest.
pub type Row = Vec<String>;

/// The whole report as text; drawings are `width` columns wide.
#[must_use]
pub fn render(report: &Report, plan: &Plan, width: usize) -> String {
    let mut text = String::new();
    section(&mut text, "Requests", &requests(report));
    section(&mut text, "Who talked to whom", &identities(report));
    section(&mut text, "Endpoints", &endpoints(report, plan));
    section(&mut text, "Intruders at the sidecar of orders", &intruders(report));
    let _infallible = writeln!(text, "  Refused connections, as it counted them: {}", refused(report));
    if let Some(calls) = &report.calls {
        drawing(&mut text, "One call, hop by hop", calls.typical.as_ref(), width);
        drawing(&mut text, "One with an attempt that was repeated", calls.repeated.as_ref(), width);
    }
    text.push('\n');
    match report.passed {
        true => text.push_str(
            "PASSED: no request failed, every hop was mutual TLS, no intruder got in, a call is one trace.\n",
        ),
        false => {
            text.push_str("FAILED:\n");
            for fault in &report.faults {
                let _infallible = writeln!(text, "  - {fault}");
            }
            for Failure { first_at_s, count, what } in &report.failure_kinds {
                let _infallible = writeln!(text, "      {count} from {first_at_s:.2} s on: {what}");
            }
        }
    }
    text
}

fn requests(report: &Report) -> Vec<Row> {
    let mut rows = vec![row(["", "requests", "failed", "retries", "p50 ms", "p99 ms"])];
    rows.push(vec![
        "client -> web (no mesh)".to_owned(),
        report.requests.to_string(),
        report.failures.to_string(),
        "-".to_owned(),
        millis(report.p50_ms),
        millis(report.p99_ms),
    ]);
    rows.extend(report.hops.iter().map(|hop| {
        vec![
            name(hop),
            hop.requests.to_string(),
            hop.failures.to_string(),
            hop.retries.to_string(),
            millis(hop.p50_ms),
            millis(hop.p99_ms),
        ]
    }));
    rows
}

fn identities(report: &Report) -> Vec<Row> {
    let mut rows = vec![row(["", "caller", "called", "TLS", "key exchange", "cipher suite"])];
    rows.extend(report.hops.iter().map(|hop| {
        let said = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "none".to_owned());
        vec![
            name(hop),
            said(&hop.caller_spiffe_id),
            said(&hop.peer_spiffe_id),
            said(&hop.tls_version),
            said(&hop.key_exchange),
            said(&hop.cipher_suite),
        ]
    }));
    rows
}

fn endpoints(report: &Report, plan: &Plan) -> Vec<Row> {
    let mut rows = vec![row(["", "address", "picked", "failed", ""])];
    for endpoint in report.hops.iter().flat_map(|hop| &hop.endpoints) {
        let workload = plan.workloads.iter().find(|workload| workload.inbound == endpoint.address);
        let ejection = report.ejection.filter(|ejection| ejection.address == endpoint.address);
        let fate = match ejection {
            Some(Ejection { ejected_after_s, back_after_s, .. }) => {
                format!("ill: ejected after {ejected_after_s:.1} s, back after {back_after_s:.1} s")
            }
            None => fate(report, endpoint.address).to_owned(),
        };
        rows.push(vec![
            workload.map_or_else(String::new, |workload| workload.name.clone()),
            endpoint.address.to_string(),
            endpoint.picks.to_string(),
            endpoint.failures.to_string(),
            fate,
        ]);
    }
    rows
}

/// What was done to an endpoint.
fn fate(report: &Report, address: SocketAddr) -> &'static str {
    match address {
        killed if report.killed_endpoint == Some(killed) => "killed",
        replaced if report.restarted_endpoint == Some(replaced) => "sidecar replaced",
        _ => "",
    }
}

fn intruders(report: &Report) -> Vec<Row> {
    let mut rows = vec![row(["", "result", ""])];
    rows.extend(report.intruders.iter().chain(&report.control).map(|attempt| {
        let Attempt { kind, accepted, answer, is_control } = attempt;
        let result = if *accepted { "let in" } else { "refused" };
        let kind = if *is_control { "(right certificate)" } else { kind };
        vec![kind.replace('_', " "), result.to_owned(), answer.clone()]
    }));
    rows
}

/// A heading and a call.
fn drawing(text: &mut String, heading: &str, call: Option<&Call>, width: usize) {
    let Some(call) = call else { return };
    let _infallible = writeln!(text, "\n{heading}");
    for line in waterfall::draw(&call.spans, width - 2) {
        let _infallible = writeln!(text, "{}", format!("  {line}").trim_end());
    }
}

/// What the sidecar that the intruders tried counted.
fn refused(report: &Report) -> String {
    let attacked = report.hops.iter().find(|hop| hop.to == Service::Orders.name());
    let counts = attacked.into_iter().flat_map(|hop| &hop.refused);
    let counts: Vec<_> = counts.map(|(reason, count)| format!("{count} {reason}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn name(hop: &Hop) -> String {
    format!("{} -> {}", hop.from, hop.to)
}

fn row<const N: usize>(cells: [&str; N]) -> Row {
    cells.map(str::to_owned).into()
}

/// A heading and its rows, each column as wide as its widest cell; columns of numbers to the right.
pub fn section(text: &mut String, heading: &str, rows: &[Row]) {
    let _infallible = writeln!(text, "\n{heading}");
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
        .collect();
    let numeric: Vec<_> = (0..columns)
        .map(|column| rows.iter().skip(1).filter_map(|row| row.get(column)).all(|cell| is_number(cell)))
        .collect();
    for row in rows {
        let mut line = String::from("  ");
        for ((cell, width), is_numeric) in row.iter().zip(&widths).zip(&numeric) {
            let width = width.unwrap_or_default();
            let _infallible = match is_numeric {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut text = String::new();
        section(
            &mut text,
            "T",
            &[row(["", "n", "x"]), row(["long name", "7", "y"]), row(["b", "1234", "z"])],
        );
        assert_eq!(text, "\nT\n                n  x\n  long name     7  y\n  b          1234  z\n");
    }
}
