//! When an endpoint is ejected.

use serde_saphyr::Spanned;

use super::bootstrap::to_u32;
use crate::{
    config::{
        defaults, raw,
        units::Decimal,
        value::{quantity, quantity_or_none},
    },
    model::{
        file::{Faults, Place, report_odd_keys},
        outlier::OutlierSettings,
    },
};

/// Outlier detection of a cluster: it is on, whatever the file says of the cluster.
pub(super) fn of_cluster(
    raw: Option<&Spanned<raw::Outlier>>,
    place: &Place,
    faults: &mut Faults,
) -> OutlierSettings {
    let empty = raw::Outlier::default();
    let place = place.key("outlier_detection");
    let place = raw.map_or_else(|| place.clone(), |raw| place.at(raw));
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Outlier::KEYS, &place, faults);
    let mut limit = |text, key| quantity_or_none::<u64>(text, key, &place, faults).map(to_u32);
    let consecutive_gateway_failures =
        limit(raw.consecutive_gateway_failures.as_ref(), &defaults::CONSECUTIVE_GATEWAY_FAILURES);
    let consecutive_local_failures =
        limit(raw.consecutive_local_failures.as_ref(), &defaults::CONSECUTIVE_LOCAL_FAILURES);
    let failure_percent = limit(raw.failure_percent.as_ref(), &defaults::FAILURE_PERCENT);
    let mut number = |text, key| quantity_or_none(text, key, &place, faults).map(Decimal::value);
    let success_rate_stdev = number(raw.success_rate_stdev.as_ref(), &defaults::SUCCESS_RATE_STDEV);
    let slow_factor = number(raw.slow_factor.as_ref(), &defaults::SLOW_FACTOR);
    let mut count = |text, key| to_u32(quantity::<u64>(text, key, &place, faults));
    let min_requests = count(raw.min_requests.as_ref(), &defaults::MIN_REQUESTS);
    let min_endpoints = count(raw.min_endpoints.as_ref(), &defaults::MIN_ENDPOINTS);
    let max_ejected_percent = count(raw.max_ejected_percent.as_ref(), &defaults::MAX_EJECTED_PERCENT);
    let mut time = |text, key| quantity(text, key, &place, faults);
    let settings = OutlierSettings {
        consecutive_gateway_failures,
        consecutive_local_failures,
        success_rate_stdev,
        failure_percent,
        slow_factor,
        slow_floor: time(raw.slow_floor.as_ref(), &defaults::SLOW_FLOOR),
        min_requests,
        min_endpoints,
        window: time(raw.window.as_ref(), &defaults::WINDOW),
        ejection_time: time(raw.ejection_time.as_ref(), &defaults::EJECTION_TIME),
        max_ejection_time: time(raw.max_ejection_time.as_ref(), &defaults::MAX_EJECTION_TIME),
        max_ejected_percent,
    };
    if let Some(text) = raw.slow_floor.as_ref().filter(|_| settings.slow_factor.is_none()) {
        let remedy = "leave it out, or say how much slower than the others is slow";
        faults.add(&place.key("slow_floor").at(text), "stands beside slow_factor: none", remedy);
    }
    fitting(settings, raw, &place, faults)
}

/// Rests grow: where only one of the two times is in the file, the other follows it.
fn fitting(
    settings: OutlierSettings,
    raw: &raw::Outlier,
    place: &Place,
    faults: &mut Faults,
) -> OutlierSettings {
    let (first, longest) = (settings.ejection_time, settings.max_ejection_time);
    if first <= longest {
        return settings;
    }
    match (&raw.ejection_time, &raw.max_ejection_time) {
        (Some(_), Some(text)) => {
            let problem = format!("{} is below ejection_time", text.value);
            faults.add(&place.key("max_ejection_time").at(text), problem, "make it at least as long");
            settings
        }
        (None, _) => OutlierSettings { ejection_time: longest, ..settings },
        (Some(_), None) => OutlierSettings { max_ejection_time: first, ..settings },
    }
}
