//! `mirror`: where copies of a rule's requests go.

use std::sync::Arc;

use serde_saphyr::Spanned;

use super::{bootstrap::to_u32, weighted};
use crate::{
    config::{defaults::routes::MIRRORED, raw, value::quantity},
    model::{
        edits::Edits,
        file::{Faults, Place, report_odd_keys},
        mirror::{MAX_COPY_TIME, MAX_MIRRORS, Mirror},
        policy::Policy,
    },
};

/// The mirrors of a rule; `None`: there are none. `rule` is what holds for its requests, without what is one cluster's own.
pub(super) fn mirrors(
    raw: &raw::Rule,
    (rule, known): (&Policy, &[&str]),
    place: &Place,
    faults: &mut Faults,
) -> Option<Arc<[Mirror]>> {
    let list = raw.mirror.as_ref()?;
    let place = place.key("mirror").at(list);
    if raw.redirect.is_some() {
        let problem = "has no meaning where the caller is sent elsewhere";
        faults.add(&place, problem, "leave it out, or leave redirect out");
    }
    if !(1..=MAX_MIRRORS).contains(&list.value.len()) {
        let problem = format!("has {} items", list.value.len());
        faults.add(&place, problem, format!("list 1 to {MAX_MIRRORS} clusters, or leave the key out"));
        return None;
    }
    let policy = Arc::new(of_copies(rule));
    let mirror = |(index, item): (usize, &Spanned<raw::Mirror>)| {
        let (place, raw) = (place.item(index).at(item), &item.value);
        report_odd_keys(&raw.odd_keys, raw::Mirror::KEYS, &place, faults);
        let share = quantity(raw.percent.as_ref(), &MIRRORED, &place, faults);
        let cluster = weighted::cluster(raw.cluster.as_ref(), known, &place.key("cluster"), faults)?;
        Some(Mirror { cluster, of_million: to_u32(share.of_million()), policy: Arc::clone(&policy) })
    };
    list.value.iter().enumerate().map(mirror).collect::<Option<Vec<_>>>().map(Into::into)
}

/// What holds for copies: they are changed as the rule's requests are.
fn of_copies(rule: &Policy) -> Policy {
    let limit = rule.request_timeout.map_or(MAX_COPY_TIME, |limit| limit.min(MAX_COPY_TIME));
    let edits = rule.edits.as_deref().map(|edits| Edits { response: Default::default(), ..edits.clone() });
    Policy { request_timeout: Some(limit), edits: edits.map(Arc::new), ..Policy::bare() }
}
