//! Summing up the rows of a span, where a summary is stale or is verified.

use sea_orm::QueryResult;

use super::builder::SummaryBuilder;
use super::hour_input::{EventInput, HourInput};
use super::span::{HOUR, Span};
use super::summary::Summary;
use crate::event::Source;
use crate::sketch::user_hash;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::Transaction;

/// Rows in memory at a time.
const ROWS: usize = 5_000;

/// The summary of the rows of a span.
pub(super) async fn sum_rows(
    store: &Store,
    tx: &Transaction,
    source: Source,
    span: Span,
) -> Result<Summary, StoreError> {
    // SQL text, since the two databases hold times in different types. Rows are streamed.
    let mut sql = Sql::new(format!(
        "SELECT user_id, event_type, CAST({} AS integer) AS minute, revenue, currency, age, gender, followers, device,
            watch_time, percentage_watched, country, city, campaign_id
         FROM event_rows WHERE source = $1 AND occurred_at >= ",
        store.minute()
    ))
    .bind(source.code());
    store.push_instant(&mut sql, span.first_hour() * HOUR);
    sql.push(" AND occurred_at < ");
    store.push_instant(&mut sql, span.end_hour() * HOUR);
    let mut builder = SummaryBuilder::default();
    tx.in_parts(sql.statement(tx), ROWS, |rows| {
        let events = rows.iter().map(StoredEvent::read).collect::<Result<Vec<_>, _>>()?;
        builder.add_input(&HourInput::of(events.iter().map(StoredEvent::input)));
        Ok(())
    })
    .await?;
    Ok(builder.finish())
}

/// Columns of a row that a summary counts; see [`EventInput`].
struct StoredEvent {
    user_id: String,
    event_type: i16,
    minute: i32,
    revenue: Option<i64>,
    currency: i16,
    age: Option<i16>,
    gender: Option<i16>,
    followers: Option<i64>,
    device: Option<i16>,
    watch_time: Option<i64>,
    percentage_watched: Option<i64>,
    country: Option<String>,
    city: Option<String>,
    campaign_id: Option<String>,
}

impl StoredEvent {
    fn read(row: &QueryResult) -> Result<Self, sea_orm::DbErr> {
        let number = |name| row.try_get::<Option<i64>>("", name);
        let code = |name| row.try_get::<Option<i16>>("", name);
        let text = |name| row.try_get::<Option<String>>("", name);
        Ok(Self {
            user_id: row.try_get("", "user_id")?,
            event_type: row.try_get("", "event_type")?,
            minute: row.try_get("", "minute")?,
            revenue: number("revenue")?,
            currency: row.try_get("", "currency")?,
            age: code("age")?,
            gender: code("gender")?,
            followers: number("followers")?,
            device: code("device")?,
            watch_time: number("watch_time")?,
            percentage_watched: number("percentage_watched")?,
            country: text("country")?,
            city: text("city")?,
            campaign_id: text("campaign_id")?,
        })
    }

    fn input(&self) -> EventInput<'_> {
        EventInput {
            user: user_hash(&self.user_id),
            event_type: self.event_type,
            minute: self.minute,
            revenue: self.revenue,
            currency: self.currency,
            age: self.age,
            gender: self.gender,
            followers: self.followers,
            device: self.device,
            watch_time: self.watch_time,
            percentage_watched: self.percentage_watched,
            country: self.country.as_deref(),
            city: self.city.as_deref(),
            campaign_id: self.campaign_id.as_deref(),
        }
    }
}
