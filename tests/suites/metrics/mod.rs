//! What sidecars say of their requests in numbers, asked as a scraper asks. That a real Prometheus understands it is
//! the matter of `foreign::prometheus`.

mod edges;
mod sent;
mod standing;

use std::{collections::BTreeMap, sync::Arc};

use outrider::{
    model::reload::ConfigStatus,
    telemetry::{Metrics, ProcessFacts, metrics::Format},
};

use crate::harness::Sidecar;

/// All samples of a sidecar, by name and labels.
#[derive(Debug)]
pub(crate) struct Samples(Vec<(String, BTreeMap<String, String>, f64)>);

/// The metrics of a sidecar in this process.
pub(crate) fn metrics(sidecar: &Sidecar) -> Metrics {
    let app = sidecar.app();
    let bootstrap = app.settings().bootstrap.clone();
    let facts = ProcessFacts {
        service: bootstrap.service.clone(),
        trust_domain: bootstrap.trust_domain.to_string(),
        started: app.clock.wall(),
        identity: Arc::clone(&app.identity),
        config: Arc::new(ConfigStatus::new("", app.clock.wall())),
        clock: app.clock.clone(),
        drain: app.drains.clone(),
        readiness: app.readiness.clone(),
        load: Arc::clone(&app.load),
        passed: Arc::default(),
        observer: Arc::clone(&app.observer),
        controller: Arc::clone(&app.controller),
        wanted: Arc::clone(&app.wanted),
    };
    Metrics::new(app.snapshots.clone(), facts)
}

/// What it says now.
pub(crate) fn scrape(sidecar: &Sidecar) -> Samples {
    Samples::parse(&metrics(sidecar).encode(Format::Text).unwrap())
}

impl Samples {
    /// Of Prometheus text whose labels hold nothing to escape.
    pub(crate) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
            let labels = labels.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()));
            (name.to_owned(), labels.collect(), value.parse().unwrap())
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).map(sample).collect())
    }

    /// The sum of the series that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
        };
        self.0.iter().filter(|(found, of, _)| found == name && fits(of)).map(|(_, _, value)| value).sum()
    }

    /// How many series of that name there are.
    pub(crate) fn series(&self, name: &str) -> usize {
        self.0.iter().filter(|(found, _, _)| found == name).count()
    }
}
