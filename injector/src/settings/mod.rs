//! What a pod's annotations say about its sidecar, typed; or everything that is wrong with them.
//!
//! # Invariants
//! - An annotation of ours that is not known is a fault, as an unknown key of the configuration file is: a slip of the
//!   pen never means the default.
//! - A text that cannot be read is a fault; the reason names the annotation and what is allowed there.

mod keys;
mod values;

use std::{collections::BTreeMap, time::Duration};

use self::{
    keys::{
        ACCESS_LOG, APP_PROTOCOLS, CPU_LIMIT, CPU_REQUEST, DRAIN_TIME, IMAGE, IMAGE_PULL_POLICY,
        INBOUND_EXCEPT_CIDRS, INBOUND_EXCEPT_PORTS, INIT_IMAGE, LOG_FORMAT, LOG_LEVEL, MEMORY_LIMIT,
        MEMORY_REQUEST, METRICS_ENDPOINT, OTLP_PROTOCOL, OUTBOUND_EXCEPT_CIDRS, OUTBOUND_EXCEPT_PORTS,
        OUTBOUND_UNKNOWN, PLAINTEXT_FROM, PLAINTEXT_PORTS, PLAINTEXT_UNTIL, PROBES, PROTOCOLS, SERVICE,
        TRACE_SAMPLE_PERCENT, TRACES_ENDPOINT, UID,
    },
    values::Parsed,
};
pub use self::{
    keys::{KEYS, Key},
    values::Quantity,
};
use crate::{
    denial::{Denial, Faults},
    installation::Installation,
    names::{self, CONFIG, INJECTED, PREFIX},
};

/// A pod's settings, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The service's name, if the pod gives one.
    pub service: Option<String>,
    /// What is left alone of what comes in.
    pub inbound_except: Except,
    /// What is left alone of what leaves.
    pub outbound_except: Except,
    /// What becomes of destinations that nobody knows: `passthrough` or `deny`.
    pub outbound_unknown: &'static str,
    /// What ports carry.
    pub protocols: BTreeMap<u16, &'static str>,
    /// Which version of HTTP the app speaks at a port.
    pub app_protocols: BTreeMap<u16, &'static str>,
    /// Who may come in without TLS, where, and until when.
    pub plaintext: Option<Plaintext>,
    /// Whether probes go by the sidecar.
    pub are_probes_rewritten: bool,
    /// How long what is under way may take when the pod ends.
    pub drain_time: Duration,
    /// What the sidecar logs.
    pub log_level: String,
    /// How it logs.
    pub log_format: &'static str,
    /// What it tells of requests, and where to.
    pub telemetry: Telemetry,
    /// What it asks for and may use.
    pub resources: Resources,
    /// Its user and group.
    pub uid: u32,
    /// Its image.
    pub image: String,
    /// The init container's image.
    pub init_image: String,
    /// When images are pulled; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<&'static str>,
}

/// What is not redirected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Except {
    /// Ports.
    pub ports: Vec<u16>,
    /// Addresses and ranges, as they were written.
    pub cidrs: Vec<String>,
}

/// An exception from mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plaintext {
    /// For these ports.
    pub ports: Vec<u16>,
    /// Until this day.
    pub until: String,
    /// From these addresses; empty: from any.
    pub from: Vec<String>,
}

/// What is told of requests, and where to; `None` where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// The collector of spans.
    pub traces: Option<String>,
    /// The collector of metrics.
    pub metrics: Option<String>,
    /// What both speak: `grpc` or `http`.
    pub protocol: &'static str,
    /// So many of a thousand traces that begin here are sampled: 0 to 1000.
    pub sample_permille: u16,
    /// Which requests are logged: `errors` or `all`.
    pub access_log: Option<&'static str>,
}

/// Requests and limits; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPU asked for.
    pub cpu_request: Option<Quantity>,
    /// CPU that may be used.
    pub cpu_limit: Option<Quantity>,
    /// Memory asked for.
    pub memory_request: Option<Quantity>,
    /// Memory that may be used.
    pub memory_limit: Option<Quantity>,
}

/// Checks that an annotation of ours is one that pods may have.
///
/// # Errors
/// It is not; the reason lists those that are.
pub fn known(name: &str) -> Result<(), Denial> {
    if KEYS.iter().any(|key| key.name == name) {
        return Ok(());
    }
    let all: Vec<&str> = KEYS.iter().filter_map(|key| key.name.strip_prefix(PREFIX)).collect();
    let remedy = format!("known are, behind {PREFIX}: {}", all.join(", "));
    Err(Denial::of(&format!("annotation {}", crate::denial::quoted(name)), "is not known", &remedy))
}

impl Settings {
    /// Reads the annotations of a pod; others than ours are skipped.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(annotations: &BTreeMap<&str, &str>, installation: &Installation) -> Result<Self, Denial> {
        let mut reader = Reader { annotations, installation, faults: Faults::default() };
        reader.refuse_unknown();
        let settings = reader.settings();
        reader.check(&settings);
        reader.faults.into_result()?;
        Ok(settings)
    }
}

/// Reads one annotation after the other and collects what is wrong.
struct Reader<'a> {
    annotations: &'a BTreeMap<&'a str, &'a str>,
    installation: &'a Installation,
    faults: Faults,
}

impl<'a> Reader<'a> {
    fn refuse_unknown(&mut self) {
        for name in self.annotations.keys().filter(|name| name.starts_with(PREFIX)) {
            // What injection itself writes is looked at elsewhere.
            if [CONFIG, INJECTED].contains(name) {
                continue;
            }
            if let Err(denial) = known(name) {
                self.faults.take(denial);
            } else if self.installation.forbids(name) {
                let remedy = "take it out, or ask who runs the mesh (--forbid-annotation of its injector)";
                self.faults.add(&format!("annotation {name}"), "is forbidden in this cluster", remedy);
            }
        }
    }

    /// The annotation's text, or the installation's default for it.
    fn text(&self, key: &Key) -> Option<&'a str> {
        self.annotations.get(key.name).copied().or_else(|| self.installation.default_of(key.name))
    }

    /// The value, if there is a text and it makes sense.
    fn optional<T>(&mut self, key: &Key, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        match parse(self.text(key)?.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                let allowed = if key.range.is_empty() {
                    format!("allowed: {}", key.kind)
                } else {
                    format!("allowed: {}, {}", key.kind, key.range)
                };
                self.faults.add(&format!("annotation {}", key.name), problem, allowed.replace('`', ""));
                None
            }
        }
    }

    /// The value, or that of the documented default.
    fn required<T>(&mut self, key: &Key, parse: impl Fn(&str) -> Parsed<T>) -> T {
        let found = self.optional(key, &parse);
        found.unwrap_or_else(|| parse(key.default).expect("the documented default can be read"))
    }

    fn settings(&mut self) -> Settings {
        let hour = Duration::from_secs(3600);
        Settings {
            service: self.optional(&SERVICE, values::name),
            inbound_except: Except {
                ports: self.optional(&INBOUND_EXCEPT_PORTS, values::app_ports).unwrap_or_default(),
                cidrs: self.optional(&INBOUND_EXCEPT_CIDRS, values::callers).unwrap_or_default(),
            },
            outbound_except: Except {
                ports: self.optional(&OUTBOUND_EXCEPT_PORTS, values::ports).unwrap_or_default(),
                cidrs: self.optional(&OUTBOUND_EXCEPT_CIDRS, values::cidrs).unwrap_or_default(),
            },
            outbound_unknown: self.required(&OUTBOUND_UNKNOWN, values::word(&["passthrough", "deny"])),
            protocols: self
                .optional(&PROTOCOLS, values::by_port(&["detect", "http", "tcp"]))
                .unwrap_or_default(),
            app_protocols: self
                .optional(&APP_PROTOCOLS, values::by_port(&["auto", "http1", "http2"]))
                .unwrap_or_default(),
            plaintext: self.plaintext(),
            are_probes_rewritten: self.required(&PROBES, values::word(&["rewrite", "keep"])) == "rewrite",
            drain_time: self.required(&DRAIN_TIME, values::duration(Duration::from_secs(1), hour)),
            log_level: self.required(&LOG_LEVEL, values::log_filter),
            log_format: self.required(&LOG_FORMAT, values::word(&["json", "text"])),
            telemetry: self.telemetry(),
            resources: Resources {
                cpu_request: self.required(&CPU_REQUEST, values::quantity("1m", "64")),
                cpu_limit: self.required(&CPU_LIMIT, values::quantity("1m", "64")),
                memory_request: self.required(&MEMORY_REQUEST, values::quantity("16Mi", "1Ti")),
                memory_limit: self.required(&MEMORY_LIMIT, values::quantity("40Mi", "1Ti")),
            },
            uid: self.optional(&UID, values::uid).unwrap_or(names::UID),
            image: self.optional(&IMAGE, values::image).unwrap_or_else(|| self.installation.image.clone()),
            init_image: self
                .optional(&INIT_IMAGE, values::image)
                .unwrap_or_else(|| self.installation.init_image.clone()),
            image_pull_policy: self
                .optional(&IMAGE_PULL_POLICY, values::word(&["Always", "IfNotPresent", "Never"])),
        }
    }

    fn plaintext(&mut self) -> Option<Plaintext> {
        let ports = self.optional(&PLAINTEXT_PORTS, values::app_ports);
        let until = self.optional(&PLAINTEXT_UNTIL, values::date);
        let from = self.optional(&PLAINTEXT_FROM, values::cidrs);
        let has = |key: &Key| self.text(key).is_some();
        let (has_ports, has_until, has_from) =
            (has(&PLAINTEXT_PORTS), has(&PLAINTEXT_UNTIL), has(&PLAINTEXT_FROM));
        if has_ports && !has_until {
            let place = format!("annotation {}", PLAINTEXT_PORTS.name);
            let remedy = format!("say in {} on which day it ends, such as 2027-03-31", PLAINTEXT_UNTIL.name);
            self.faults.add(&place, "is an exception without an end", remedy);
        }
        if !has_ports && (has_until || has_from) {
            let given = if has_until { PLAINTEXT_UNTIL.name } else { PLAINTEXT_FROM.name };
            let remedy = format!("name the ports in {}, or leave it out", PLAINTEXT_PORTS.name);
            self.faults.add(&format!("annotation {given}"), "has no meaning alone", remedy);
        }
        Some(Plaintext { ports: ports?, until: until?, from: from.unwrap_or_default() })
    }

    fn telemetry(&mut self) -> Telemetry {
        let telemetry = Telemetry {
            traces: self.required(&TRACES_ENDPOINT, values::endpoint),
            metrics: self.required(&METRICS_ENDPOINT, values::endpoint),
            protocol: self.required(&OTLP_PROTOCOL, values::word(&["grpc", "http"])),
            sample_permille: self.required(&TRACE_SAMPLE_PERCENT, values::percent),
            access_log: self.required(&ACCESS_LOG, |text| {
                values::word(&["none", "errors", "all"])(text).map(|word| Some(word).filter(|w| *w != "none"))
            }),
        };
        for (key, endpoint) in
            [(&TRACES_ENDPOINT, &telemetry.traces), (&METRICS_ENDPOINT, &telemetry.metrics)]
        {
            let place = format!("annotation {}", key.name);
            if telemetry.protocol == "grpc" && endpoint.as_ref().is_some_and(|url| values::has_path(url)) {
                let remedy = format!("leave the path out, or say {}: http", OTLP_PROTOCOL.name);
                self.faults.add(&place, "has a path, which gRPC has no use for", remedy);
            }
        }
        telemetry
    }

    /// Notes what makes sense alone and not together.
    fn check(&mut self, settings: &Settings) {
        let plaintext = settings.plaintext.iter().flat_map(|plaintext| &plaintext.ports);
        let with_rules = [
            (PROTOCOLS.name, settings.protocols.keys().copied().collect::<Vec<_>>()),
            (APP_PROTOCOLS.name, settings.app_protocols.keys().copied().collect()),
            (PLAINTEXT_PORTS.name, plaintext.copied().collect()),
        ];
        for (name, ports) in with_rules {
            for port in ports.iter().filter(|port| settings.inbound_except.ports.contains(port)) {
                let problem = format!("port {port} never comes to the sidecar");
                let remedy = format!("take it out here, or out of {}", INBOUND_EXCEPT_PORTS.name);
                self.faults.add(&format!("annotation {name}"), problem, remedy);
            }
        }
        let tcp = |port: &u16| settings.protocols.get(port) == Some(&"tcp");
        for port in settings.app_protocols.keys().filter(|port| tcp(port)) {
            let remedy = format!("take it out here, or out of {}", PROTOCOLS.name);
            let problem = format!("port {port} carries tcp, of which nobody looks at the version of HTTP");
            self.faults.add(&format!("annotation {}", APP_PROTOCOLS.name), problem, remedy);
        }
        let resources = &settings.resources;
        self.check_order(&CPU_REQUEST, &resources.cpu_request, &CPU_LIMIT, &resources.cpu_limit);
        self.check_order(&MEMORY_REQUEST, &resources.memory_request, &MEMORY_LIMIT, &resources.memory_limit);
    }

    fn check_order(
        &mut self,
        request_key: &Key,
        request: &Option<Quantity>,
        limit_key: &Key,
        limit: &Option<Quantity>,
    ) {
        if let (Some(request), Some(limit)) = (request, limit)
            && request.milli > limit.milli
        {
            let problem = format!("{} is more than the limit, {}", request.text, limit.text);
            let remedy = format!("keep to {}, or raise it", limit_key.name);
            self.faults.add(&format!("annotation {}", request_key.name), problem, remedy);
        }
    }
}

#[cfg(test)]
mod tests;
