//! State that the handlers of all routes share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::lists::Lists;
use super::live::Live;
use super::report::Reporter;
use crate::config::Token;
use crate::ledger::Reconciler;
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
    pub metrics: ReporterMetrics,
    pub live: Arc<Live>,
    pub tokens: Vec<Token>,
}
