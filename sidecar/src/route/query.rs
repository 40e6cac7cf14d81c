//! Parameters of a query, as forms write them (WHATWG URL, `application/x-www-form-urlencoded`).

/// Whether the first parameter of that name has that value (`None`: whatever it is). Names and values are compared decoded:
/// `+` is a space, an escape its byte; what is no escape stays as it is. No allocation.
pub(super) fn has(query: &str, name: &str, value: Option<&str>) -> bool {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.find(|(found, _)| is(found, name));
    found.is_some_and(|(_, found)| value.is_none_or(|value| is(found, value)))
}

fn is(encoded: &str, text: &str) -> bool {
    decoded(encoded.as_bytes()).eq(text.bytes())
}

fn decoded(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if first == b'%'
            && let [high, low, behind @ ..] = after
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = behind;
            return Some(high << 4 | low);
        }
        rest = after;
        Some(if first == b'+' { b' ' } else { first })
    })
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_a_name_counts_decoded() {
        for (query, name, value, is_it) in [
            ("a=1&b=2", "b", Some("2"), true),
            ("a=1&a=2", "a", Some("2"), false),
            ("a=1&a=2", "a", Some("1"), true),
            ("&&a=1", "a", Some("1"), true),
            ("%61=%31", "a", Some("1"), true),
            ("q=two+words", "q", Some("two words"), true),
            ("q=two%20words", "q", Some("two words"), true),
            ("q=a%2Bb", "q", Some("a+b"), true),
            ("q=%C3%A4", "q", Some("\u{e4}"), true),
            ("q=100%", "q", Some("100%"), true),
            ("q=%zz", "q", Some("%zz"), true),
            ("q=%+1", "q", Some("% 1"), true),
            ("flag", "flag", None, true),
            ("flag", "flag", Some(""), true),
            ("flag=", "flag", Some(""), true),
            ("a=b=c", "a", Some("b=c"), true),
            ("A=1", "a", None, false),
            ("aa=1", "a", None, false),
            ("", "a", None, false),
            ("=1", "a", None, false),
        ] {
            assert_eq!(has(query, name, value), is_it, "{query} {name} {value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_byte_by_byte_is_found(name in "\\PC{1,6}", value in "\\PC{0,6}", other in "[a-z=&%+]{0,9}") {
            let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let query = format!("{}={}&{other}", escaped(&name), escaped(&value));
            prop_assert!(has(&query, &name, Some(&value)));
            let longer = format!("{value}x");
            prop_assert!(!has(&query, &name, Some(&longer)));
        }
    }
}
