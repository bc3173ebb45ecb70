//! Whom events reached.

use tokio::task::JoinHandle;

use super::error::StoreError;
use super::report::{Filter, Report};
use super::summary::{Asked, Audience};
use crate::event::Source;

impl Report<'_> {
    /// Whom the hours of a filter's range reached, of each source that it asks for, with so many countries
    /// and cities.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn audiences(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<(Source, Audience)>, StoreError> {
        let hours = (filter.from.map(|from| from.div_euclid(60)), filter.to.map(|to| -(-to).div_euclid(60)));
        // Many users are many bytes to go through: one source's while the next one's are read.
        let mut counting: Vec<(Source, JoinHandle<Audience>)> = Vec::new();
        for &source in Source::ALL.iter().filter(|source| filter.asks(**source)) {
            let reading =
                self.store.read_summaries(self.tx()?, source, hours, Asked::Everything, self.cache).await?;
            counting.push((source, tokio::task::spawn_blocking(move || reading.audience(limit))));
        }
        let mut audiences = Vec::new();
        for (source, audience) in counting {
            let audience = audience.await.map_err(|error| StoreError::Transient(error.to_string()))?;
            audiences.push((source, audience));
        }
        Ok(audiences)
    }
}
