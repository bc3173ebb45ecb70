//! Summaries and deltas that cannot be read: each is named once and counted, and stays where it is until its rows
//! mend it. Reports that need it say so meanwhile; folding goes on with all others.

use std::fmt;

use sea_orm::{ConnectionTrait, EntityTrait, Statement};

use super::body::Summary;
use super::delta::Left;
use super::span::Span;
use crate::event::Source;
use crate::store::connect::{Snapshot, Store};
use crate::store::entity::summaries;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::Transaction;

/// The level under which a delta is kept.
const DELTA: i16 = -1;
/// Deltas that are read at a time.
const PART: i64 = 32;

/// How many of a source's there are, as `number`.
pub(in crate::store) const COUNT: &str =
    "SELECT count(*) AS number FROM damaged_summaries d WHERE d.source = $1 AND (
    EXISTS (SELECT 1 FROM summaries s WHERE s.source = d.source AND s.level = d.level AND s.at = d.at
        AND s.version = d.version AND NOT s.stale)
    OR d.level = -1 AND EXISTS (SELECT 1 FROM summary_deltas w WHERE w.id = d.at AND w.tag = d.version))";

/// A delta that cannot be read.
#[derive(Debug)]
pub struct DamagedDelta {
    id: i64,
    tag: i64,
    reason: String,
}

impl fmt::Display for DamagedDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "summary_deltas, id {}: {}", self.id, self.reason)
    }
}

/// Names a delta, unless it was named before.
pub(super) async fn name_delta(
    tx: &Transaction,
    source: Source,
    id: i64,
    reason: &str,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO damaged_summaries (source, level, at, version)
        SELECT source, $1, id, tag FROM summary_deltas WHERE id = $2
        ON CONFLICT (source, level, at) DO UPDATE SET version = excluded.version
        WHERE damaged_summaries.version <> excluded.version";
    if Sql::new(sql).bind(DELTA).bind(id).execute(tx).await? > 0 {
        tracing::error!(table = "summary_deltas", id, %source, reason, "what a transaction added cannot be read: \
            reports that need it say so, all else goes on; run `ess rollups rebuild`");
    }
    Ok(())
}

/// Names a summary, unless it was named before. It gets another version: what a reader still knows of it lacks what is
/// added from now on.
pub(super) async fn name_summary(
    tx: &Transaction,
    source: Source,
    span: Span,
    reason: &str,
) -> Result<(), StoreError> {
    let version: i64 = rand::random();
    let place = |sql: &str| Sql::new(sql).bind(version).bind(source.code()).bind(span.level).bind(span.at);
    let sql =
        "UPDATE summaries SET version = $1 WHERE source = $2 AND level = $3 AND at = $4 AND NOT EXISTS (
        SELECT 1 FROM damaged_summaries d WHERE d.source = summaries.source AND d.level = summaries.level
            AND d.at = summaries.at AND d.version = summaries.version)";
    if place(sql).execute(tx).await? > 0 {
        let sql = "INSERT INTO damaged_summaries (version, source, level, at) VALUES ($1, $2, $3, $4)
            ON CONFLICT (source, level, at) DO UPDATE SET version = excluded.version";
        place(sql).execute(tx).await?;
        tracing::error!(table = "summaries", width = span.level, at = span.at, %source, reason, "a summary cannot be \
            read: reports that need it say so, all else goes on; run `ess rollups rebuild`");
    }
    Ok(())
}

/// Names those beneath a span.
pub(super) async fn name_beneath(tx: &Transaction, source: Source, span: Span) -> Result<(), StoreError> {
    for part in span.beneath() {
        let found = summaries::Entity::find_by_id((source.code(), part.level, part.at)).one(tx).await?;
        let Some(body) = found.and_then(|found| found.body) else { continue };
        if let Err(StoreError::Corrupt { reason, .. }) = Summary::decode(&body) {
            name_summary(tx, source, part, &reason).await?;
        }
    }
    Ok(())
}

impl Store {
    /// Number of a source's summaries and deltas that were found damaged and are not mended yet.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn damaged_summaries(&self, source: Source) -> Result<u64, StoreError> {
        Ok(self.number(COUNT, vec![source.code().into()], "number").await?.unsigned_abs())
    }

    /// The deltas of a source that cannot be read; they are named as such if that is asked for.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn find_damaged_deltas(
        &self,
        source: Source,
        name: bool,
    ) -> Result<Vec<DamagedDelta>, StoreError> {
        let sql =
            "SELECT id, tag, body FROM summary_deltas WHERE source = $1 AND id > $2 ORDER BY id LIMIT $3";
        let tx = self.snapshot(Snapshot::Read).await?;
        let (mut last, mut damaged) = (0, Vec::new());
        loop {
            let values = [source.code().into(), last.into(), PART.into()];
            let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
            let rows = tx.query_all_raw(statement).await?;
            for row in &rows {
                last = row.try_get("", "id")?;
                let body: Vec<u8> = row.try_get("", "body")?;
                if let Err(StoreError::Corrupt { reason, .. }) = Left::read(&body) {
                    damaged.push(DamagedDelta { id: last, tag: row.try_get("", "tag")?, reason });
                }
            }
            if rows.is_empty() {
                break;
            }
        }
        tx.rollback().await?;
        if name && !damaged.is_empty() {
            self.retry_conflicts(async || {
                let tx = self.snapshot(Snapshot::Write).await?;
                for delta in &damaged {
                    name_delta(&tx, source, delta.id, &delta.reason).await?;
                }
                tx.commit().await
            })
            .await?;
        }
        Ok(damaged)
    }

    /// Removes deltas whose hours are all told by their rows, and forgets what was mended.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn remove_damaged_deltas<'d>(
        &self,
        source: Source,
        damaged: impl Iterator<Item = &'d DamagedDelta>,
    ) -> Result<(), StoreError> {
        for delta in damaged {
            let sql = "DELETE FROM summary_deltas WHERE id = $1 AND tag = $2";
            self.change(sql, vec![delta.id.into(), delta.tag.into()]).await?;
            let sql =
                "DELETE FROM damaged_summaries WHERE source = $1 AND level = $2 AND at = $3 AND version = $4";
            let values = vec![source.code().into(), DELTA.into(), delta.id.into(), delta.tag.into()];
            self.change(sql, values).await?;
        }
        let sql = "DELETE FROM damaged_summaries WHERE source = $1 AND level >= 0 AND NOT EXISTS (
            SELECT 1 FROM summaries s WHERE s.source = damaged_summaries.source AND s.level = damaged_summaries.level
                AND s.at = damaged_summaries.at AND s.version = damaged_summaries.version AND NOT s.stale)";
        self.change(sql, vec![source.code().into()]).await?;
        Ok(())
    }
}
