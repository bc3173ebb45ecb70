//! Whom a source's events reached.

use super::error::StoreError;
use super::report::{Filter, Report};
use super::summary::Summary;
use crate::event::Source;

impl Report<'_> {
    /// What the hours of a filter's range add up to, for one source.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn audience(&self, filter: &Filter, source: Source) -> Result<Summary, StoreError> {
        let hours = (filter.from.map(|from| from.div_euclid(60)), filter.to.map(|to| -(-to).div_euclid(60)));
        let reading = self.store.read_summaries(self.tx()?, source, hours, self.cache).await?;
        // Many users are many bytes to go through.
        tokio::task::spawn_blocking(move || reading.sum())
            .await
            .map_err(|error| StoreError::Transient(error.to_string()))
    }
}
