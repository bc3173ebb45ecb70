//! Readiness of the gateway: a background task probes each topic of the log.
//!
//! A gateway is ready while the log takes events of at least one source. Topics that are away, and the dead letters'
//! topic, are named in the answer of `/ready`. So are copies of a topic on servers of a cluster that are away or behind:
//! the topic takes events without them, but another server may not be lost then.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::LOG;
use crate::event::Source;
use crate::log::{Copies, Log, LogError, SharedLog, Topic, TopicState};
use crate::ops::metrics::GatewayMetrics;
use crate::ops::{Away, Readiness};
use crate::runtime::Node;
use crate::service::Builder;

/// Interval between two probes of a topic.
const PROBE: Duration = Duration::from_secs(1);

/// The last answer of each source's topic; `None` before the first.
type Answers = Arc<Mutex<BTreeMap<String, Option<Result<(), Away>>>>>;

/// Starts the probe of each topic.
pub(super) fn start(service: &Builder, log: &SharedLog, metrics: &GatewayMetrics) {
    let (group, thread) = (service.group("probe"), service.main_thread());
    let streams = log.streams_per_source();
    let sources: Vec<Topic> = Source::all().flat_map(|source| Topic::streams(source, streams)).collect();
    let answers: Answers = Arc::new(Mutex::new(sources.iter().map(|topic| (part(*topic), None)).collect()));
    for topic in sources.into_iter().chain([Topic::DeadLetters]) {
        let task = (log.clone(), service.readiness.clone(), metrics.clone(), answers.clone());
        group.task(&format!("probe.{topic}"), &thread, move |node| {
            let (log, readiness, metrics, answers) = task.clone();
            probe(topic, log, readiness, metrics, answers, node)
        });
    }
}

async fn probe(
    topic: Topic,
    log: SharedLog,
    readiness: Arc<Readiness>,
    metrics: GatewayMetrics,
    answers: Answers,
    node: Arc<Node>,
) {
    let mut leader = None;
    loop {
        let mut found = None;
        let answer = readiness.probe_part(&part(topic), check(&*log, topic, &mut found)).await;
        if let Some(state) = found {
            metrics.set_log(topic, &state);
            if let Some(copies) = state.copies.as_ref().filter(|copies| copies.wanted > 1) {
                if changes(&mut leader, copies) {
                    metrics.count_leader(topic);
                    tracing::info!(%topic, leader, "another server leads the stream");
                }
                let _ =
                    readiness.probe_part(&format!("{}.copies", part(topic)), ready(complete(copies))).await;
            }
        }
        if let Some(answer) = whole(&answers, topic, answer) {
            readiness.report(LOG, answer);
        }
        node.count_handled();
        tokio::time::sleep(PROBE).await;
    }
}

/// Name of a topic in readiness.
fn part(topic: Topic) -> String {
    format!("{LOG}.{topic}")
}

/// Remembers the leader; true if another one was known before.
fn changes(known: &mut Option<String>, copies: &Copies) -> bool {
    let Some(leader) = &copies.leader else { return false };
    known.replace(leader.clone()).is_some_and(|before| before != *leader)
}

/// An error that names the servers whose copies are not up to date.
fn complete(copies: &Copies) -> Result<(), String> {
    let Copies { wanted, behind, .. } = copies;
    if behind.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} of {wanted} copies are up to date: {}",
        wanted.saturating_sub(behind.len()),
        behind.join(", ")
    ))
}

/// Makes a topic if it is not there, and finds its state; an error if it is full.
async fn check(log: &dyn Log, topic: Topic, found: &mut Option<TopicState>) -> Result<(), LogError> {
    log.prepare(topic).await?;
    let state = log.state(topic).await?;
    let full = state.bytes >= state.max_bytes;
    *found = Some(state);
    if full { Err(LogError::Unavailable("it is full".into())) } else { Ok(()) }
}

/// The answer of the whole log, after one topic's: `None` until each source's topic has answered.
fn whole(answers: &Answers, topic: Topic, answer: Result<(), Away>) -> Option<Result<(), Away>> {
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
    Some(Err(Away::Failed(away.collect::<Vec<_>>().join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_away_is_named_and_a_new_leader_is_noticed_once() {
        let copies = |leader: &str, behind: &[&str]| Copies {
            wanted: 3,
            leader: Some(leader.to_owned()),
            behind: behind.iter().map(|why| (*why).to_owned()).collect(),
        };
        assert_eq!(complete(&copies("n1", &[])), Ok(()));
        let error = complete(&copies("n1", &["n3 is away"])).unwrap_err();
        assert_eq!(error, "2 of 3 copies are up to date: n3 is away");
        let mut known = None;
        assert!(!changes(&mut known, &copies("n1", &[])), "the first that is seen");
        assert!(!changes(&mut known, &copies("n1", &[])));
        assert!(!changes(&mut known, &Copies { leader: None, ..copies("n1", &[]) }), "an election");
        assert!(changes(&mut known, &copies("n2", &[])));
    }

    #[test]
    fn the_log_is_ready_while_the_topic_of_one_source_is() {
        let names = Source::all().map(|source| (part(Topic::Events(source)), None));
        let answers: Answers = Arc::new(Mutex::new(names.collect()));
        let (facebook, tiktok) = (Topic::Events(Source::FACEBOOK), Topic::Events(Source::TIKTOK));
        assert_eq!(whole(&answers, facebook, Ok(())), None, "tiktok has not answered yet");
        assert_eq!(whole(&answers, tiktok, Err(Away::Failed("away".to_owned()))), Some(Ok(())));
        assert_eq!(whole(&answers, Topic::DeadLetters, Err(Away::Failed("away".to_owned()))), Some(Ok(())));
        let none =
            whole(&answers, facebook, Err(Away::Failed("full".to_owned()))).unwrap().unwrap_err().to_string();
        assert!(none.contains("log.facebook: full") && none.contains("log.tiktok: away"), "{none}");
    }
}
