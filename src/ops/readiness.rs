//! Whether a service can do its work, as its background probes last saw it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// How long a dependency may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The last answer of each dependency. Before the first one, it counts as away.
#[derive(Debug)]
pub struct Readiness {
    service: &'static str,
    answers: RwLock<BTreeMap<&'static str, Result<(), String>>>,
}

impl Readiness {
    /// A service that needs these.
    pub fn new(service: &'static str, dependencies: &[&'static str]) -> Self {
        let waiting = |name: &&'static str| (*name, Err("has not answered yet".to_owned()));
        Self { service, answers: RwLock::new(dependencies.iter().map(waiting).collect()) }
    }

    /// Reports what a probe answers, or that it does not.
    pub async fn probe<E: Display>(
        &self,
        dependency: &'static str,
        probe: impl Future<Output = Result<(), E>>,
    ) {
        let answer = match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {PROBE_TIMEOUT:?}")),
        };
        self.report(dependency, answer);
    }

    /// What a dependency answered. Changes are logged.
    pub fn report(&self, dependency: &'static str, answer: Result<(), String>) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        let service = self.service;
        let before = answers.insert(dependency, answer.clone());
        match (before, answer) {
            (Some(Err(_)) | None, Ok(())) => tracing::info!(service, dependency, "dependency is ready"),
            (before, Err(why)) if before.as_ref() != Some(&Err(why.clone())) => {
                tracing::warn!(service, dependency, why, "dependency is not ready");
            }
            _ => {}
        }
    }

    /// What is not ready, and why.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.iter().filter_map(|(name, answer)| Some((*name, answer.clone().err()?))).collect()
    }
}
