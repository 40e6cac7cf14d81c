//! `tracestate` (W3C Trace Context §3.3): what tracing systems add, and what passes as it is.
//!
//! Keys are those of Level 2, which has all of Level 1's (`tenant@system`) and takes `@` anywhere but at the beginning.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, header::GetAll};

use super::trim;

/// Members of a list (§3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// Bytes of the whole list that are passed on (§3.3.1.5).
const MAX_BYTES: usize = 512;
/// Members longer than this go first where the list is too long (§3.3.1.5).
const LONG_BYTES: usize = 128;
/// Bytes of a key, and of a value.
const MAX_PART_BYTES: usize = 256;

/// All lines as one list, without empty members; `None` if there is nothing, or if any member is not well-formed. Of a list
/// that is too long, whole members are left out.
pub(super) fn read(lines: GetAll<'_, HeaderValue>) -> Option<HeaderValue> {
    let members = || {
        let members = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        members.map(trim).filter(|member| !member.is_empty())
    };
    let (mut count, mut bytes) = (0, 0);
    for member in members() {
        count += 1;
        bytes += member.len() + 1;
        if count > MAX_MEMBERS || !is_member(member) {
            return None;
        }
    }
    // Less the first one's comma.
    let bytes = bytes.checked_sub(1)?;
    let mut all = lines.iter();
    if let (Some(only), None) = (all.next(), all.next())
        && only.len() == bytes
        && bytes <= MAX_BYTES
    {
        return Some(only.clone());
    }
    let longest = if bytes > MAX_BYTES { LONG_BYTES } else { MAX_BYTES };
    joined(members().filter(|member| member.len() <= longest))
}

/// As many of them, from the first on, as there is room for.
fn joined<'a>(members: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    let mut list = BytesMut::new();
    for member in members {
        let comma = usize::from(!list.is_empty());
        if list.len() + comma + member.len() > MAX_BYTES {
            break;
        }
        if comma > 0 {
            list.put_u8(b',');
        }
        list.extend_from_slice(member);
    }
    let list: Bytes = list.freeze();
    HeaderValue::from_maybe_shared(list).ok().filter(|list| !list.is_empty())
}

/// `key=value`.
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
    let Some((key, [_equals, value @ ..])) = member.split_at_checked(equals) else { return false };
    is_key(key) && is_value(value)
}

fn is_key(key: &[u8]) -> bool {
    let is_first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_later = |byte: &u8| is_first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= MAX_PART_BYTES && key.first().is_some_and(is_first) && key.iter().all(is_later)
}

/// Whatever is printable, but `,` and `=`. A space at its end would have been around the member.
fn is_value(value: &[u8]) -> bool {
    let is_any = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=MAX_PART_BYTES).contains(&value.len()) && value.iter().all(is_any)
}
