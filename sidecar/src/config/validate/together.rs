//! What cannot hold together of what one section says: one of the two would read as if it held. What a section inherits is left
//! alone, for it was said of others, too.

use std::time::Duration;

use serde_saphyr::Spanned;

use crate::{
    config::{raw, units::Unit as _, value::Text},
    model::file::{Faults, Place},
};

/// Of a section's times, and of what it says of second attempts.
pub(super) fn check(
    retry: Option<&Spanned<raw::Retry>>,
    request_timeout: Text<'_>,
    place: &Place,
    faults: &mut Faults,
) {
    let Some(section) = retry else { return };
    let (place, retry) = (place.key("retry").at(section), &section.value);
    let time = |text: Text<'_>| Duration::parse(&text?.value);
    let (whole, each) = (time(request_timeout), time(retry.per_try_timeout.as_ref()));
    if let (Some(text), Some(whole)) = (&retry.per_try_timeout, whole)
        && each.is_some_and(|each| each > whole)
    {
        let problem =
            format!("{} is longer than request_timeout, which bounds all attempts together", text.value);
        faults.add(&place.key("per_try_timeout").at(text), problem, "make it shorter, or leave it out");
    }
    let Some(hedge) = retry.hedge.as_ref().filter(|text| text.value != "none") else { return };
    let place = place.key("hedge").at(hedge);
    let says = |text: &Option<Spanned<String>>, word| text.as_ref().is_some_and(|text| text.value == word);
    if says(&retry.max_retries, "0") {
        let problem = "stands beside max_retries: 0, and a second attempt is one of those";
        faults.add(&place, problem, "raise max_retries, or leave hedge out");
    }
    if says(&retry.methods, "none") {
        let problem = "stands beside methods: none, and what has a second attempt may be done twice";
        faults.add(&place, problem, "say methods: idempotent, or leave hedge out");
    }
    let Some(after) = time(Some(hedge)) else { return };
    let limits = [("per_try_timeout", each), ("request_timeout", whole)];
    if let Some((key, _)) = limits.iter().find(|(_, limit)| limit.is_some_and(|limit| after >= limit)) {
        let problem = format!("{} is not below {key}: no attempt waits for so long", hedge.value);
        faults.add(&place, problem, "make it shorter, or leave it out");
    }
}
