//! The report as a table: for the terminal, and for the documentation.

use std::fmt::Write as _;

use super::report::{Report, Run};
use crate::demo::{progress::millis, table};

const HEADS: [&str; 13] = [
    "what is done",
    "sidecars",
    "requests",
    "failed",
    "extra load %",
    "p50 before",
    "during",
    "after",
    "p99 before",
    "during",
    "after",
    "recovered s",
    "disturbed s",
];

/// For the terminal.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    rows.extend(report.runs.iter().map(|run| cells(run).to_vec()));
    let mut text = String::new();
    table::section(&mut text, "What it cost (latency in ms)", &rows);
    for skipped in &report.skipped {
        let _infallible = writeln!(text, "  SKIPPED {}: {}", skipped.scenario, skipped.why);
    }
    for run in report.runs.iter().filter(|run| run.cost.failed > 0) {
        let _infallible = writeln!(text, "\n  What failed: {}, {}", run.scenario, run.proxy.name());
        for failure in &run.cost.failures {
            let (count, at, what) = (failure.count, failure.first_at_s, &failure.what);
            let _infallible = writeln!(text, "    {count} from {at:.1} s on: {what}");
        }
    }
    text.push('\n');
    match report.broken.as_slice() {
        [] => text.push_str("Outrider kept its promises in every scenario that was run behind it.\n"),
        broken => {
            text.push_str("NOT KEPT:\n");
            for what in broken {
                let _infallible = writeln!(text, "  - {what}");
            }
        }
    }
    text
}

/// For the documentation, in Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = format!("`{}`\n\n| {} |\n|---|---|", report.command, HEADS.join(" | "));
    text.push_str(&"--:|".repeat(HEADS.len() - 2));
    text.push('\n');
    for run in &report.runs {
        let _infallible = writeln!(text, "| {} |", cells(run).join(" | "));
    }
    for skipped in &report.skipped {
        let _infallible = write!(text, "\nNot run: `{}`, {}.", skipped.scenario, skipped.why);
    }
    text
}

fn cells(run: &Run) -> [String; 13] {
    let cost = &run.cost;
    [
        run.title.to_owned(),
        run.proxy.name().to_owned(),
        cost.requests.to_string(),
        cost.failed.to_string(),
        format!("{:.1}", cost.extra_load_percent),
        millis(cost.before.p50_ms),
        millis(cost.during.p50_ms),
        millis(cost.after.p50_ms),
        millis(cost.before.p99_ms),
        millis(cost.during.p99_ms),
        millis(cost.after.p99_ms),
        cost.recovered_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1}")),
        format!("{:.1}", cost.disturbed_s),
    ]
}
