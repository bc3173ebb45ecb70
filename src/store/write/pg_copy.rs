//! Rows in PostgreSQL's binary COPY format, the cheapest way of inserting many new rows.
//!
//! See "Binary Format" in the documentation of COPY.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use crate::store::write::row::{COLUMNS, Columns, Row};

/// Microseconds from 1970 to 2000, the epoch of PostgreSQL's timestamps.
pub(super) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Signature, flags, and the length of the header extension, which is empty.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The trailer: it stands after the last row in place of a number of columns.
const TRAILER: i16 = -1;
/// Size at which the buffer is sent, in bytes: more than a hundred rows.
const FULL: usize = 64 << 10;

/// One row that is being encoded.
struct Tuple<'b> {
    buffer: &'b mut BytesMut,
    columns: usize,
}

impl Tuple<'_> {
    fn bytes<T: AsRef<[u8]>>(mut self, value: Option<T>) -> Self {
        self.columns += 1;
        match value {
            Some(bytes) => {
                let bytes = bytes.as_ref();
                // A row is far shorter than 2 GiB.
                self.buffer.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                self.buffer.put_slice(bytes);
            }
            None => self.buffer.put_i32(-1),
        }
        self
    }
}

impl Columns<'_> for Tuple<'_> {
    fn key(self, key: Uuid) -> Self {
        self.bytes(Some(key.as_bytes()))
    }

    fn time(self, micros: Option<i64>) -> Self {
        self.int8(micros.map(|micros| micros - POSTGRES_EPOCH))
    }

    fn int8(self, value: Option<i64>) -> Self {
        self.bytes(value.map(i64::to_be_bytes))
    }

    fn int2(self, value: Option<i16>) -> Self {
        self.bytes(value.map(i16::to_be_bytes))
    }

    fn text(self, value: Option<&str>) -> Self {
        self.bytes(value)
    }
}

/// Encoded rows that are not sent yet. It is sent and cleared whenever it is full, so that a batch of any size needs the
/// memory of one buffer, here and in the connection.
pub(super) struct CopyBuffer(BytesMut);

impl CopyBuffer {
    /// A buffer with the header.
    pub fn new() -> Self {
        let mut bytes = BytesMut::with_capacity(2 * FULL);
        bytes.put_slice(HEADER);
        Self(bytes)
    }

    /// Appends a row.
    pub fn add(&mut self, row: &Row<'_>) {
        // The number of columns fits.
        self.0.put_i16(i16::try_from(COLUMNS.len()).unwrap_or(i16::MAX));
        let tuple = row.columns(Tuple { buffer: &mut self.0, columns: 0 });
        debug_assert_eq!(tuple.columns, COLUMNS.len());
    }

    /// True if it should be sent.
    pub fn is_full(&self) -> bool {
        self.0.len() >= FULL
    }

    /// Appends the trailer.
    pub fn end(&mut self) {
        self.0.put_i16(TRAILER);
    }

    /// The bytes to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Empties the buffer once its bytes were sent.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::write::samples::{origin, row, view};

    #[test]
    fn a_row_is_encoded_as_the_format_says() {
        let (origin, text) = (origin(), view("fb-1", "u"));
        let row = row(&text, &origin);
        let mut buffer = CopyBuffer::new();
        buffer.add(&row);
        buffer.end();
        let (header, mut rest) = buffer.bytes().split_at(HEADER.len());
        assert_eq!(header, HEADER);
        let mut take = |bytes: usize| {
            let (taken, later) = rest.split_at(bytes);
            rest = later;
            taken.to_vec()
        };
        assert_eq!(take(2), 32_i16.to_be_bytes());
        let mut columns = Vec::new();
        for _ in COLUMNS {
            let length = i32::from_be_bytes(take(4).try_into().unwrap());
            columns.push(usize::try_from(length).ok().map(&mut take));
        }
        assert_eq!(take(2), (-1_i16).to_be_bytes(), "the trailer");
        assert!(rest.is_empty());
        let column = |name: &str| &columns[COLUMNS.iter().position(|(known, _)| *known == name).unwrap()];
        assert_eq!(column("key").as_deref(), Some(&row.key.as_bytes()[..]));
        assert_eq!(
            column("accepted_at").as_deref(),
            Some(&0_i64.to_be_bytes()[..]),
            "microseconds since 2000"
        );
        assert_eq!(column("event_id").as_deref(), Some(&b"fb-1"[..]));
        assert_eq!(column("currency").as_deref(), Some(&840_i16.to_be_bytes()[..]));
        assert_eq!(column("video_id"), &None, "null");
    }

    #[test]
    fn a_buffer_of_any_number_of_rows_stays_small() {
        let (origin, text) = (origin(), view("fb-1", "u"));
        let row = row(&text, &origin);
        let (mut buffer, mut sent) = (CopyBuffer::new(), 0);
        for _ in 0..10_000 {
            buffer.add(&row);
            if buffer.is_full() {
                sent += 1;
                buffer.clear();
            }
            assert!(buffer.bytes().len() < 2 * FULL);
        }
        assert!(sent > 10, "{sent} buffers");
    }
}
