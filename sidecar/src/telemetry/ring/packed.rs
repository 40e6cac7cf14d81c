//! Rows of numbers, most of them zero, in few bytes.

/// A row without its zeros: pairs of a gap and a value, both in groups of seven bits, the lowest first.
#[derive(Debug)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    /// `None` of a row of zeros, which needs no room at all.
    pub(super) fn of(numbers: impl Iterator<Item = u64>) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut gap = 0;
        for number in numbers {
            if number == 0 {
                gap += 1;
                continue;
            }
            write(&mut bytes, gap);
            write(&mut bytes, number);
            gap = 0;
        }
        (!bytes.is_empty()).then(|| Self(bytes.into_boxed_slice()))
    }

    /// Adds the row to another, number by number.
    pub(super) fn add_to(&self, sums: &mut [u64]) {
        let mut bytes = self.0.iter().copied();
        let mut sums = sums.iter_mut();
        while let (Some(gap), Some(number)) = (read(&mut bytes), read(&mut bytes)) {
            let Some(sum) = usize::try_from(gap).ok().and_then(|gap| sums.nth(gap)) else { return };
            *sum = sum.saturating_add(number);
        }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() + size_of::<Self>()
    }
}

fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_was() {
        for row in [vec![1], vec![0, 0, 127, 128, 0, u64::MAX, 0], vec![u64::MAX; 3], vec![0, 300]] {
            let mut sums = vec![0; row.len()];
            Packed::of(row.iter().copied()).unwrap().add_to(&mut sums);
            assert_eq!(sums, row);
        }
    }

    #[test]
    fn zeros_take_no_room_and_sums_do_not_wrap() {
        assert!(Packed::of([0, 0, 0].into_iter()).is_none());
        let mut sums = vec![u64::MAX, 1];
        Packed::of([5, 5].into_iter()).unwrap().add_to(&mut sums);
        assert_eq!(sums, [u64::MAX, 6]);
    }

    #[test]
    fn a_longer_row_than_the_sums_is_cut() {
        let mut sums = vec![0; 2];
        Packed::of([1, 0, 0, 9].into_iter()).unwrap().add_to(&mut sums);
        assert_eq!(sums, [1, 0]);
    }
}
