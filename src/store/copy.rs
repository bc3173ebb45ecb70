//! Rows in PostgreSQL's binary COPY format: for many new rows, the cheapest way in.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use super::row::{COLUMNS, Row};

/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
pub(super) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Signature, flags, and the length of a header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands for the number of columns after the last row.
const END: i16 = -1;
/// Bytes of a row, about.
const ROW: usize = 480;

/// One row's columns, in the order in which they are written.
struct Writer<'b> {
    to: &'b mut BytesMut,
    written: i16,
}

impl Writer<'_> {
    fn bytes(&mut self, value: Option<&[u8]>) {
        self.written += 1;
        match value {
            // A row is far shorter than 2 GiB.
            Some(bytes) => {
                self.to.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                self.to.put_slice(bytes);
            }
            None => self.to.put_i32(-1),
        }
    }

    fn key(&mut self, key: Uuid) {
        self.bytes(Some(key.as_bytes()));
    }

    fn int8(&mut self, value: Option<i64>) {
        self.bytes(value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn int2(&mut self, value: Option<i16>) {
        self.bytes(value.map(i16::to_be_bytes).as_ref().map(<[u8; 2]>::as_slice));
    }

    /// Microseconds since 1970.
    fn time(&mut self, micros: Option<i64>) {
        self.int8(micros.map(|micros| micros - POSTGRES_EPOCH));
    }

    fn text(&mut self, value: Option<&str>) {
        self.bytes(value.map(str::as_bytes));
    }
}

/// Rows as `COPY event_rows (COLUMNS) FROM STDIN (FORMAT binary)` takes them.
pub(super) fn encode(rows: &[&Row<'_>]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(rows.len() * ROW + HEADER.len() + 2);
    bytes.put_slice(HEADER);
    for row in rows {
        // There are few columns.
        bytes.put_i16(i16::try_from(COLUMNS.len()).unwrap_or(i16::MAX));
        let mut to = Writer { to: &mut bytes, written: 0 };
        write(&mut to, row);
        debug_assert_eq!(usize::try_from(to.written), Ok(COLUMNS.len()));
    }
    bytes.put_i16(END);
    bytes
}

fn write(to: &mut Writer<'_>, row: &Row<'_>) {
    let (event, columns) = (&row.event, &row.event.columns);
    to.key(row.key);
    to.time(Some(event.occurred_at));
    to.time(Some(row.origin.accepted_at));
    to.time(Some(row.logged_at));
    to.time(Some(row.collected_at));
    to.time(columns.action_time);
    to.int8(columns.amount.map(|amount| amount.0));
    to.int8(event.revenue());
    to.int8(columns.followers);
    to.int8(columns.watch_time);
    to.int8(columns.percentage_watched);
    to.int2(Some(event.source.code()));
    to.int2(Some(event.kind.stage.code()));
    to.int2(Some(event.kind.word.code));
    to.int2(columns.age);
    to.int2(columns.gender);
    to.int2(columns.referrer);
    to.int2(columns.click_position);
    to.int2(columns.device);
    to.int2(columns.browser);
    to.text(Some(&event.id));
    to.text(Some(&columns.user_id));
    to.text(columns.user_name.as_deref());
    to.text(columns.country.as_deref());
    to.text(columns.city.as_deref());
    to.text(columns.video_id.as_deref());
    to.text(columns.ad_id.as_deref());
    to.text(columns.campaign_id.as_deref());
    to.text(columns.profile_id.as_deref());
    to.text(columns.purchased_item.as_deref());
    to.text(event.rest.as_deref());
}
