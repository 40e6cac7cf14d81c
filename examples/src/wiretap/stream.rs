//! One direction of a connection: segments become bytes in order, and bytes records of TLS, or not.

/// Bytes of a TLS record's header (RFC 8446 §5.1).
const HEADER_BYTES: usize = 5;
/// Content types: `change_cipher_spec`, alert, handshake, `application_data`.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=23;
/// Longest record: 2^14 bytes and what protection may add (RFC 8446 §5.2).
const MAX_RECORD_BYTES: usize = (1 << 14) + 256;

/// What a stream turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TLS records and nothing else.
    Tls,
    /// Something else.
    Plain,
    /// Nobody knows: a part of it was missed.
    Partial,
}

/// One direction of a connection; or of several, one after the other between the same addresses and ports.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Number of the byte that comes next; `None` before the first.
    next: Option<u32>,
    bytes: u64,
    found: u64,
    is_plain: bool,
    has_gap: bool,
    /// The header of the record that comes, as far as it is there.
    header: Vec<u8>,
    /// Bytes of the record's payload that are yet to come.
    payload_left: usize,
    /// The last bytes, in which the text that is looked for may have begun.
    tail: Vec<u8>,
}

impl Stream {
    /// A new connection, whose first byte has this number. The same again is the same connection.
    pub(super) fn start(&mut self, first: u32) {
        if self.next.is_none_or(|next| next != first) {
            self.next = Some(first);
            self.header.clear();
            self.payload_left = 0;
            self.tail.clear();
        }
    }

    /// A segment's payload; whatever of it was seen before is left out. Segments without one say nothing: those after a
    /// FIN, for one, are numbered one too high.
    pub(super) fn take(&mut self, sequence: u32, payload: &[u8], find: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(sequence);
        // Numbers wrap; less than half of them behind is behind.
        let behind = next.wrapping_sub(sequence);
        let new = if behind < 1 << 31 {
            payload.get(behind as usize..).unwrap_or_default()
        } else {
            self.has_gap = true;
            payload
        };
        if new.is_empty() {
            return;
        }
        let end = u32::try_from(payload.len()).map_or(sequence, |length| sequence.wrapping_add(length));
        self.next = Some(end);
        self.bytes += new.len() as u64;
        self.follow_records(new);
        self.look_for(find, new);
    }

    fn follow_records(&mut self, mut bytes: &[u8]) {
        while !self.is_plain && !bytes.is_empty() {
            let inside = self.payload_left.min(bytes.len());
            self.payload_left -= inside;
            bytes = bytes.get(inside..).unwrap_or_default();
            let missing = (HEADER_BYTES - self.header.len()).min(bytes.len());
            self.header.extend(bytes.iter().take(missing));
            bytes = bytes.get(missing..).unwrap_or_default();
            self.is_plain = !begins_like_a_record(&self.header);
            if let [_, _, _, high, low] = *self.header.as_slice() {
                self.payload_left = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
            }
        }
    }

    fn look_for(&mut self, find: &[u8], bytes: &[u8]) {
        if find.is_empty() {
            return;
        }
        self.tail.extend_from_slice(bytes);
        self.found += self.tail.windows(find.len()).filter(|window| *window == find).count() as u64;
        let kept = self.tail.len().min(find.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
    }

    /// Bytes that passed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How often the text was in them.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn kind(&self) -> Kind {
        if self.has_gap {
            Kind::Partial
        } else if self.is_plain {
            Kind::Plain
        } else {
            Kind::Tls
        }
    }
}

/// Whether a record may begin like that; all of its header or a part of it.
fn begins_like_a_record(header: &[u8]) -> bool {
    let is_length = |high: u8, low: u8| usize::from(u16::from_be_bytes([high, low])) <= MAX_RECORD_BYTES;
    header.first().is_none_or(|kind| RECORD_TYPES.contains(kind))
        && header.get(1).is_none_or(|major| *major == 3)
        && header.get(2).is_none_or(|minor| *minor <= 3)
        && header.get(3).is_none_or(|high| header.get(4).is_none_or(|low| is_length(*high, *low)))
}
