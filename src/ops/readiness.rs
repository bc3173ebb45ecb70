//! Whether a service can do its work, as its background probes last saw it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often it is said that a dependency is still away.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// How long a dependency may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A dependency's last answer, and when it was said last.
#[derive(Debug)]
struct Answer {
    answer: Result<(), String>,
    said: Option<Instant>,
}

/// The last answer of each dependency. Before the first one, it counts as away.
#[derive(Debug)]
pub struct Readiness {
    service: &'static str,
    answers: RwLock<BTreeMap<&'static str, Answer>>,
    /// Parts of dependencies. The service is ready without them, and says which are away.
    parts: RwLock<BTreeMap<String, Answer>>,
}

impl Readiness {
    /// A service that needs these.
    pub fn new(service: &'static str, dependencies: &[&'static str]) -> Self {
        let waiting = |name: &&'static str| {
            (*name, Answer { answer: Err("has not answered yet".to_owned()), said: None })
        };
        let answers = RwLock::new(dependencies.iter().map(waiting).collect());
        Self { service, answers, parts: RwLock::default() }
    }

    /// Reports what a probe answers, or that it does not.
    pub async fn probe<E: Display>(
        &self,
        dependency: &'static str,
        probe: impl Future<Output = Result<(), E>>,
    ) {
        self.report(dependency, within(probe).await);
    }

    /// Reports what a part of a dependency answers to a probe, or that it does not, and gives it back.
    pub async fn probe_part<E: Display>(
        &self,
        part: &str,
        probe: impl Future<Output = Result<(), E>>,
    ) -> Result<(), String> {
        let answer = within(probe).await;
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let before = parts.remove(part);
        let said = note(self.service, part, before, &answer);
        parts.insert(part.to_owned(), Answer { answer: answer.clone(), said });
        answer
    }

    /// What a dependency answered. Changes are logged, and every few seconds that it is still away.
    pub fn report(&self, dependency: &'static str, answer: Result<(), String>) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        let before = answers.remove(dependency);
        let said = note(self.service, dependency, before, &answer);
        answers.insert(dependency, Answer { answer, said });
    }

    /// Every dependency and every part of one; true if it answers.
    pub fn answers(&self) -> Vec<(String, bool)> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let whole = answers.iter().map(|(name, answer)| ((*name).to_owned(), answer.answer.is_ok()));
        whole.chain(parts.iter().map(|(name, part)| (name.clone(), part.answer.is_ok()))).collect()
    }

    /// Parts that are away while the service is ready, and why.
    pub fn degraded(&self) -> BTreeMap<String, String> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(name, part)| Some((name.clone(), part.answer.clone().err()?))).collect()
    }

    /// What is not ready, and why.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.iter().filter_map(|(name, answer)| Some((*name, answer.answer.clone().err()?))).collect()
    }
}

/// A probe's answer, or that there is none in time.
async fn within<E: Display>(probe: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PROBE_TIMEOUT:?}")),
    }
}

/// Logs a change, and every [`SAY_AGAIN`] that a dependency is still away. Gives the time at which that was said.
fn note(
    service: &str,
    dependency: &str,
    before: Option<Answer>,
    answer: &Result<(), String>,
) -> Option<Instant> {
    let was_ready = before.as_ref().is_some_and(|before| before.answer.is_ok());
    let said = before.as_ref().and_then(|before| before.said);
    match answer {
        Ok(()) if !was_ready => tracing::info!(service, dependency, "dependency is ready"),
        Ok(()) => {}
        Err(why) => {
            let another = before.is_none_or(|before| before.answer != *answer);
            if another || said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                tracing::warn!(service, dependency, why, "dependency is not ready");
                return Some(Instant::now());
            }
        }
    }
    said
}
