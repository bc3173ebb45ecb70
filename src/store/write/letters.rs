//! Inserting dead letters, in the transaction of a batch or in one of their own.
//!
//! A letter that is stored already stays as it is. Events of new letters are counted in `dead_letter_counts`, which
//! outlives the letters. sqlx is used directly here: the letters of a batch are part of the writer's transaction.

use std::collections::{BTreeMap, HashSet};

use sea_orm::sqlx::{self, SqliteConnection};
use uuid::Uuid;

use crate::event::Source;
use crate::log::DeadLetter;
use crate::store::connect::{Backend, Store};
use crate::store::dead_letters::{COUNT_LETTERS, UNKNOWN_SOURCE};
use crate::store::error::StoreError;
use crate::store::session::PostgresTransaction;

/// Maximum number of letters in one statement.
const LETTERS: usize = 500;
/// Maximum size of the payloads in one statement, in bytes; one letter always fits.
const BYTES: usize = 4 << 20;

impl Store {
    /// Stores letters that came from the log, in one transaction.
    ///
    /// # Errors
    ///
    /// If the store is unavailable; none of the letters is stored then.
    pub async fn keep_letters(&self, letters: &[(Uuid, DeadLetter)]) -> Result<(), StoreError> {
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let mut tx = PostgresTransaction::begin(pool, sessions, "").await?;
                insert_postgres(&mut tx, letters).await?;
                tx.commit().await
            }
            Backend::Sqlite(pool) => {
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                insert_sqlite(&mut tx, letters).await?;
                Ok(tx.commit().await?)
            }
        }
    }
}

/// Number of events of new letters, by source and reason.
#[derive(Default)]
struct EventCounts(BTreeMap<(i16, &'static str), i64>);

impl EventCounts {
    fn add(&mut self, letter: &DeadLetter) {
        let source = letter.source.map_or(UNKNOWN_SOURCE, Source::code);
        let events = i64::try_from(letter.events).unwrap_or(i64::MAX);
        let count = self.0.entry((source, letter.reason.as_str())).or_default();
        *count = count.saturating_add(events);
    }
}

/// Inserts letters into PostgreSQL as arrays, in few round trips.
pub(super) async fn insert_postgres(
    tx: &mut PostgresTransaction,
    letters: &[(Uuid, DeadLetter)],
) -> Result<(), StoreError> {
    let mut counts = EventCounts::default();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(LETTERS).take_while(|(_, letter)| {
            bytes += letter.payload.len();
            bytes <= BYTES
        });
        let (part, later) = rest.split_at(fitting.count().max(1));
        rest = later;
        let mut new = insert_arrays(tx, part).await?;
        part.iter().filter(|(id, _)| new.remove(id)).for_each(|(_, letter)| counts.add(letter));
    }
    for ((source, reason), events) in counts.0 {
        let count = sqlx::query(COUNT_LETTERS).persistent(tx.named).bind(source).bind(reason).bind(events);
        count.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Inserts letters; gives the ids of those that are new.
async fn insert_arrays(
    tx: &mut PostgresTransaction,
    letters: &[(Uuid, DeadLetter)],
) -> Result<HashSet<Uuid>, StoreError> {
    fn column<T>(letters: &[(Uuid, DeadLetter)], get: impl Fn(&DeadLetter) -> T) -> Vec<T> {
        letters.iter().map(|(_, letter)| get(letter)).collect()
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
    .bind(column(letters, |letter| time(letter.received_at)))
    .bind(column(letters, |letter| letter.source.map(Source::code)))
    .bind(column(letters, |letter| letter.reason.as_str()))
    .bind(column(letters, |letter| letter.event_id.clone()))
    .bind(column(letters, |letter| letter.correlation_id.clone()))
    .bind(column(letters, |letter| serde_json::to_string(&letter.errors).unwrap_or_default()))
    .bind(column(letters, |letter| letter.payload.clone()))
    .bind(column(letters, |letter| i64::try_from(letter.payload_length).unwrap_or(i64::MAX)))
    .bind(column(letters, |letter| letter.payload_sha256.to_vec()))
    .fetch_all(&mut **tx)
    .await?;
    Ok(new.into_iter().collect())
}

/// Inserts letters into SQLite one by one: it has no round trips to save.
pub(super) async fn insert_sqlite(
    tx: &mut SqliteConnection,
    letters: &[(Uuid, DeadLetter)],
) -> Result<(), StoreError> {
    let mut counts = EventCounts::default();
    for (id, letter) in letters {
        let inserted = sqlx::query(
            "INSERT INTO dead_letters (id, received_at, source, reason, event_id, correlation_id, errors, payload,
                payload_length, payload_sha256) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id)
        .bind(letter.received_at)
        .bind(letter.source.map(Source::code))
        .bind(letter.reason.as_str())
        .bind(letter.event_id.as_deref())
        .bind(&letter.correlation_id)
        .bind(serde_json::to_string(&letter.errors).unwrap_or_default())
        .bind(&letter.payload)
        .bind(i64::try_from(letter.payload_length).unwrap_or(i64::MAX))
        .bind(&letter.payload_sha256)
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() > 0 {
            counts.add(letter);
        }
    }
    for ((source, reason), events) in counts.0 {
        sqlx::query(COUNT_LETTERS).bind(source).bind(reason).bind(events).execute(&mut *tx).await?;
    }
    Ok(())
}
