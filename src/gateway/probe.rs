//! Readiness of the gateway: each topic of the log is asked by itself.
//!
//! A gateway is ready while the log takes events of one source at least. Its other topics, and the dead letters',
//! are named in the answer of `/ready` while they are away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::LOG;
use crate::log::{Log, LogError, SharedLog, Topic};
use crate::ops::Readiness;
use crate::ops::metrics::GatewayMetrics;

/// Time between two probes of a topic.
const PROBE: Duration = Duration::from_secs(1);

/// The last answer of each source's topic; `None` before the first.
type Answers = Arc<Mutex<BTreeMap<String, Option<Result<(), String>>>>>;

/// Starts a probe for each topic.
pub(super) fn start(
    log: &SharedLog,
    readiness: &Arc<Readiness>,
    metrics: &GatewayMetrics,
) -> Vec<JoinHandle<()>> {
    let sources = Topic::all().filter(|topic| matches!(topic, Topic::Events(_)));
    let answers: Answers = Arc::new(Mutex::new(sources.map(|topic| (part(topic), None)).collect()));
    Topic::all()
        .map(|topic| {
            let (log, readiness, metrics) = (log.clone(), readiness.clone(), metrics.clone());
            let answers = answers.clone();
            tokio::spawn(async move {
                loop {
                    let answer = readiness.probe_part(&part(topic), check(&*log, topic, &metrics)).await;
                    if let Some(answer) = whole(&answers, topic, answer) {
                        readiness.report(LOG, answer);
                    }
                    tokio::time::sleep(PROBE).await;
                }
            })
        })
        .collect()
}

/// A topic, as readiness names it.
fn part(topic: Topic) -> String {
    format!("{LOG}.{topic}")
}

/// Makes a topic where that is needed, and asks for its state.
async fn check(log: &dyn Log, topic: Topic, metrics: &GatewayMetrics) -> Result<(), LogError> {
    log.prepare(topic).await?;
    let state = log.state(topic).await?;
    metrics.set_log(topic, &state);
    if state.bytes >= state.max_bytes {
        return Err(LogError::Unavailable("it is full".to_owned()));
    }
    Ok(())
}

/// The answer of the whole log, after a topic's: `None` as long as a source has not answered yet.
fn whole(answers: &Answers, topic: Topic, answer: Result<(), String>) -> Option<Result<(), String>> {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = answers.get_mut(&part(topic)) {
        *known = Some(answer);
    }
    let answers: Vec<_> =
        answers.iter().map(|(part, answer)| Some((part, answer.as_ref()?))).collect::<Option<_>>()?;
    if answers.iter().any(|(_, answer)| answer.is_ok()) {
        return Some(Ok(()));
    }
    let away =
        answers.iter().filter_map(|(part, answer)| Some(format!("{part}: {}", answer.as_ref().err()?)));
    Some(Err(away.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Source;

    #[test]
    fn one_source_that_is_served_is_enough() {
        let names = Source::ALL.iter().map(|source| (part(Topic::Events(*source)), None));
        let answers: Answers = Arc::new(Mutex::new(names.collect()));
        let (facebook, tiktok) = (Topic::Events(Source::Facebook), Topic::Events(Source::Tiktok));
        assert_eq!(whole(&answers, facebook, Ok(())), None, "tiktok has not answered yet");
        assert_eq!(whole(&answers, tiktok, Err("away".to_owned())), Some(Ok(())));
        assert_eq!(whole(&answers, Topic::DeadLetters, Err("away".to_owned())), Some(Ok(())));
        let none = whole(&answers, facebook, Err("full".to_owned())).unwrap().unwrap_err();
        assert!(none.contains("log.facebook: full") && none.contains("log.tiktok: away"), "{none}");
    }
}
