//! From the file as it stands to [`Settings`]: gives it meaning and names every fault.

mod bootstrap;
mod clusters;
mod dns;
mod intercept;
mod listeners;
mod own_app;
mod references;
mod transport;

use std::{path::Path, sync::Arc};

use super::{Fault, Settings, raw};
use crate::model::file::{Faults, Place, report_odd_keys};

/// Clusters of one file.
const MAX_CLUSTERS: usize = 10_000;
/// Listeners of one file, each direction.
const MAX_LISTENERS: usize = 256;

/// Checks a file. Relative paths start at `folder`.
pub(super) fn settings(file: &raw::File, folder: &Path) -> Result<Settings, Vec<Fault>> {
    let root = Place::root();
    let mut faults = Faults::default();
    report_odd_keys(&file.odd_keys, raw::File::KEYS, &root, &mut faults);

    let bootstrap = bootstrap::bootstrap(file, folder, &mut faults);
    let drain = bootstrap::drain(file.drain.as_ref(), &mut faults);
    let limits = bootstrap::limits(file.limits.as_ref(), &mut faults);
    let inbound = listeners::inbound(file, bootstrap.as_ref(), &mut faults);
    let outbound = listeners::outbound(file, &mut faults);
    let trust_domain = bootstrap.as_ref().map(|bootstrap| &bootstrap.trust_domain);
    let intercept = intercept::intercept(file, trust_domain, &mut faults);
    let mark = intercept.as_ref().and_then(|intercept| intercept.settings.own.mark());
    let resolver = dns::resolver(file.dns.as_ref(), mark, &mut faults);
    let clusters = clusters::clusters(file, &dns::Surroundings { folder, resolver }, &mut faults);
    if file.inbound.as_ref().is_none_or(|list| list.value.is_empty())
        && file.outbound.as_ref().is_none_or(|list| list.value.is_empty())
        && file.intercept.is_none()
    {
        faults.add(&root, "no listeners", "give at least one under inbound or outbound, or intercept");
    }
    references::check(file, &mut faults);

    match bootstrap {
        Some(mut bootstrap) if faults.is_empty() => {
            let (mut listeners, mut all): (Vec<_>, Vec<_>) = inbound.into_iter().unzip();
            listeners.extend(outbound);
            if let Some(intercept) = intercept {
                bootstrap.intercept = Some(intercept.settings);
                listeners.extend(intercept.listeners);
                all.extend(intercept.clusters);
            }
            all.extend(clusters);
            Ok(Settings {
                bootstrap,
                drain,
                limits: Arc::new(limits),
                listeners: listeners.into_iter().map(Arc::new).collect(),
                clusters: all.into_iter().map(Arc::new).collect(),
            })
        }
        Some(_) | None => Err(faults.into_vec()),
    }
}
