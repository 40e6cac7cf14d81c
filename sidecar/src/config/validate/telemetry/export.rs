//! How a collector is reached: what `telemetry.traces` and `telemetry.metrics` have in common.

use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use serde_saphyr::Spanned;

use crate::{
    config::{
        defaults::telemetry as defaults,
        otel::{Named, Signal},
        raw, url,
        value::{Text, choice, path, quantity},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        telemetry::{Endpoint, Export, ExportProtocol, FieldValue},
    },
};

/// Fields of every message.
pub(in crate::config) const MAX_HEADERS: usize = 32;
/// Bytes of a field's value.
const MAX_VALUE_BYTES: usize = 8192;
/// Fields that are the transport's own, or of one connection.
const OWN_FIELDS: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The keys of one signal that say how its collector is reached.
pub(super) struct Common<'a> {
    pub(super) endpoint: Text<'a>,
    pub(super) protocol: Text<'a>,
    pub(super) headers: Option<&'a Spanned<Vec<Spanned<raw::ExportHeader>>>>,
    pub(super) compression: Text<'a>,
    pub(super) roots: Text<'a>,
    pub(super) certificate: Text<'a>,
    pub(super) key: Text<'a>,
    pub(super) timeout: Text<'a>,
    /// Where HTTP posts to if the endpoint has no path.
    pub(super) path: &'a str,
}

/// What signals share.
pub(super) struct Surroundings<'a> {
    /// Where relative paths start.
    pub(super) folder: &'a Path,
    /// `service.name`.
    pub(super) service: &'a str,
    /// Of the resource.
    pub(super) attributes: &'a [(String, String)],
}

/// `None` if the file's endpoint cannot be used; there is a fault then.
pub(super) fn export(
    raw: &Common<'_>,
    variables: &Signal,
    surroundings: &Surroundings<'_>,
    place: &Place,
    (faults, warnings): (&mut Faults, &mut Vec<String>),
) -> Option<Export> {
    let protocol = protocol(raw, variables, place, faults);
    let endpoint = endpoint(raw, variables, protocol, place, (&mut *faults, warnings))?;
    let mut file =
        |text: Text<'_>, key| text.map(|text| path(text, surroundings.folder, &place.key(key), faults));
    let roots = file(raw.roots, "roots");
    let certificate = file(raw.certificate, "certificate");
    let key = file(raw.key, "key");
    let is_own = roots.is_some() || certificate.is_some() || key.is_some();
    if is_own && !endpoint.is_tls {
        for (text, key) in [(raw.roots, "roots"), (raw.certificate, "certificate"), (raw.key, "key")] {
            if let Some(text) = text {
                let remedy = "leave it out, or give an endpoint with https://";
                faults.add(&place.key(key).at(text), "is for https:// only", remedy);
            }
        }
    }
    // A file's certificate is never paired with a variable's key.
    let has_own_client = certificate.is_some() || key.is_some();
    let client = if has_own_client {
        both(certificate, key, place, faults)
    } else {
        variables.certificate.clone().zip(variables.key.clone())
    };
    let mut compression = defaults::COMPRESSION;
    if variables.is_compressed == Some(true) {
        compression.default = ("gzip", true);
    }
    let timeout = defaults::TIMEOUT.or(variables.timeout.or(defaults::TIMEOUT.default));
    Some(Export {
        roots: roots.or_else(|| variables.roots.clone()).filter(|_| endpoint.is_tls),
        certificate: client.filter(|_| endpoint.is_tls),
        endpoint,
        protocol,
        headers: headers(raw, variables, surroundings.folder, place, faults),
        is_compressed: choice(raw.compression, &compression, place, faults),
        timeout: quantity(raw.timeout, &timeout, place, faults),
        attributes: surroundings.attributes.to_vec(),
        service: surroundings.service.to_owned(),
    })
}

/// The file's, a variable's, or the default: which one depends on who names the endpoint.
fn protocol(raw: &Common<'_>, variables: &Signal, place: &Place, faults: &mut Faults) -> ExportProtocol {
    if raw.protocol.is_some() {
        return choice(raw.protocol, &defaults::PROTOCOL, place, faults);
    }
    let of_variables = raw.endpoint.is_none() && variables.is_on();
    let default = if of_variables { ExportProtocol::HttpProtobuf } else { defaults::PROTOCOL.default.1 };
    variables.protocol.unwrap_or(default)
}

/// A variable's endpoint that the protocol has no use for counts as not set.
fn endpoint(
    raw: &Common<'_>,
    variables: &Signal,
    protocol: ExportProtocol,
    place: &Place,
    (faults, warnings): (&mut Faults, &mut Vec<String>),
) -> Option<Endpoint> {
    if let Some(text) = raw.endpoint {
        let found = url::endpoint(&text.value);
        return match found.and_then(|endpoint| url::of_signal(endpoint, protocol, raw.path)) {
            Ok(endpoint) => Some(endpoint),
            Err(problem) => {
                let remedy =
                    "write it as http://collector:4317 (grpc) or https://collector:4318/v1/traces (http)";
                faults.add(&place.key("endpoint").at(text), format!("is {problem}"), remedy);
                None
            }
        };
    }
    let default = match protocol {
        ExportProtocol::Grpc => defaults::GRPC_ENDPOINT,
        ExportProtocol::HttpProtobuf => defaults::HTTP_ENDPOINT,
    };
    let found = match variables.endpoint.clone() {
        Some(Named::All(endpoint)) => return Some(url::of_all(endpoint, protocol, raw.path)),
        // Where there is no path, it is the root: OpenTelemetry, OTLP Exporter Configuration.
        Some(Named::Own(endpoint)) => url::of_signal(endpoint, protocol, "/"),
        None => url::endpoint(default).and_then(|endpoint| url::of_signal(endpoint, protocol, raw.path)),
    };
    found
        .inspect_err(|problem| {
            let place = place.path();
            warnings.push(format!(
                "the variable that names the endpoint of {place} has {problem}: nothing is sent"
            ));
        })
        .ok()
}

/// Certificate and key, both or neither.
fn both(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    place: &Place,
    faults: &mut Faults,
) -> Option<(PathBuf, PathBuf)> {
    if certificate.is_none() {
        faults.add(&place.key("certificate"), "is missing", "name the PEM file with leaf and intermediates");
    }
    if key.is_none() {
        faults.add(&place.key("key"), "is missing", "name the PEM file with the certificate's key (PKCS#8)");
    }
    certificate.zip(key)
}

/// The file's fields, then those of variables that the file does not have.
fn headers(
    raw: &Common<'_>,
    variables: &Signal,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Vec<(HeaderName, FieldValue)> {
    let mut fields: Vec<(HeaderName, FieldValue)> = Vec::new();
    if let Some(list) = raw.headers {
        let place = place.key("headers").at(list);
        if list.value.len() > MAX_HEADERS {
            faults.add(&place, format!("has {} items", list.value.len()), format!("keep to {MAX_HEADERS}"));
            return fields;
        }
        for (index, item) in list.value.iter().enumerate() {
            let place = place.item(index).at(item);
            let Some(field) = header(&item.value, folder, &place, faults) else { continue };
            if fields.iter().any(|(before, _)| *before == field.0) {
                faults.add(&place, format!("{} stands here twice", field.0), "list each once");
            }
            fields.push(field);
        }
    }
    for (name, value) in &variables.headers {
        if fields.len() < MAX_HEADERS && !fields.iter().any(|(before, _)| before == name) {
            fields.push((name.clone(), FieldValue::Given(value.clone())));
        }
    }
    fields
}

/// A field that a message may have besides its transport's own.
pub(in crate::config) fn export_field(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let text = name.as_str();
    // gRPC's own, and its binary ones, which are written otherwise than they read.
    let is_grpc = text.starts_with("grpc-") || text.ends_with("-bin");
    (!is_grpc && !OWN_FIELDS.contains(&text) && text.len() <= 128).then_some(name)
}

/// No message repeats the value: it may be a secret.
fn header(
    raw: &raw::ExportHeader,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<(HeaderName, FieldValue)> {
    report_odd_keys(&raw.odd_keys, raw::ExportHeader::KEYS, place, faults);
    let name = match &raw.name {
        Some(text) => {
            let name = export_field(&text.value);
            if name.is_none() {
                let problem = format!("{} is not a field that may be added", quoted(&text.value));
                let remedy = "name one as authorization or x-api-key; not one of the transport's own, nor grpc-… or …-bin";
                faults.add(&place.key("name").at(text), problem, remedy);
            }
            name
        }
        None => {
            faults.add(&place.key("name"), "is missing", "name the field");
            None
        }
    };
    let value = match (&raw.value, &raw.value_file) {
        (Some(text), None) => {
            let value = HeaderValue::from_str(&text.value).ok();
            let value = value.filter(|value| !value.is_empty() && value.len() <= MAX_VALUE_BYTES);
            if value.is_none() {
                let remedy = "use 1 to 8192 printable characters";
                faults.add(&place.key("value").at(text), "is not the value of a field", remedy);
            }
            value.map(|mut value| {
                value.set_sensitive(true);
                FieldValue::Given(value)
            })
        }
        (None, Some(text)) => Some(FieldValue::File(path(text, folder, &place.key("value_file"), faults))),
        (Some(_), Some(text)) => {
            faults.add(&place.key("value_file").at(text), "stands beside value", "keep one of them");
            None
        }
        (None, None) => {
            faults.add(&place.key("value"), "is missing", "give value, or value_file for a secret");
            None
        }
    };
    Some((name?, value?))
}
