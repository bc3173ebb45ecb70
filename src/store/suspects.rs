//! Finding the event that ends collectors.
//!
//! A frame that was delivered too often is tried event by event. Before each try a mark is committed,
//! and taken away when the try is survived. A mark that is found at the next delivery names the event
//! that was being tried when the collector ended.

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
    /// The events of a frame that are known to be guilty, by their position; a mark that an earlier
    /// delivery left becomes such.
    pub async fn guilty(&self, place: FramePlace) -> Result<Vec<usize>, StoreError> {
        let sql = "UPDATE suspects SET guilty = true WHERE source = $1 AND log_id = $2 AND sequence = $3";
        self.execute(sql, place.values()).await?;
        let sql = "SELECT position FROM suspects WHERE source = $1 AND log_id = $2 AND sequence = $3";
        let backend = self.db().get_database_backend();
        let rows =
            self.db().query_all_raw(Statement::from_sql_and_values(backend, sql, place.values())).await?;
        let position = |row: &sea_orm::QueryResult| row.try_get::<i32>("", "position");
        let positions = rows.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        Ok(positions.into_iter().filter_map(|position| usize::try_from(position).ok()).collect())
    }

    /// Marks the event that is tried next.
    pub async fn mark(&self, place: FramePlace, position: usize) -> Result<(), StoreError> {
        let sql = "INSERT INTO suspects (source, log_id, sequence, position, guilty)
                   VALUES ($1, $2, $3, $4, false) ON CONFLICT DO NOTHING";
        self.execute(sql, Self::with_position(place, position)).await
    }

    /// Takes the mark away from an event that was survived.
    pub async fn unmark(&self, place: FramePlace, position: usize) -> Result<(), StoreError> {
        let sql =
            "DELETE FROM suspects WHERE source = $1 AND log_id = $2 AND sequence = $3 AND position = $4";
        self.execute(sql, Self::with_position(place, position)).await
    }

    /// Forgets a frame that was stored.
    pub async fn acquit(&self, place: FramePlace) -> Result<(), StoreError> {
        let sql = "DELETE FROM suspects WHERE source = $1 AND log_id = $2 AND sequence = $3";
        self.execute(sql, place.values()).await
    }

    fn with_position(place: FramePlace, position: usize) -> Vec<Value> {
        let mut values = place.values();
        values.push(i32::try_from(position).unwrap_or(i32::MAX).into());
        values
    }

    pub(super) async fn execute(&self, sql: &str, values: Vec<Value>) -> Result<(), StoreError> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        self.db().execute_raw(statement).await?;
        Ok(())
    }
}
