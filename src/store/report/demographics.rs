//! Whom events reached.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::event::Source;
use crate::store::error::StoreError;
use crate::store::report::{Filter, Report};
use crate::store::summary::{Asked, Audience, Reading};

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
        // Many users are many bytes to go through: in parts, side by side. The shortest first: a thread that is woken
        // may take the place of the one that wakes it, which then wakes the next one only when it has ended.
        let readings: Vec<Arc<Reading>> = readings.into_iter().map(Arc::new).collect();
        let groups: Vec<_> = apart(&readings, Reading::audience);
        let countries: Vec<_> = apart(&readings, move |reading| reading.countries(limit));
        let cities: Vec<_> = apart(&readings, move |reading| reading.cities(limit));
        let mut audiences = Vec::new();
        for (((reading, audience), countries), cities) in
            readings.iter().zip(groups).zip(countries).zip(cities)
        {
            let audience = audience.await.map_err(failed)?;
            let (countries, cities) = (countries.await.map_err(failed)?, cities.await.map_err(failed)?);
            audiences.push((reading.source, audience.with(countries, cities)));
        }
        Ok(audiences)
    }
}

/// Works on each reading, on a thread of its own.
fn apart<T: Send + 'static>(
    readings: &[Arc<Reading>],
    work: impl Fn(&Reading) -> T + Copy + Send + 'static,
) -> Vec<JoinHandle<T>> {
    let on = |reading: &Arc<Reading>| {
        let reading = reading.clone();
        spawn_blocking(move || work(&reading))
    };
    readings.iter().map(on).collect()
}

fn failed(error: JoinError) -> StoreError {
    StoreError::unavailable(error.to_string())
}
