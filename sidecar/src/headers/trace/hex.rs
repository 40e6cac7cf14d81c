//! Hexadecimal digits in lower case, as trace fields have them.

/// The number that these digits are; `None` if there is anything else among them, or more than 32.
pub(super) fn parse(digits: &[u8]) -> Option<u128> {
    if digits.len() > 32 {
        return None;
    }
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Writes the lowest digits of a number, as many as there is room for.
pub(super) fn put(digits: &mut [u8], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        let value = (number & 0xf) as u8;
        *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        number >>= 4;
    }
}

/// The first `count` bytes, and what follows the `-` behind them, if anything does. `None` if something else follows.
pub(super) fn part(bytes: &[u8], count: usize) -> Option<(&[u8], Option<&[u8]>)> {
    let (part, rest) = bytes.split_at_checked(count)?;
    match rest {
        [] => Some((part, None)),
        [b'-', rest @ ..] => Some((part, Some(rest))),
        _ => None,
    }
}
