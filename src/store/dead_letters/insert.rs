//! Many dead letters into PostgreSQL, in few round trips.

use std::collections::{BTreeMap, HashSet};

use sea_orm::sqlx;
use uuid::Uuid;

use crate::event::Source;
use crate::log::DeadLetter;
use crate::store::dead_letters::{COUNT, UNKNOWN_SOURCE};
use crate::store::error::StoreError;
use crate::store::session::PostgresTransaction;

/// Letters of one statement, and bytes of their payloads, at most; one letter always fits.
const LETTERS: usize = 500;
const BYTES: usize = 4 << 20;

/// Inserts letters and counts their events; those that are there already stay as they are.
pub(in crate::store) async fn insert(
    tx: &mut PostgresTransaction,
    letters: &[(Uuid, DeadLetter)],
) -> Result<(), StoreError> {
    let mut counts: BTreeMap<(i16, &str), i64> = BTreeMap::new();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(LETTERS).take_while(|(_, letter)| {
            bytes += letter.payload.len();
            bytes <= BYTES
        });
        let (part, later) = rest.split_at(fitting.count().max(1));
        rest = later;
        let mut new = insert_part(tx, part).await?;
        for (_, letter) in part.iter().filter(|(id, _)| new.remove(id)) {
            let source = letter.source.map_or(UNKNOWN_SOURCE, Source::code);
            let events = i64::try_from(letter.events).unwrap_or(i64::MAX);
            let count = counts.entry((source, letter.reason.as_str())).or_default();
            *count = count.saturating_add(events);
        }
    }
    for ((source, reason), events) in counts {
        let named = tx.named;
        sqlx::query(COUNT)
            .persistent(named)
            .bind(source)
            .bind(reason)
            .bind(events)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Inserts letters; gives the ids of those that are new.
async fn insert_part(
    tx: &mut PostgresTransaction,
    letters: &[(Uuid, DeadLetter)],
) -> Result<HashSet<Uuid>, StoreError> {
    /// A column of the letters.
    macro_rules! each {
        ($get:expr) => {
            letters.iter().map(|(_, letter)| $get(letter)).collect::<Vec<_>>()
        };
    }
    let named = tx.named;
    let time = |micros: i64| chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO dead_letters (id, received_at, source, reason, event_id, correlation_id, errors, payload,
            payload_length, payload_sha256)
         SELECT id, received_at, source, reason, event_id, correlation_id, errors::json, payload, payload_length,
            payload_sha256
         FROM unnest($1::uuid[], $2::timestamptz[], $3::int2[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::bytea[], $9::int8[], $10::bytea[]) AS t (id, received_at, source, reason, event_id, correlation_id,
            errors, payload, payload_length, payload_sha256)
         ON CONFLICT (id) DO NOTHING RETURNING id",
    )
    .persistent(named)
    .bind(letters.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(each!(|letter: &DeadLetter| time(letter.received_at)))
    .bind(each!(|letter: &DeadLetter| letter.source.map(Source::code)))
    .bind(each!(|letter: &DeadLetter| letter.reason.as_str()))
    .bind(each!(|letter: &DeadLetter| letter.event_id.clone()))
    .bind(each!(|letter: &DeadLetter| letter.correlation_id.clone()))
    .bind(each!(|letter: &DeadLetter| serde_json::to_string(&letter.errors).unwrap_or_default()))
    .bind(each!(|letter: &DeadLetter| letter.payload.clone()))
    .bind(each!(|letter: &DeadLetter| i64::try_from(letter.payload_length).unwrap_or(i64::MAX)))
    .bind(each!(|letter: &DeadLetter| letter.payload_sha256.to_vec()))
    .fetch_all(&mut **tx)
    .await?;
    Ok(new.into_iter().collect())
}
