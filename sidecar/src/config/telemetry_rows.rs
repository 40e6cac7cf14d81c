//! The keys of `telemetry`, as `docs/config.md` shows them.

use super::{
    defaults::telemetry::*, // every key that has a default: the file is about them
    row::{Row, plain},
};

pub(super) fn telemetry_rows() -> Vec<Row> {
    let sections = vec![
        plain("telemetry", "traces", "section", ""),
        plain("telemetry", "metrics", "section", ""),
        plain("telemetry", "access_log", "section", ""),
        plain("telemetry", "attributes", "list of sections", ""),
        plain("telemetry.attributes[]", "name", "name of an attribute", "required"),
        plain("telemetry.attributes[]", "value", "text", "required"),
    ];
    let of_traces = [export_rows("telemetry.traces", "telemetry.traces.headers[]"), trace_rows()];
    let mut of_metrics = export_rows("telemetry.metrics", "telemetry.metrics.headers[]");
    of_metrics.push(METRIC_INTERVAL.row("telemetry.metrics"));
    [sections, of_traces.concat(), of_metrics, access_log_rows()].concat()
}

fn export_rows(section: &'static str, headers: &'static str) -> Vec<Row> {
    vec![
        plain(section, "endpoint", "URL", GRPC_ENDPOINT),
        PROTOCOL.row(section),
        plain(section, "headers", "list of sections", ""),
        COMPRESSION.row(section),
        plain(section, "roots", "path", "the operating system's"),
        plain(section, "certificate", "path", ""),
        plain(section, "key", "path", ""),
        TIMEOUT.row(section),
        plain(headers, "name", "name of a field", "required"),
        plain(headers, "value", "value of a field", ""),
        plain(headers, "value_file", "path", ""),
    ]
}

fn trace_rows() -> Vec<Row> {
    let section = "telemetry.traces";
    let words: Vec<&str> = PROPAGATE.iter().map(|(word, _)| *word).collect();
    vec![
        SAMPLE_PERCENT.row(section),
        ERRORS_PER_SECOND.row(section),
        plain(section, "propagate", &format!("list of {}", words.join(", ")), PROPAGATED_WORDS),
        QUEUE.row(section),
        BATCH.row(section),
        INTERVAL.row(section),
    ]
}

fn access_log_rows() -> Vec<Row> {
    let section = "telemetry.access_log";
    vec![
        LOGGED.row(section),
        LOGGED_PERCENT.row(section),
        plain(section, "path", "path", "standard output"),
        LOG_FORMAT.row(section),
        plain(section, "template", "text", ""),
        plain(section, "request_headers", "list of names of fields", ""),
        plain(section, "response_headers", "list of names of fields", ""),
    ]
}
