//! `clusters[].balance` and what belongs to it.

use http::HeaderName;
use serde_saphyr::Spanned;

use super::bootstrap::to_u32;
use crate::{
    config::{
        defaults, raw,
        value::{choice, quantity, quantity_or_none, required, word},
    },
    model::{
        balance::{Affinity, AffinityBy, Balance, Balancing},
        file::{Faults, Place, quoted, report_odd_keys},
    },
};

/// The words of `clusters[].affinity.by`.
const BY: [(&str, By); 4] =
    [("header", By::Header), ("cookie", By::Cookie), ("source", By::Source), ("spiffe_id", By::SpiffeId)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Header,
    Cookie,
    Source,
    SpiffeId,
}

/// How a cluster's endpoints share its requests.
pub(super) fn of_cluster(raw: &raw::Cluster, place: &Place, faults: &mut Faults) -> (Balance, Balancing) {
    let balance = choice(raw.balance.as_ref(), &defaults::BALANCE, place, faults);
    let is_hashed = balance == Balance::Maglev;
    let affinity_place = place.key("affinity");
    let affinity = match &raw.affinity {
        Some(section) => {
            let place = affinity_place.at(section);
            if !is_hashed {
                faults.add(&place, "is for balance: maglev only", "leave it out, or set balance: maglev");
            }
            affinity(&section.value, &place, faults)
        }
        None => {
            if is_hashed {
                let remedy = "balance: maglev needs affinity.by: header, cookie, source or spiffe_id";
                faults.add(&affinity_place, "is missing", remedy);
            }
            None
        }
    };
    if let Some(text) = raw.zones.as_ref().filter(|text| is_hashed && text.value == "prefer") {
        let problem = "has no part in balance: maglev, which leads a key to one endpoint from every zone";
        faults.add(&place.key("zones").at(text), problem, "leave it out");
    }
    let balancing = Balancing {
        affinity,
        panic_percent: to_u32(quantity(raw.panic_percent.as_ref(), &defaults::PANIC_PERCENT, place, faults)),
        slow_start: quantity_or_none(raw.slow_start.as_ref(), &defaults::SLOW_START, place, faults),
        prefers_zone: choice(raw.zones.as_ref(), &defaults::ZONES, place, faults),
    };
    (balance, balancing)
}

fn affinity(raw: &raw::Affinity, place: &Place, faults: &mut Faults) -> Option<Affinity> {
    report_odd_keys(&raw.odd_keys, raw::Affinity::KEYS, place, faults);
    let ttl = quantity_or_none(raw.ttl.as_ref(), &defaults::COOKIE_TTL, place, faults);
    let max_load = raw.max_load_percent.as_ref();
    let max_load = quantity_or_none(max_load, &defaults::MAX_LOAD_PERCENT, place, faults);
    let by_place = place.key("by");
    let remedy = "say what requests that belong together have in common";
    let text = required(raw.by.as_ref(), &by_place, remedy, faults)?;
    let by = word(text, &BY, &by_place.at(text), faults)?;
    if let Some(text) = raw.ttl.as_ref().filter(|_| by != By::Cookie) {
        faults.add(&place.key("ttl").at(text), "is for by: cookie only", "leave it out");
    }
    let name = name(raw, by, place, faults);
    let by = match by {
        By::Header => AffinityBy::Header(HeaderName::try_from(name?.value.as_str()).ok()?),
        By::Cookie => AffinityBy::Cookie { name: name?.value.as_str().into(), ttl },
        By::Source => AffinityBy::Source,
        By::SpiffeId => AffinityBy::SpiffeId,
    };
    Some(Affinity { by, max_load_percent: max_load.map(to_u32) })
}

/// The name of a header field or a cookie: a token (RFC 9110 §5.1, RFC 6265 §4.1.1). Others have none.
fn name<'a>(
    raw: &'a raw::Affinity,
    by: By,
    place: &Place,
    faults: &mut Faults,
) -> Option<&'a Spanned<String>> {
    let place = place.key("name");
    if !matches!(by, By::Header | By::Cookie) {
        if let Some(text) = &raw.name {
            faults.add(&place.at(text), "is for by: header and by: cookie only", "leave it out");
        }
        return None;
    }
    let text = required(raw.name.as_ref(), &place, "name the header field or the cookie", faults)?;
    // A field's name is a token of at most 64 KiB; nobody needs a tenth of this.
    const MAX_NAME_BYTES: usize = 256;
    if text.value.len() > MAX_NAME_BYTES || HeaderName::try_from(text.value.as_str()).is_err() {
        let problem = format!("{} is not the name of a header field or a cookie", quoted(&text.value));
        faults.add(&place.at(text), problem, "use letters, digits, - and _");
        return None;
    }
    if by == By::Header && text.value.to_ascii_lowercase().starts_with("x-outrider-") {
        let problem = format!("{} is a field between sidecars", quoted(&text.value));
        faults.add(&place.at(text), problem, "choose another");
    }
    Some(text)
}
