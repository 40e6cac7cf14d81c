//! `section!`: a mirror of one mapping of a file, with the line of every value.
//!
//! It does what serde's `deny_unknown_fields` does, but does not stop at the first unknown key: it keeps them, and
//! [`report_odd_keys`] turns each into a fault with its path. A key without a value is kept as odd too, because
//! `allow:` with nothing behind it must not silently mean the default.

use serde::{
    Deserialize,
    de::{IgnoredAny, MapAccess},
};
use serde_saphyr::Spanned;

use super::fault::{Faults, Place, quoted, similar};

/// A key that does not belong where it stands.
#[derive(Clone, Debug)]
pub struct OddKey {
    /// The key, as it stands in the file.
    pub name: String,
    /// Its line.
    pub line: u64,
    /// Whether it is known but has no value.
    pub is_empty: bool,
}

/// Declares a mapping of a file: a struct whose fields are all optional and know their line, and which keeps the keys
/// that do not belong to it. Every section must be handed to [`report_odd_keys`] by its validation.
macro_rules! section {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        $vis struct $name {
            $($(#[$field_meta])* $vis $field: Option<serde_saphyr::Spanned<$type>>,)*
            /// Keys that do not belong here.
            $vis odd_keys: Vec<$crate::model::file::OddKey>,
        }

        impl $name {
            /// Every key that may stand here.
            $vis const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("keys with values")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut section = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            let odd = &mut section.odd_keys;
                            match key.as_str() {
                                $(stringify!($field) => {
                                    section.$field = $crate::model::file::read_field(&mut map, key, odd)?;
                                })*
                                _ => $crate::model::file::read_unknown(&mut map, key, odd)?,
                            }
                        }
                        Ok(section)
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
    };
}
pub(crate) use section;

/// Reads the value of a known key; one without a value is odd.
///
/// # Errors
/// If the value's shape is not `T`'s.
pub fn read_field<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    name: String,
    odd: &mut Vec<OddKey>,
) -> Result<Option<Spanned<T>>, A::Error> {
    let Spanned { value, referenced, defined } = map.next_value::<Spanned<Option<T>>>()?;
    if value.is_none() {
        odd.push(OddKey { name, line: referenced.line(), is_empty: true });
    }
    Ok(value.map(|value| Spanned::new(value, referenced, defined)))
}

/// Skips the value of an unknown key and keeps the key as odd.
///
/// # Errors
/// If the value cannot be skipped (a bound of the YAML reader).
pub fn read_unknown<'de, A: MapAccess<'de>>(
    map: &mut A,
    name: String,
    odd: &mut Vec<OddKey>,
) -> Result<(), A::Error> {
    let value = map.next_value::<Spanned<IgnoredAny>>()?;
    odd.push(OddKey { name, line: value.referenced.line(), is_empty: false });
    Ok(())
}

/// Turns the keys that do not belong to a section into faults. `known` is the section's `KEYS`.
pub fn report_odd_keys(odd: &[OddKey], known: &[&str], place: &Place, faults: &mut Faults) {
    let all = known.join(", ");
    for key in odd {
        // A hostile key is long or unprintable; no known one is, and a path may only hold harmless text.
        let is_harmless = key.name.len() <= 64 && key.name.bytes().all(|byte| byte.is_ascii_graphic());
        let name = if is_harmless { key.name.clone() } else { quoted(&key.name) };
        let place = place.key(&name).on_line(key.line);
        if key.is_empty {
            faults.add(&place, "has no value", "give it one, or leave the key out for the default");
        } else if let Some(word) = similar(&key.name, known.iter().copied()) {
            faults.add(&place, "no such key", format!("did you mean {word}? Keys here: {all}"));
        } else {
            faults.add(&place, "no such key", format!("use one of the keys here: {all}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file::read;

    section! {
        struct Sample { first: String, list: Vec<Spanned<String>> }
    }

    #[test]
    fn values_know_their_line_and_numbers_stay_text() {
        let sample: Sample = read("list: [a,\n  b]\nfirst: 0x10\n").unwrap();
        let first = sample.first.unwrap();
        assert_eq!((first.value.as_str(), first.referenced.line()), ("0x10", 3));
        let lines: Vec<u64> = sample.list.unwrap().value.iter().map(|item| item.referenced.line()).collect();
        assert_eq!(lines, [1, 2]);
        assert_eq!(Sample::KEYS, ["first", "list"]);
    }

    #[test]
    fn every_odd_key_is_named_with_its_line() {
        let sample: Sample = read("frist: a\nother: {x: [1]}\nlist:\n").unwrap();
        let mut faults = Faults::default();
        report_odd_keys(&sample.odd_keys, Sample::KEYS, &Place::root().key("top"), &mut faults);
        let texts: Vec<String> = faults.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "top.frist: no such key (line 1); remedy: did you mean first? Keys here: first, list",
                "top.other: no such key (line 2); remedy: use one of the keys here: first, list",
                "top.list: has no value (line 3); remedy: give it one, or leave the key out for the default",
            ]
        );
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let fault = read::<Sample>("first: a\nfirst: b\n").unwrap_err();
        assert_eq!(fault.line, Some(2), "{fault}");
    }
}
