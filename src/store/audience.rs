//! Whom events reached.

use std::sync::Arc;

use tokio::task::{JoinError, spawn_blocking};

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
        let sources: Vec<Source> = filter.sources().collect();
        let readings =
            self.store.read_summaries(self.tx()?, &sources, hours, Asked::Everything, self.cache).await?;
        // Many users are many bytes to go through: in parts of about as much, side by side.
        let mut counting = Vec::new();
        for reading in readings {
            let reading = Arc::new(reading);
            let (source, of_countries, of_cities) = (reading.source, reading.clone(), reading.clone());
            let countries = spawn_blocking(move || of_countries.countries(limit));
            let cities = spawn_blocking(move || of_cities.cities(limit));
            counting.push((source, spawn_blocking(move || reading.audience()), countries, cities));
        }
        let mut audiences = Vec::new();
        let failed = |error: JoinError| StoreError::Transient(error.to_string());
        for (source, audience, countries, cities) in counting {
            let (countries, cities) = (countries.await.map_err(failed)?, cities.await.map_err(failed)?);
            audiences.push((source, audience.await.map_err(failed)?.with(countries, cities)));
        }
        Ok(audiences)
    }
}
