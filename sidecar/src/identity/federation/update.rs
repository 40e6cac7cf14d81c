//! Whether a bundle that an endpoint gave takes the place of the one held: pure.

use outrider_certs::trust_bundle::TrustBundle;

/// Why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is older than the one that the same endpoint gave before.
    #[error(
        "its sequence {found} is lower than {held}, which the endpoint gave before; if its publisher began to count anew, take \
         the trust domain out of the configuration and put it back"
    )]
    Older {
        /// What is held.
        held: u64,
        /// What came.
        found: u64,
    },
    /// It has the sequence of the one held, and other roots.
    #[error("its roots differ from those held, but both have the sequence {0}")]
    Forked(u64),
}

/// Whether `found` brings something new; `held` is what the same endpoint gave before, if it did. Sequences of different
/// endpoints, or of a file, say nothing about each other.
///
/// # Errors
/// [`Refused`]; the one held stays. A publisher that does not count (0) is believed to give its newest (SPIFFE Federation
/// §4.2).
pub fn judge(held: Option<&TrustBundle>, found: &TrustBundle) -> Result<bool, Refused> {
    let Some(held) = held else { return Ok(true) };
    let (before, after) = (held.sequence(), found.sequence());
    if after != 0 && after < before {
        return Err(Refused::Older { held: before, found: after });
    }
    let has_same_roots = has_all(held, found) && has_all(found, held);
    if after != 0 && after == before && !has_same_roots {
        return Err(Refused::Forked(after));
    }
    Ok(after != before || held.refresh_hint() != found.refresh_hint() || !has_same_roots)
}

/// Whether every root of one is a root of the other: they are a set, and a publisher may write them in any order.
fn has_all(one: &TrustBundle, other: &TrustBundle) -> bool {
    one.roots().iter().all(|root| other.roots().contains(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Root, bundle};

    #[test]
    fn a_bundle_is_taken_unless_it_is_older_or_forked() {
        let (a, b) = (Root::new("a"), Root::new("b"));
        let held = bundle(&[&a], 5);
        assert_eq!(judge(None, &bundle(&[&b], 1)), Ok(true), "there is nothing to compare it with");
        assert_eq!(judge(Some(&held), &bundle(&[&a], 5)), Ok(false));
        assert_eq!(judge(Some(&held), &bundle(&[&a, &b], 6)), Ok(true));
        let (both, turned) = (bundle(&[&a, &b], 5), bundle(&[&b, &a], 5));
        assert!(both.roots() != turned.roots());
        assert_eq!(judge(Some(&both), &turned), Ok(false), "roots have no order");
        assert_eq!(judge(Some(&both), &held), Err(Refused::Forked(5)));
        assert_eq!(judge(Some(&held), &both), Err(Refused::Forked(5)));
        assert_eq!(judge(Some(&held), &bundle(&[&a], 6)), Ok(true), "its sequence is new");
        assert_eq!(judge(Some(&held), &bundle(&[], 6)), Ok(true), "nobody is trusted any more");
        assert_eq!(judge(Some(&held), &bundle(&[&b], 5)), Err(Refused::Forked(5)));
        assert_eq!(judge(Some(&held), &bundle(&[&a], 4)), Err(Refused::Older { held: 5, found: 4 }));
        assert_eq!(judge(Some(&held), &bundle(&[&b], 0)), Ok(true), "its publisher does not count");
        assert_eq!(judge(Some(&bundle(&[&a], 0)), &bundle(&[&b], 0)), Ok(true));
    }
}
