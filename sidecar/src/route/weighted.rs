//! Which of several clusters something goes to, by their weights.

use crate::model::{maglev::hash, weighted::WeightedClusters};

/// The place of a cluster of the list: each comes up as often as its weight says, over many calls.
pub fn by_chance(clusters: &WeightedClusters, rng: &mut fastrand::Rng) -> usize {
    at(clusters, rng.u64(0..clusters.total()))
}

/// The place of a cluster of the list: the same for the same text in every process, and over many texts each comes up as
/// often as its weight says.
///
/// Every text has a fixed point between 0 and 1, and every cluster a part of that line, in the order of the list. So
/// when a second and last cluster gets more of it, nobody who was there already goes back to the first.
#[must_use]
pub fn by_text(clusters: &WeightedClusters, text: &[u8]) -> usize {
    let point = (u128::from(hash(text)) * u128::from(clusters.total())) >> 64;
    at(clusters, u64::try_from(point).unwrap_or(0))
}

/// The cluster that a point in `0..total` belongs to.
fn at(clusters: &WeightedClusters, mut point: u64) -> usize {
    for (place, cluster) in clusters.list().iter().enumerate() {
        match point.checked_sub(u64::from(cluster.weight)) {
            Some(rest) => point = rest,
            None => return place,
        }
    }
    // Not reached: the point is below the sum of all weights.
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ClusterName, weighted::WeightedCluster};

    fn clusters(weights: &[u32]) -> Option<WeightedClusters> {
        let cluster = |(place, weight): (usize, &u32)| WeightedCluster {
            name: ClusterName::new(&format!("c{place}")),
            weight: *weight,
        };
        WeightedClusters::new(weights.iter().enumerate().map(cluster).collect())
    }

    #[test]
    fn a_list_of_which_nobody_gets_anything_is_none() {
        assert_eq!(clusters(&[]), None);
        assert_eq!(clusters(&[0, 0]), None);
        assert_eq!(clusters(&[1; 17]), None);
        assert!(clusters(&[1_000_000; 16]).is_some());
    }

    #[test]
    fn points_are_cut_where_the_weights_say() {
        let clusters = clusters(&[2, 0, 1]).unwrap();
        assert_eq!([0, 1, 2].map(|point| at(&clusters, point)), [0, 0, 2]);
    }

    #[test]
    fn a_growing_share_takes_nobody_back() {
        let place = |weights: [u32; 2], user: u32| {
            by_text(&clusters(&weights).unwrap(), format!("user-{user}").as_bytes())
        };
        let steps = [[99, 1], [95, 5], [1, 1], [300, 700], [0, 1]];
        let mut moved = 0;
        for user in 0..500 {
            let places = steps.map(|weights| place(weights, user));
            assert!(places.is_sorted(), "{user}: {places:?}");
            moved += usize::from(places[2] == 1);
        }
        assert!((200..300).contains(&moved), "{moved} of 500 with half of the weight");
    }

    proptest! {
        #[test]
        fn shares_come_near_to_the_weights(
            weights in proptest::collection::vec(0_u32..100, 1..6),
            seed: u64,
        ) {
            const DRAWS: u32 = 20_000;
            let Some(clusters) = clusters(&weights) else { return Ok(()) };
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut counts = vec![[0_u32; 2]; weights.len()];
            for draw in 0..DRAWS {
                counts[by_chance(&clusters, &mut rng)][0] += 1;
                counts[by_text(&clusters, format!("{seed} {draw}").as_bytes())][1] += 1;
            }
            for (weight, counts) in weights.iter().zip(counts) {
                let share = f64::from(*weight) / f64::from(u32::try_from(clusters.total()).unwrap());
                // Six standard deviations of a binomial distribution.
                let bound = 6.0 * (f64::from(DRAWS) * share * (1.0 - share)).sqrt() + 0.5;
                for count in counts {
                    let off = (f64::from(count) - f64::from(DRAWS) * share).abs();
                    prop_assert!(off <= bound, "{count} of {DRAWS} with {share}");
                    prop_assert!(*weight > 0 || count == 0);
                }
            }
        }
    }
}
