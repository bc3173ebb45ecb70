//! State that the handlers of all routes share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::lists::Lists;
use super::live::Live;
use super::report::Reporter;
use crate::config::Token;
use crate::event::Redactor;
use crate::ledger::Reconciler;
use crate::log::SharedLog;
use crate::ops::metrics::ReporterMetrics;
use crate::runtime::Mailbox;
use crate::store::Store;

/// State that the handlers share.
pub(super) struct Shared {
    pub reports: Vec<Mailbox<Reporter>>,
    /// Counter by which requests start at each actor in turn.
    pub turn: AtomicUsize,
    pub store: Store,
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
