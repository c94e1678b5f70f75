//! Protocol buffers, as far as writing them needs.
//!
//! A message inside a message is written behind a length that is patched in when it ends. The length
//! takes a fixed number of bytes, whatever it is, which the format allows; so nothing is moved or
//! measured twice.

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

/// A message inside another, until it ends: where its length goes, which takes `WIDTH` bytes.
#[must_use = "a message that does not end has no length"]
pub(super) struct Inner<const WIDTH: usize> {
    from: usize,
}

/// Kinds of values, as the format numbers them.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

impl Message {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    /// A number of the kind `int64`: negative ones take ten bytes.
    pub(super) fn signed(&mut self, field: u64, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    pub(super) fn fixed64(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | FIXED64);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn text(&mut self, field: u64, text: &str) {
        self.varint(field << 3 | BYTES);
        self.varint(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Begins a message of less than 128 to the power of `WIDTH` bytes.
    pub(super) fn begin<const WIDTH: usize>(&mut self, field: u64) -> Inner<WIDTH> {
        self.varint(field << 3 | BYTES);
        self.bytes.extend_from_slice(&[0; WIDTH]);
        Inner { from: self.bytes.len() }
    }

    /// Ends the message that began last.
    ///
    /// # Panics
    /// When it is longer than its length can say, which whoever began it rules out.
    pub(super) fn end<const WIDTH: usize>(&mut self, inner: Inner<WIDTH>) {
        let mut length = self.bytes.len() - inner.from;
        for (place, byte) in self.bytes[inner.from - WIDTH..inner.from].iter_mut().enumerate() {
            let more = if place + 1 < WIDTH { 0x80 } else { 0 };
            *byte = low_bits(length as u64) | more;
            length >>= 7;
        }
        assert!(length == 0, "an inner message has a bounded length");
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(low_bits(value) | 0x80);
            value >>= 7;
        }
        self.bytes.push(low_bits(value));
    }
}

/// The last seven bits.
fn low_bits(value: u64) -> u8 {
    (value & 0x7f).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_its_room_whatever_it_is() {
        let mut message = Message::default();
        let inner = message.begin::<2>(1);
        message.number(2, 300);
        message.end(inner);
        assert_eq!(message.as_bytes(), [0x0a, 0x83, 0x00, 0x10, 0xac, 0x02]);
        message.clear();
        let inner = message.begin::<2>(1);
        message.text(3, &"x".repeat(200));
        message.end(inner);
        assert_eq!(message.as_bytes()[..3], [0x0a, 0xcb, 0x01]);
        assert_eq!(message.as_bytes().len(), 3 + 203);
    }

    #[test]
    #[should_panic(expected = "a bounded length")]
    fn a_length_that_does_not_fit_is_noticed() {
        let mut message = Message::default();
        let inner = message.begin::<1>(1);
        message.text(3, &"x".repeat(200));
        message.end(inner);
    }
}
