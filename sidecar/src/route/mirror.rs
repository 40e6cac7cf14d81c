//! Which requests are copied.

use crate::model::mirror::{Mirror, WHOLE};

/// Whether this request is among those that are copied there: each is drawn for itself, and for each mirror.
pub fn is_drawn(mirror: &Mirror, rng: &mut fastrand::Rng) -> bool {
    rng.u32(..WHOLE) < mirror.of_million
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ClusterName, policy::Policy};

    #[test]
    fn the_share_is_what_was_asked_for() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut drawn = |of_million| {
            let mirror =
                Mirror { cluster: ClusterName::new("v2"), of_million, policy: Arc::new(Policy::bare()) };
            (0..100_000).filter(|_| is_drawn(&mirror, &mut rng)).count()
        };
        assert_eq!((drawn(0), drawn(WHOLE)), (0, 100_000));
        assert!((9_500..10_500).contains(&drawn(WHOLE / 10)));
        assert!((32_500..34_200).contains(&drawn(WHOLE / 3)));
    }
}
