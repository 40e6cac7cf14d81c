//! `telemetry` in `/config`: where things go. Of the fields of messages only the names are shown: values may be secrets.

use serde_json::{Value, json};

use super::config::duration;
use crate::model::telemetry::{
    AccessLogSettings, Export, ExportProtocol, LogFormat, Logged, MetricExport, TelemetrySettings,
    TraceSettings,
};

/// The section, defaults and variables filled in.
pub(super) fn telemetry(settings: &TelemetrySettings) -> Value {
    let TelemetrySettings { traces: of_traces, metrics: of_metrics, access_log: log, warnings } = settings;
    json!({
        "traces": of_traces.as_deref().map(traces),
        "metrics": of_metrics.as_deref().map(metrics),
        "access_log": log.as_deref().map(access_log),
        "warnings": warnings,
    })
}

fn traces(settings: &TraceSettings) -> Value {
    let propagate = settings.propagate;
    let formats = [(propagate.w3c, "tracecontext"), (propagate.b3, "b3"), (propagate.b3_multi, "b3multi")];
    let formats = formats.into_iter().filter(|(is_written, _)| *is_written).map(|(_, name)| name);
    json!({
        "export": export(&settings.export),
        "sample_percent": f64::from(settings.sampled_of_million) / 10_000.0,
        "errors_per_second": settings.errors_per_second,
        "propagate": formats.collect::<Vec<_>>(),
        "queue": settings.queue,
        "batch": settings.batch,
        "interval": duration(settings.interval),
    })
}

fn metrics(settings: &MetricExport) -> Value {
    json!({ "export": export(&settings.export), "interval": duration(settings.interval) })
}

fn export(export: &Export) -> Value {
    let attributes = export.attributes.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    json!({
        "endpoint": export.endpoint.to_string(),
        "protocol": match export.protocol {
            ExportProtocol::Grpc => "grpc",
            ExportProtocol::HttpProtobuf => "http",
        },
        "headers": export.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "compression": if export.is_compressed { "gzip" } else { "none" },
        "roots": export.roots,
        "certificate": export.certificate.as_ref().map(|(certificate, _)| certificate),
        "key": export.certificate.as_ref().map(|(_, key)| key),
        "timeout": duration(export.timeout),
        "service": export.service,
        "attributes": attributes.collect::<Vec<_>>(),
    })
}

fn access_log(settings: &AccessLogSettings) -> Value {
    let names = |names: &[http::HeaderName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "of": match settings.of {
            Logged::All => "all",
            Logged::Errors => "errors",
        },
        "sample_percent": f64::from(settings.sampled_of_million) / 10_000.0,
        "path": settings.path,
        "format": match settings.format {
            LogFormat::Json => "json",
            LogFormat::Template(_) => "template",
        },
        "template": match &settings.format {
            LogFormat::Json => None,
            LogFormat::Template(text) => Some(text),
        },
        "request_headers": names(&settings.request_headers),
        "response_headers": names(&settings.response_headers),
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::model::telemetry::{Endpoint, FieldValue};

    #[test]
    fn the_values_of_fields_are_not_shown() {
        let mut value = HeaderValue::from_static("hunter2");
        value.set_sensitive(true);
        let export = Export {
            endpoint: Endpoint { is_tls: true, host: "c".into(), port: 1, path: "/x".into() },
            protocol: ExportProtocol::HttpProtobuf,
            headers: vec![(HeaderName::from_static("x-api-key"), FieldValue::Given(value))],
            is_compressed: false,
            roots: None,
            certificate: None,
            timeout: Duration::from_secs(1),
            attributes: Vec::new(),
            service: "shop".into(),
        };
        let metrics = Some(Arc::new(MetricExport { export, interval: Duration::from_secs(1) }));
        let settings = TelemetrySettings { metrics, ..TelemetrySettings::default() };
        let shown = telemetry(&settings).to_string();
        assert!(shown.contains("x-api-key") && shown.contains("https://c:1/x"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }
}
