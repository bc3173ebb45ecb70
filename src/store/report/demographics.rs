//! Demographics: users of a range of hours by dimension.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::event::Source;
use crate::store::error::StoreError;
use crate::store::report::{Audience, Filter, Report};
use crate::store::summary::{Sections, SummaryView};

impl Report<'_> {
    /// The audience of the hours of a filter's range, by source, with at most `limit` countries and cities each.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if a summary that is needed cannot be decoded; any other if the store is unavailable.
    pub async fn audiences(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<(Source, Audience)>, StoreError> {
        let hours = (filter.from.map(|from| from.div_euclid(60)), filter.to.map(|to| -(-to).div_euclid(60)));
        let sources: Vec<Source> = filter.sources().collect();
        let views = self.store.read_summaries(self.tx()?, &sources, hours, Sections::All, self.cache).await?;
        // Many users are many bytes, so the parts of each view are computed side by side. The shortest part is spawned
        // first: a woken thread may take the core of the one that wakes it, which then wakes the next one late.
        let views: Vec<Arc<SummaryView>> = views.into_iter().map(Arc::new).collect();
        let groups = on_threads(&views, SummaryView::audience);
        let countries = on_threads(&views, move |view| view.countries(limit));
        let cities = on_threads(&views, move |view| view.cities(limit));
        let mut audiences = Vec::new();
        for (((view, audience), countries), cities) in views.iter().zip(groups).zip(countries).zip(cities) {
            let audience = audience.await.map_err(panicked)?;
            let (countries, cities) = (countries.await.map_err(panicked)?, cities.await.map_err(panicked)?);
            audiences.push((view.source, audience.with_locations(countries, cities)));
        }
        Ok(audiences)
    }
}

/// Computes something of each view, each on a thread for blocking work.
fn on_threads<T: Send + 'static>(
    views: &[Arc<SummaryView>],
    compute: impl Fn(&SummaryView) -> T + Copy + Send + 'static,
) -> Vec<JoinHandle<T>> {
    let spawn = |view: &Arc<SummaryView>| {
        let view = view.clone();
        spawn_blocking(move || compute(&view))
    };
    views.iter().map(spawn).collect()
}

fn panicked(error: JoinError) -> StoreError {
    StoreError::internal("computing demographics failed").because(error)
}
