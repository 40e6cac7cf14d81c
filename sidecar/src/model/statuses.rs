//! Which answers are meant: sets of HTTP and of gRPC statuses.

use std::fmt;

/// The smallest HTTP status of a [`Statuses`].
pub const FIRST: u16 = 400;
/// The largest.
pub const LAST: u16 = 599;

/// HTTP statuses of 400 to 599.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Statuses([u64; 4]);

impl Statuses {
    /// None of them.
    pub const NONE: Self = Self([0; 4]);

    /// Adds one; nothing below 400 or above 599 is ever in.
    pub fn insert(&mut self, status: u16) {
        if let Some((word, bit)) = Self::place(status)
            && let Some(word) = self.0.get_mut(word)
        {
            *word |= bit;
        }
    }

    /// Whether this one is in.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        Self::place(status)
            .and_then(|(word, bit)| self.0.get(word).map(|word| word & bit != 0))
            .unwrap_or(false)
    }

    /// All of them, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (FIRST..=LAST).filter(move |status| self.contains(*status))
    }

    fn place(status: u16) -> Option<(usize, u64)> {
        let index = status.checked_sub(FIRST).filter(|_| status <= LAST)?;
        Some((usize::from(index / 64), 1 << (index % 64)))
    }
}

impl FromIterator<u16> for Statuses {
    fn from_iter<I: IntoIterator<Item = u16>>(statuses: I) -> Self {
        let mut set = Self::NONE;
        statuses.into_iter().for_each(|status| set.insert(status));
        set
    }
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The statuses of gRPC that are not OK, by their names and numbers (`grpc/doc/statuscodes.md`).
pub const GRPC_NAMES: [(&str, u8); 16] = [
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("UNAUTHENTICATED", 16),
];

/// Statuses of gRPC that are not OK.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpcStatuses(u32);

impl GrpcStatuses {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Adds one; nothing but 1 to 16 is ever in.
    pub fn insert(&mut self, status: u8) {
        if (1..=16).contains(&status) {
            self.0 |= 1 << status;
        }
    }

    /// Whether this one is in.
    #[must_use]
    pub fn contains(self, status: u8) -> bool {
        1_u32.checked_shl(u32::from(status)).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The names of all of them, by ascending number.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        GRPC_NAMES.into_iter().filter(move |(_, status)| self.contains(*status)).map(|(name, _)| name)
    }
}

impl FromIterator<u8> for GrpcStatuses {
    fn from_iter<I: IntoIterator<Item = u8>>(statuses: I) -> Self {
        let mut set = Self::NONE;
        statuses.into_iter().for_each(|status| set.insert(status));
        set
    }
}

impl fmt::Debug for GrpcStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in_and_is_a_status(statuses: Vec<u16>, asked: u16) {
            let set: Statuses = statuses.iter().copied().collect();
            let model: BTreeSet<u16> =
                statuses.into_iter().filter(|status| (FIRST..=LAST).contains(status)).collect();
            prop_assert_eq!(set.contains(asked), model.contains(&asked));
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), model);
        }

        #[test]
        fn so_does_one_of_grpc(statuses: Vec<u8>, asked: u8) {
            let set: GrpcStatuses = statuses.iter().copied().collect();
            let holds = |status: u8| (1..=16).contains(&status) && statuses.contains(&status);
            prop_assert_eq!(set.contains(asked), holds(asked));
            prop_assert!(GRPC_NAMES.iter().all(|(_, status)| set.contains(*status) == holds(*status)));
        }
    }

    #[test]
    fn the_ends_of_the_range_are_in() {
        let set: Statuses = [399, FIRST, 463, 464, LAST, 600].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [FIRST, 463, 464, LAST]);
        assert_eq!(format!("{set:?}"), "{400, 463, 464, 599}");
    }
}
