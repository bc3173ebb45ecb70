//! Rows in PostgreSQL's binary COPY format: for many new rows, the cheapest way in.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use crate::store::write::row::{COLUMNS, Columns, Row};

/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
pub(in crate::store) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Signature, flags, and the length of a header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands for the number of columns after the last row.
const END: i16 = -1;
/// Bytes of a part: more than a hundred rows.
const FULL: usize = 64 << 10;

/// A row's columns, as they are written.
struct Tuple<'b> {
    to: &'b mut BytesMut,
    written: usize,
}

impl Tuple<'_> {
    fn bytes<T: AsRef<[u8]>>(mut self, value: Option<T>) -> Self {
        self.written += 1;
        match value {
            Some(bytes) => {
                let bytes = bytes.as_ref();
                // A row is far shorter than 2 GiB.
                self.to.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                self.to.put_slice(bytes);
            }
            None => self.to.put_i32(-1),
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

/// A part of what `COPY event_rows (COLUMNS) FROM STDIN (FORMAT binary)` takes. Sent part by part, rows need the
/// memory of one, here and in the connection.
pub(in crate::store) struct Part(BytesMut);

impl Part {
    /// The first part.
    pub fn first() -> Self {
        let mut bytes = BytesMut::with_capacity(2 * FULL);
        bytes.put_slice(HEADER);
        Self(bytes)
    }

    pub fn add(&mut self, row: &Row<'_>) {
        // There are few columns.
        self.0.put_i16(i16::try_from(COLUMNS.len()).unwrap_or(i16::MAX));
        let tuple = row.columns(Tuple { to: &mut self.0, written: 0 });
        debug_assert_eq!(tuple.written, COLUMNS.len());
    }

    /// Whether it is to be sent.
    pub fn is_full(&self) -> bool {
        self.0.len() >= FULL
    }

    /// After the last row.
    pub fn end(&mut self) {
        self.0.put_i16(END);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The next part.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
