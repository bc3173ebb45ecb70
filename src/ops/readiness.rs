//! Readiness of a service: the last answer of each dependency to its background probes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Interval of log lines about a dependency that stays away.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time for a dependency's answer to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason for which a dependency counts as away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Away {
    /// The dependency was not asked yet.
    #[error("has not answered yet")]
    NotAsked,
    /// The dependency does not answer.
    #[error("no answer within {PROBE_TIMEOUT:?}")]
    NoAnswer,
    /// Its own error, or the state it is in. Text, so that answers can be kept and compared.
    #[error("{0}")]
    Failed(String),
}

impl Away {
    /// The reason that an error is.
    pub fn because(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The last answer of a dependency.
#[derive(Debug)]
struct Answer {
    answer: Result<(), Away>,
    /// Time of the last log line that it is away.
    logged_at: Option<Instant>,
}

/// The last answer of each dependency. A dependency that has not answered yet counts as away.
#[derive(Debug)]
pub struct Readiness {
    service: &'static str,
    answers: RwLock<BTreeMap<&'static str, Answer>>,
    /// Parts of dependencies, such as topics of the log. The service is ready without them, and `/ready` lists the
    /// ones that are away as `degraded`.
    parts: RwLock<BTreeMap<String, Answer>>,
}

impl Readiness {
    /// Readiness of a service with these dependencies.
    pub fn new(service: &'static str, dependencies: &[&'static str]) -> Self {
        let waiting = |name: &&'static str| (*name, Answer { answer: Err(Away::NotAsked), logged_at: None });
        let answers = RwLock::new(dependencies.iter().map(waiting).collect());
        Self { service, answers, parts: RwLock::default() }
    }

    /// Runs a probe of a dependency, with a time limit, and reports its answer.
    pub async fn probe<E: Display>(
        &self,
        dependency: &'static str,
        probe: impl Future<Output = Result<(), E>>,
    ) {
        self.report(dependency, within(probe).await);
    }

    /// Runs a probe of a part of a dependency, with a time limit; reports and returns its answer.
    pub async fn probe_part<E: Display>(
        &self,
        part: &str,
        probe: impl Future<Output = Result<(), E>>,
    ) -> Result<(), Away> {
        let answer = within(probe).await;
        self.report_part(part, answer.clone());
        answer
    }

    /// Records the answer of a part of a dependency.
    pub fn report_part(&self, part: &str, answer: Result<(), Away>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let before = parts.remove(part);
        let logged_at = log_change(self.service, part, before, &answer);
        parts.insert(part.to_owned(), Answer { answer, logged_at });
    }

    /// Records the answer of a dependency. Changes are logged; so is, every few seconds, that it is still away.
    pub fn report(&self, dependency: &'static str, answer: Result<(), Away>) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        let before = answers.remove(dependency);
        let logged_at = log_change(self.service, dependency, before, &answer);
        answers.insert(dependency, Answer { answer, logged_at });
    }

    /// Names of all dependencies and parts; true for the ones that answer.
    pub fn answers(&self) -> Vec<(String, bool)> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let whole = answers.iter().map(|(name, answer)| ((*name).to_owned(), answer.answer.is_ok()));
        whole.chain(parts.iter().map(|(name, part)| (name.clone(), part.answer.is_ok()))).collect()
    }

    /// Parts that are away, and the errors.
    pub fn degraded(&self) -> BTreeMap<String, String> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|(name, part)| Some((name.clone(), part.answer.as_ref().err()?.to_string())))
            .collect()
    }

    /// Dependencies that are away, and the errors.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers
            .iter()
            .filter_map(|(name, answer)| Some((*name, answer.answer.as_ref().err()?.to_string())))
            .collect()
    }
}

/// The answer of a probe; an error after [`PROBE_TIMEOUT`].
async fn within<E: Display>(probe: impl Future<Output = Result<(), E>>) -> Result<(), Away> {
    match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(answer) => answer.map_err(Away::because),
        Err(_) => Err(Away::NoAnswer),
    }
}

/// Logs a change, and every [`LOG_INTERVAL`] that a dependency is still away. Returns the time of the last such line.
fn log_change(
    service: &str,
    dependency: &str,
    before: Option<Answer>,
    answer: &Result<(), Away>,
) -> Option<Instant> {
    let was_ready = before.as_ref().is_some_and(|before| before.answer.is_ok());
    let logged_at = before.as_ref().and_then(|before| before.logged_at);
    match answer {
        Ok(()) if !was_ready => tracing::info!(service, dependency, "dependency is ready"),
        Ok(()) => {}
        Err(why) => {
            let changed = before.is_none_or(|before| before.answer != *answer);
            if changed || logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                tracing::warn!(service, dependency, %why, "dependency is not ready");
                return Some(Instant::now());
            }
        }
    }
    logged_at
}
