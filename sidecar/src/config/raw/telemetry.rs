//! `telemetry` as it stands in the file.

use serde_saphyr::Spanned;

use super::Texts;
use crate::model::file::section;

section! {
    pub(in crate::config) struct Telemetry {
        traces: Traces,
        metrics: Metrics,
        access_log: AccessLog,
        attributes: Vec<Spanned<Attribute>>,
    }
}

section! {
    pub(in crate::config) struct Traces {
        endpoint: String,
        protocol: String,
        headers: Vec<Spanned<ExportHeader>>,
        compression: String,
        roots: String,
        certificate: String,
        key: String,
        timeout: String,
        sample_percent: String,
        errors_per_second: String,
        propagate: Texts,
        queue: String,
        batch: String,
        interval: String,
    }
}

section! {
    pub(in crate::config) struct Metrics {
        endpoint: String,
        protocol: String,
        headers: Vec<Spanned<ExportHeader>>,
        compression: String,
        roots: String,
        certificate: String,
        key: String,
        timeout: String,
        interval: String,
    }
}

section! {
    pub(in crate::config) struct ExportHeader {
        name: String,
        value: String,
        value_file: String,
    }
}

section! {
    pub(in crate::config) struct AccessLog {
        of: String,
        sample_percent: String,
        path: String,
        format: String,
        template: String,
        request_headers: Texts,
        response_headers: Texts,
    }
}

section! {
    pub(in crate::config) struct Attribute {
        name: String,
        value: String,
    }
}
