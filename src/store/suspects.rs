//! Finding the event that ends collectors.
//!
//! A frame that was delivered too often is tried event by event. Before each try a mark is committed,
//! and taken away when the try is survived. A mark that a later delivery finds names the event that was
//! being tried when the collector ended, by its own fault or not: a strike. Two make it guilty.

use sea_orm::{ConnectionTrait, Statement, Value};
use uuid::Uuid;

use super::connect::Store;
use super::error::StoreError;
use crate::event::Source;

/// A frame, by its place.
#[derive(Debug, Clone, Copy)]
pub struct FramePlace {
    /// The source.
    pub source: Source,
    /// Which log.
    pub log_id: Uuid,
    /// Its place in the log.
    pub sequence: u64,
}

impl FramePlace {
    fn values(self) -> Vec<Value> {
        let sequence = i64::try_from(self.sequence).unwrap_or(i64::MAX);
        vec![self.source.code().into(), self.log_id.into(), sequence.into()]
    }
}

impl Store {
    /// The events of a frame that are guilty by the time of this delivery, by their position.
    pub async fn guilty(&self, place: FramePlace, delivery: u64) -> Result<Vec<usize>, StoreError> {
        let delivery = i64::try_from(delivery).unwrap_or(i64::MAX);
        let mut values = place.values();
        values.push(delivery.into());
        let sql = "UPDATE suspects SET strikes = strikes + 1, delivery = $4
                   WHERE source = $1 AND log_id = $2 AND sequence = $3 AND delivery < $4";
        self.change(sql, values).await?;
        let sql = "SELECT position FROM suspects
                   WHERE source = $1 AND log_id = $2 AND sequence = $3 AND strikes >= 2";
        let backend = self.db().get_database_backend();
        let rows =
            self.db().query_all_raw(Statement::from_sql_and_values(backend, sql, place.values())).await?;
        let position = |row: &sea_orm::QueryResult| row.try_get::<i32>("", "position");
        let positions = rows.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        Ok(positions.into_iter().filter_map(|position| usize::try_from(position).ok()).collect())
    }

    /// Marks the event that is tried next. Strikes that it has already stay.
    pub async fn mark(&self, place: FramePlace, position: usize, delivery: u64) -> Result<(), StoreError> {
        let sql = "INSERT INTO suspects (source, log_id, sequence, position, delivery, strikes)
                   VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT DO NOTHING";
        let mut values = Self::with_position(place, position);
        values.push(i64::try_from(delivery).unwrap_or(i64::MAX).into());
        self.change(sql, values).await.map(drop)
    }

    /// Takes the mark away from an event that was survived.
    pub async fn unmark(&self, place: FramePlace, position: usize) -> Result<(), StoreError> {
        let sql =
            "DELETE FROM suspects WHERE source = $1 AND log_id = $2 AND sequence = $3 AND position = $4";
        self.change(sql, Self::with_position(place, position)).await.map(drop)
    }

    /// Forgets a frame that was stored.
    pub async fn acquit(&self, place: FramePlace) -> Result<(), StoreError> {
        let sql = "DELETE FROM suspects WHERE source = $1 AND log_id = $2 AND sequence = $3";
        self.change(sql, place.values()).await.map(drop)
    }

    fn with_position(place: FramePlace, position: usize) -> Vec<Value> {
        let mut values = place.values();
        values.push(i32::try_from(position).unwrap_or(i32::MAX).into());
        values
    }
}
