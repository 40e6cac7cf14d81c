//! Lists of clusters that share what a route matches.

use serde_saphyr::Spanned;

use super::bootstrap::to_u32;
use crate::{
    config::{
        defaults::routes::SHARE,
        raw,
        value::{Text, quantity, required},
    },
    model::{
        cluster::ClusterName,
        file::{Faults, OddKey, Place, quoted, report_odd_keys, similar},
        weighted::{MAX_WEIGHTED, WeightedCluster, WeightedClusters},
    },
};

/// One item of either kind of list.
pub(super) struct Item<'a> {
    odd_keys: (&'a [OddKey], &'static [&'static str]),
    name: Text<'a>,
    weight: Text<'a>,
}

impl<'a> From<&'a raw::WeightedCluster> for Item<'a> {
    fn from(raw: &'a raw::WeightedCluster) -> Self {
        let odd_keys = (&*raw.odd_keys, raw::WeightedCluster::KEYS);
        Self { odd_keys, name: raw.name.as_ref(), weight: raw.weight.as_ref() }
    }
}

impl<'a> From<&'a raw::RuleCluster> for Item<'a> {
    fn from(raw: &'a raw::RuleCluster) -> Self {
        let odd_keys = (&*raw.odd_keys, raw::RuleCluster::KEYS);
        Self { odd_keys, name: raw.name.as_ref(), weight: raw.weight.as_ref() }
    }
}

/// The clusters of one list, of which `known` are there.
pub(super) fn clusters<'a, T>(
    list: &'a Spanned<Vec<Spanned<T>>>,
    known: &[&str],
    place: &Place,
    faults: &mut Faults,
) -> Option<WeightedClusters>
where
    Item<'a>: From<&'a T>,
{
    let place = place.key("clusters").at(list);
    if !(1..=MAX_WEIGHTED).contains(&list.value.len()) {
        let problem = format!("has {} items", list.value.len());
        faults.add(&place, problem, format!("list 1 to {MAX_WEIGHTED} clusters"));
        return None;
    }
    let mut clusters: Vec<WeightedCluster> = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let (place, item) = (place.item(index).at(item), Item::from(&item.value));
        let (odd, keys) = item.odd_keys;
        report_odd_keys(odd, keys, &place, faults);
        let weight = to_u32(quantity(item.weight, &SHARE, &place, faults));
        let name = cluster(item.name, known, &place.key("name"), faults)?;
        if clusters.iter().any(|other| other.name == name) {
            faults.add(&place, "stands here twice", "list each cluster once, with the sum of its weights");
        }
        clusters.push(WeightedCluster { name, weight });
    }
    let weighted = WeightedClusters::new(clusters);
    if weighted.is_none() {
        faults.add(&place, "every weight is 0", "give one of them a weight over 0");
    }
    weighted
}

/// The name of a cluster that is there.
pub(super) fn cluster(
    text: Text<'_>,
    known: &[&str],
    place: &Place,
    faults: &mut Faults,
) -> Option<ClusterName> {
    let text = required(text, place, "name the cluster", faults)?;
    is_known(text, known, &place.at(text), faults).then(|| ClusterName::new(&text.value))
}

/// Whether a cluster of that name is there; a fault if not.
pub(super) fn is_known(text: &Spanned<String>, known: &[&str], place: &Place, faults: &mut Faults) -> bool {
    let is_known = known.contains(&text.value.as_str());
    if !is_known {
        let hint = similar(&text.value, known.iter().copied())
            .map_or_else(|| "name one under clusters".to_owned(), |name| format!("did you mean {name}?"));
        faults.add(place, format!("there is no cluster {}", quoted(&text.value)), hint);
    }
    is_known
}
