//! `fault`: what is injected into requests.

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use serde_saphyr::Spanned;

use super::{bootstrap::to_u32, matches::header_match};
use crate::{
    config::{
        defaults, raw,
        value::{quantity, quantity_or_none},
    },
    model::{
        fault::Fault,
        file::{Faults, Place, quoted, report_odd_keys},
        policy::HeaderMatch,
        wire,
    },
};

/// The fault of one section; `None` if there is no section. An empty one is meant: nothing is injected.
pub(super) fn fault(
    raw: Option<&Spanned<raw::Fault>>,
    place: &Place,
    faults: &mut Faults,
) -> Option<Option<Arc<Fault>>> {
    let section = raw?;
    let (place, raw) = (place.key("fault").at(section), &section.value);
    report_odd_keys(&raw.odd_keys, raw::Fault::KEYS, &place, faults);
    check_shares(raw, &place, faults);
    let abort = quantity_or_none(raw.abort.as_ref(), &defaults::FAULT_ABORT, &place, faults);
    let abort_grpc = quantity_or_none(raw.abort_grpc.as_ref(), &defaults::FAULT_ABORT_GRPC, &place, faults);
    let fault = Fault {
        delay: quantity_or_none(raw.delay.as_ref(), &defaults::FAULT_DELAY, &place, faults),
        delay_percent: to_u32(quantity(
            raw.delay_percent.as_ref(),
            &defaults::FAULT_DELAY_PERCENT,
            &place,
            faults,
        )),
        abort: abort.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok()),
        abort_grpc: abort_grpc.and_then(|status| u8::try_from(status).ok()),
        abort_percent: to_u32(quantity(
            raw.abort_percent.as_ref(),
            &defaults::FAULT_ABORT_PERCENT,
            &place,
            faults,
        )),
        header: header(raw, &place, faults),
    };
    Some(fault.is_any().then(|| Arc::new(fault)))
}

/// A share of nothing is a fault: it would read as if something were injected.
fn check_shares(raw: &raw::Fault, place: &Place, faults: &mut Faults) {
    let shares = [
        ("delay_percent", &raw.delay_percent, "delay", raw.delay.is_some()),
        ("abort_percent", &raw.abort_percent, "abort", raw.abort.is_some() || raw.abort_grpc.is_some()),
    ];
    for (key, text, of, is_there) in shares {
        if let Some(text) = text.as_ref().filter(|_| !is_there) {
            let problem = format!("stands without {of}");
            faults.add(&place.key(key).at(text), problem, format!("say {of}, too, or leave it out"));
        }
    }
}

/// The field that a request must have. One with a fault would have all requests hit: nothing comes of the file then.
fn header(raw: &raw::Fault, place: &Place, faults: &mut Faults) -> Option<HeaderMatch> {
    let Some(text) = &raw.header else {
        if let Some(value) = &raw.value {
            faults.add(&place.key("value").at(value), "stands without header", "name the field by header");
        }
        return None;
    };
    let is_there = |name: &HeaderName| !name.as_str().starts_with(wire::RESERVED_PREFIX);
    let name = HeaderName::from_bytes(text.value.as_bytes()).ok().filter(is_there);
    if name.is_none() {
        let problem = format!("{} is not a field that a fault can go by", quoted(&text.value));
        faults.add(&place.key("header").at(text), problem, "name one as x-fault; none of x-outrider-");
    }
    header_match(name, raw.value.as_ref(), place, faults)
}
