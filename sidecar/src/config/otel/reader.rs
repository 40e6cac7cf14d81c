//! Single variables: a text becomes a value, or a warning that names the variable.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::{
    config::{
        Environment,
        defaults::Key,
        units::Unit,
        url,
        validate::{MAX_ATTRIBUTES, MAX_HEADERS, export_field, is_attribute},
    },
    model::{
        file::quoted,
        telemetry::{Endpoint, ExportProtocol, Propagate},
    },
};

/// Reads variables, and keeps what is to be warned of.
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    pub(super) warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, warnings: Vec::new() }
    }

    fn warn(&mut self, name: &str, problem: &str) {
        let warning = format!("{name} {problem}: it counts as not set");
        // What is for all signals is read once for each.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// What `read` finds in the first of two variables that says something.
    pub(super) fn either<T>(
        &mut self,
        first: &str,
        second: &str,
        read: impl Fn(&mut Self, &str) -> Option<T>,
    ) -> Option<T> {
        read(self, first).or_else(|| read(self, second))
    }

    /// A value, if `parse` understands it; `what` says what it should have been.
    fn value<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.environment.get(name)?;
        let value = parse(text);
        if value.is_none() {
            self.warn(name, &format!("is {}, not {what}", quoted(text)));
        }
        value
    }

    pub(super) fn is_disabled(&mut self) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        self.value("OTEL_SDK_DISABLED", "true or false", parse).unwrap_or(false)
    }

    pub(super) fn exporter(&mut self, name: &str) -> Option<bool> {
        let parse = |text: &str| match text {
            "otlp" => Some(true),
            "none" => Some(false),
            _ => None,
        };
        self.value(name, "otlp or none, which are all there is here", parse)
    }

    pub(super) fn protocol(&mut self, name: &str) -> Option<ExportProtocol> {
        let parse = |text: &str| match text {
            "grpc" => Some(ExportProtocol::Grpc),
            "http/protobuf" => Some(ExportProtocol::HttpProtobuf),
            _ => None,
        };
        self.value(name, "grpc or http/protobuf", parse)
    }

    pub(super) fn compression(&mut self, name: &str) -> Option<bool> {
        let parse = |text: &str| match text {
            "gzip" => Some(true),
            "none" => Some(false),
            _ => None,
        };
        self.value(name, "gzip or none", parse)
    }

    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.value(name, "a path", |text| (!text.contains('\0')).then(|| text.into()))
    }

    /// A number within the range of the key that it stands for.
    pub(super) fn number(&mut self, name: &str, key: &Key<u64>) -> Option<u64> {
        let what = format!("a whole number in {}..={}", key.min, key.max);
        self.value(name, &what, |text| {
            <u64 as Unit>::parse(text).filter(|number| (key.min..=key.max).contains(number))
        })
    }

    /// Milliseconds within the range of the key that they stand for.
    pub(super) fn millis(&mut self, name: &str, key: &Key<Duration>) -> Option<Duration> {
        let what = format!("a number of milliseconds in {}..={}", key.min.as_millis(), key.max.as_millis());
        self.value(name, &what, |text| {
            let time = <u64 as Unit>::parse(text).map(Duration::from_millis);
            time.filter(|time| (key.min..=key.max).contains(time))
        })
    }

    /// An endpoint; it is not repeated in the warning, since it may hold a password.
    pub(super) fn endpoint(&mut self, name: &str) -> Option<Endpoint> {
        match url::endpoint(self.environment.get(name)?) {
            Ok(endpoint) => Some(endpoint),
            Err(problem) => {
                self.warn(name, &format!("is {problem} (write it as http://collector:4318)"));
                None
            }
        }
    }

    /// `name=value,name=value`, values percent-encoded. They are secrets: no warning repeats them.
    pub(super) fn headers(&mut self, name: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let text = self.environment.get(name)?;
        let fields: Option<Vec<_>> = pairs(text)
            .map(|pair| {
                let (name, value) = pair?;
                let mut value = HeaderValue::from_bytes(&percent_decoded(value)?).ok()?;
                value.set_sensitive(true);
                Some((export_field(name)?, value))
            })
            .collect();
        let fields = fields.filter(|fields| fields.len() <= MAX_HEADERS);
        if fields.is_none() {
            self.warn(name, "is not a list of fields that may be sent, as api-key=abc,x-tenant=shop");
        }
        fields
    }

    /// `service.name`, and the other attributes.
    pub(super) fn attributes(&mut self) -> (Option<String>, Vec<(String, String)>) {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(text) = self.environment.get(NAME) else { return (None, Vec::new()) };
        let attributes: Option<Vec<_>> = pairs(text)
            .map(|pair| {
                let (name, value) = pair?;
                let value = String::from_utf8(percent_decoded(value)?).ok()?;
                is_attribute(name, &value).then(|| (name.to_owned(), value))
            })
            .collect();
        let Some(mut attributes) = attributes.filter(|attributes| attributes.len() <= MAX_ATTRIBUTES) else {
            self.warn(NAME, "is not a list of attributes, as deployment.environment.name=prod,team=a");
            return (None, Vec::new());
        };
        let service = attributes.iter().position(|(name, _)| name == "service.name");
        (service.map(|index| attributes.remove(index).1), attributes)
    }

    /// Of `OTEL_TRACES_SAMPLER` and its argument. Every sampler is a parent-based one here: who begins a trace decides.
    pub(super) fn sampled_of_million(&mut self) -> Option<u32> {
        const ALL: u32 = 1_000_000;
        let ratio = self.value("OTEL_TRACES_SAMPLER", "a sampler that is known here", |text| {
            match text.strip_prefix("parentbased_").unwrap_or(text) {
                "always_on" => Some(Some(ALL)),
                "always_off" => Some(Some(0)),
                "traceidratio" => Some(None),
                _ => None,
            }
        })?;
        let Some(fixed) = ratio else {
            const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
            return match self.environment.get(ARGUMENT) {
                None => Some(ALL),
                Some(_) => self.value(ARGUMENT, "a ratio in 0..=1", of_million),
            };
        };
        Some(fixed)
    }

    /// Of `OTEL_PROPAGATORS`, what there is here. Baggage always passes.
    pub(super) fn propagate(&mut self) -> Option<Propagate> {
        const NAME: &str = "OTEL_PROPAGATORS";
        let text = self.environment.get(NAME)?;
        let mut formats = Propagate::default();
        let mut is_none = false;
        for word in text.split(',').map(str::trim) {
            match word {
                "tracecontext" => formats.w3c = true,
                "b3" => formats.b3 = true,
                "b3multi" => formats.b3_multi = true,
                "none" => is_none = true,
                "baggage" => {}
                other => {
                    let problem = format!("has {}, which is not known here", quoted(other));
                    self.warnings.push(format!("{NAME} {problem}: the others count"));
                }
            }
        }
        (is_none || formats != Propagate::default()).then_some(formats)
    }
}

/// `0.25` as parts of a million.
fn of_million(text: &str) -> Option<u32> {
    let ratio: f64 = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    let parts = (ratio * 1_000_000.0).round() as u32;
    Some(parts)
}

/// `name=value,name=value`; `None` for what is no pair. Empty members are left out.
fn pairs(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

/// Percent-decoded; `None` if an escape is none.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).ok()?);
    }
    Some(decoded)
}
