//! `rate_limits`: how many requests may begin.

use std::sync::Arc;

use serde_saphyr::Spanned;

use super::bootstrap::to_u32;
use crate::{
    config::{
        defaults, raw,
        value::{Text, choice, name, quantity, required},
    },
    model::{
        file::{Faults, OddKey, Place, report_odd_keys},
        rate_limit::{By, MAX_RATE_LIMITS, RateLimit},
    },
};

/// One item of either kind of list.
pub(super) struct Item<'a> {
    odd_keys: (&'a [OddKey], &'static [&'static str]),
    name: Text<'a>,
    requests: Text<'a>,
    per: Text<'a>,
    burst: Text<'a>,
    by: Text<'a>,
    headers: Text<'a>,
}

impl<'a> From<&'a raw::RateLimit> for Item<'a> {
    fn from(raw: &'a raw::RateLimit) -> Self {
        Self {
            odd_keys: (&raw.odd_keys, raw::RateLimit::KEYS),
            name: raw.name.as_ref(),
            requests: raw.requests.as_ref(),
            per: raw.per.as_ref(),
            burst: raw.burst.as_ref(),
            // What goes out is all of one caller: the own app.
            by: None,
            headers: raw.headers.as_ref(),
        }
    }
}

impl<'a> From<&'a raw::InboundRateLimit> for Item<'a> {
    fn from(raw: &'a raw::InboundRateLimit) -> Self {
        Self {
            odd_keys: (&raw.odd_keys, raw::InboundRateLimit::KEYS),
            name: raw.name.as_ref(),
            requests: raw.requests.as_ref(),
            per: raw.per.as_ref(),
            burst: raw.burst.as_ref(),
            by: raw.by.as_ref(),
            headers: raw.headers.as_ref(),
        }
    }
}

/// The limits of one list; `None` if there is no list. An empty one is meant: nothing is limited.
pub(super) fn rate_limits<'a, T>(
    list: Option<&'a Spanned<Vec<Spanned<T>>>>,
    place: &Place,
    faults: &mut Faults,
) -> Option<Arc<[RateLimit]>>
where
    Item<'a>: From<&'a T>,
{
    let list = list?;
    let place = place.key("rate_limits").at(list);
    if list.value.len() > MAX_RATE_LIMITS {
        let problem = format!("{} limits", list.value.len());
        faults.add(&place, problem, format!("keep to {MAX_RATE_LIMITS}"));
        return None;
    }
    let mut limits: Vec<RateLimit> = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let limit = rate_limit(&Item::from(&item.value), &place, faults);
        if limits.iter().any(|other| other.name == limit.name) {
            let problem = format!("a second limit of the name {}", limit.name);
            faults.add(&place.key("name"), problem, "give each a name of its own");
        }
        limits.push(limit);
    }
    Some(limits.into())
}

fn rate_limit(item: &Item<'_>, place: &Place, faults: &mut Faults) -> RateLimit {
    let (odd, keys) = item.odd_keys;
    report_odd_keys(odd, keys, place, faults);
    let remedy = "say how many requests may begin per second, or per another time by the key per";
    required(item.requests, &place.key("requests"), remedy, faults);
    let requests = quantity(item.requests, &defaults::RATE_REQUESTS, place, faults);
    let burst = match item.burst {
        Some(_) => quantity(item.burst, &defaults::RATE_BURST, place, faults),
        None => requests,
    };
    let by = choice(item.by, &defaults::RATE_BY, place, faults);
    let named = item.name.map(|text| name(text, &place.key("name"), faults));
    RateLimit {
        name: named
            .as_deref()
            .unwrap_or(match by {
                By::All => "all",
                By::Caller => "caller",
            })
            .into(),
        requests: to_u32(requests),
        per: quantity(item.per, &defaults::RATE_PER, place, faults),
        burst: to_u32(burst),
        by,
        tells_always: choice(item.headers, &defaults::RATE_HEADERS, place, faults),
    }
}
