//! State that the handlers of all routes share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::error::ReportError;
use super::lists::Lists;
use super::live::Live;
use super::query::Parameters;
use super::report::Reporter;
use crate::config::Token;
use crate::event::Redactor;
use crate::ledger::Reconciler;
use crate::log::SharedLog;
use crate::ops::Sampler;
use crate::ops::metrics::ReporterMetrics;
use crate::runtime::Mailbox;
use crate::store::Store;

/// State that the handlers share.
pub(super) struct Shared {
    pub reports: Vec<Mailbox<Reporter>>,
    /// Counter by which requests start at each actor in turn.
    pub turn: AtomicUsize,
    pub store: Store,
    /// Limits how often a name that is not known makes the reporter read the dictionary.
    pub unknown_names: Sampler,
    pub lists: Lists,
    /// None if no log is configured.
    pub ledgers: Option<Arc<Reconciler>>,
    /// Takes replayed events; `None` if no log is configured.
    pub log: Option<SharedLog>,
    /// Permit of the one replay at a time.
    pub replaying: Semaphore,
    /// Takes personal data out of letters that were set aside before `ESS_PII` was set.
    pub redactor: Option<Redactor>,
    /// Folder of source files, for the replay of letters of declared sources.
    pub source_folder: PathBuf,
    pub metrics: ReporterMetrics,
    pub live: Arc<Live>,
    pub tokens: Vec<Token>,
}

/// Reads of the dictionary a second, at most, for names that are not known.
pub(super) const DICTIONARY_READS_PER_SECOND: u32 = 4;

impl Shared {
    /// The parameters of a query. A source or a type of event that a collector has learnt just now is known to the
    /// reporter afterwards.
    ///
    /// # Errors
    ///
    /// If a parameter is none of those that are allowed.
    pub async fn parameters(
        &self,
        query: &str,
        allowed: &'static [&'static str],
    ) -> Result<Parameters, ReportError> {
        let parameters = Parameters::read(query, allowed)?;
        if parameters.has_unknown_names()
            && self.unknown_names.pass()
            && let Err(error) = self.store.read_dictionary().await
        {
            tracing::debug!(%error, "the dictionary was not read now");
        }
        Ok(parameters)
    }
}
