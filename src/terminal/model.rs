//! State of the system as it was told last, and the judgement of what is wrong.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::feed::FeedMessage;
use super::follow::Update;
use super::reporter::{LedgerRow, ReporterError};
use super::text::{duration, number, printable, rate};
use crate::fleet::{Flow, Instance, Outcome, Sample};
use crate::runtime::{ActorView, State};

/// Time over which rates of actors and growth of the log are told.
const SPAN: Duration = Duration::from_secs(10);
/// Most looks at the processes and most flows that are kept: both come once a second.
const MAX_KEPT: usize = 32;
/// Services whose absence is noticed.
const MAX_SERVICES: usize = 512;
/// Time after which an absent service is taken to be meant.
const ABSENCE_TOLD: Duration = Duration::from_secs(600);
/// Events in the log from which on growth is told.
const GROWN: u64 = 1_000;
/// Time for which a restart is told.
const RESTART_TOLD: Duration = Duration::from_secs(60);
/// Fraction of a mailbox from which on it is told as full.
const FULL: f64 = 0.9;

/// Weight of a finding, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Events are or may be lost.
    Bad,
    /// Something does not work as it should.
    Warning,
    /// Worth knowing.
    Notice,
    /// All is well.
    Good,
}

/// A sentence about the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its weight.
    pub level: Level,
    /// The sentence, printable.
    pub text: String,
}

/// Counters of an actor at one moment.
#[derive(Debug, Clone, Copy)]
struct Counted {
    handled: u64,
    blocked: f64,
    restarts: u64,
}

/// An actor or task, with its rates.
#[derive(Debug, Clone)]
pub struct ActorLoad {
    /// The node as its process tells it.
    pub node: ActorView,
    /// Host name and process id.
    pub instance: String,
    /// Messages or rounds a second.
    pub handled: f64,
    /// Fraction of the time for which senders waited for room; more than 1 if several waited.
    pub blocked: f64,
}

/// A restart that was seen.
#[derive(Debug)]
struct Restarted {
    at: Instant,
    actor: String,
    times: u64,
    why: Option<String>,
}

type Counts = BTreeMap<(String, String), Counted>;

/// State of the connection to the reporter.
#[derive(Debug)]
enum Link {
    Connecting,
    Connected,
    Away { since: Instant, why: String, denied: bool },
}

/// State of the system.
#[derive(Debug)]
pub struct Model {
    link: Link,
    flows: VecDeque<(Instant, Flow)>,
    /// Services, sorted by name.
    pub instances: Vec<Instance>,
    looks: VecDeque<(Instant, Counts)>,
    /// Services that were there since the program started, and when they were told last.
    known: BTreeMap<String, Instant>,
    restarts: VecDeque<Restarted>,
    /// Ledger of each source.
    pub ledger: Vec<LedgerRow>,
    ledger_away: Option<String>,
    refused: Option<Box<Sample>>,
}

impl Model {
    /// State of which nothing is known yet.
    pub fn new() -> Self {
        Self {
            link: Link::Connecting,
            flows: VecDeque::new(),
            instances: Vec::new(),
            looks: VecDeque::new(),
            known: BTreeMap::new(),
            restarts: VecDeque::new(),
            ledger: Vec::new(),
            ledger_away: None,
            refused: None,
        }
    }

    /// Takes news of the reporter.
    pub fn take(&mut self, update: Update, now: Instant) {
        match update {
            Update::Connected => self.link = Link::Connected,
            Update::Away(error) => self.lost(&error, now),
            Update::Message(FeedMessage::Flow(flow)) => {
                self.flows.push_back((now, flow));
                forget(&mut self.flows, now);
            }
            Update::Message(FeedMessage::Sample(sample)) if sample.outcome == Outcome::Refused => {
                self.refused = Some(sample);
            }
            Update::Message(_) | Update::Revenue(_) => {}
            Update::Fleet(Ok(instances)) => self.look(instances, now),
            // The feed tells the same of the reporter.
            Update::Fleet(Err(error)) => tracing::debug!(%error, "the processes are not known"),
            Update::Ledger(Ok(rows)) => {
                self.ledger = rows;
                self.ledger_away = None;
            }
            Update::Ledger(Err(error)) => self.ledger_away = Some(printable(&error.to_string())),
        }
    }

    fn lost(&mut self, error: &ReporterError, now: Instant) {
        let since = match self.link {
            Link::Away { since, .. } => since,
            _ => now,
        };
        self.link = Link::Away { since, why: printable(&error.to_string()), denied: error.is_usage() };
    }

    /// Takes the processes, and counts restarts since the last look.
    fn look(&mut self, mut instances: Vec<Instance>, now: Instant) {
        instances.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        let mut counts = Counts::new();
        for one in &instances {
            for node in leaves(&one.actors) {
                let counted =
                    Counted { handled: node.handled, blocked: node.blocked_seconds, restarts: node.restarts };
                let key = (one.instance.clone(), node.name.clone());
                let before = self.looks.back().and_then(|(_, before)| before.get(&key));
                let times = before.map_or(0, |before| node.restarts.saturating_sub(before.restarts));
                if times > 0 {
                    let why = node.last_failure.clone();
                    self.restarts.push_back(Restarted { at: now, actor: node.name.clone(), times, why });
                }
                counts.insert(key, counted);
            }
            if self.known.contains_key(&one.service) || self.known.len() < MAX_SERVICES {
                self.known.insert(one.service.clone(), now);
            }
        }
        self.known.retain(|_, told| now.duration_since(*told) < ABSENCE_TOLD);
        self.restarts.retain(|restart| now.duration_since(restart.at) < RESTART_TOLD);
        while self.restarts.len() > MAX_KEPT {
            self.restarts.pop_front();
        }
        self.looks.push_back((now, counts));
        forget(&mut self.looks, now);
        self.instances = instances;
    }

    /// The newest flow.
    pub fn flow(&self) -> Option<&Flow> {
        self.flows.back().map(|(_, flow)| flow)
    }

    /// True if figures are old, because the reporter is away.
    pub fn is_stale(&self) -> bool {
        matches!(self.link, Link::Away { .. })
    }

    /// Every actor and task with its rates, in the order of processes.
    pub fn actors(&self) -> Vec<ActorLoad> {
        let oldest = self.looks.front().zip(self.looks.back());
        let load = |instance: &Instance, node: &ActorView| {
            let key = (instance.instance.clone(), node.name.clone());
            let rates = oldest.and_then(|((then, before), (now, _))| {
                let seconds = now.duration_since(*then).as_secs_f64();
                let before = before.get(&key).filter(|_| seconds > 0.0)?;
                // A process that was started again counts from 0.
                let handled = node.handled.saturating_sub(before.handled) as f64;
                Some((handled / seconds, (node.blocked_seconds - before.blocked).max(0.0) / seconds))
            });
            let (handled, blocked) = rates.unwrap_or_default();
            ActorLoad { node: node.clone(), instance: instance.instance.clone(), handled, blocked }
        };
        self.instances
            .iter()
            .flat_map(|instance| leaves(&instance.actors).into_iter().map(move |node| (instance, node)))
            .map(|(instance, node)| load(instance, node))
            .collect()
    }

    /// Sentences about the system, the worst first; never empty.
    pub fn findings(&self, now: Instant) -> Vec<Finding> {
        let mut all = Vec::new();
        let mut find = |level, text| all.push(Finding { level, text });
        if let Link::Away { since, why, denied } = &self.link {
            let ago = duration(now.duration_since(*since).as_secs_f64());
            find(
                Level::Bad,
                match denied {
                    true => format!("the reporter refuses: {why}"),
                    false => {
                        format!("the reporter has not answered for {ago}: {why}; figures are old")
                    }
                },
            );
        }
        for row in self.ledger.iter().filter(|row| row.missing > 0) {
            let text = format!(
                "{}: {} events are missing: published, and neither in the log nor stored",
                printable(&row.source),
                number(row.missing)
            );
            find(Level::Bad, text);
        }
        if !self.is_stale() {
            self.judge_processes(now, &mut find);
            self.judge_flow(&mut find);
        }
        if let Some(why) = &self.ledger_away
            && !self.is_stale()
        {
            find(Level::Warning, format!("the ledger is not known: {why}"));
        }
        all.sort_by_key(|finding| finding.level);
        if all.iter().all(|finding| finding.level == Level::Notice) {
            all.insert(0, self.well());
        }
        all
    }

    fn well(&self) -> Finding {
        match (&self.link, self.ledger.is_empty()) {
            (Link::Connecting, _) | (_, true) => {
                Finding { level: Level::Notice, text: "connecting".to_owned() }
            }
            _ => Finding {
                level: Level::Good,
                text: "all well: every published event is accounted for".to_owned(),
            },
        }
    }

    fn judge_processes(&self, now: Instant, find: &mut impl FnMut(Level, String)) {
        let there = |service: &str| self.instances.iter().any(|one| one.service == service);
        for (service, told) in self.known.iter().filter(|(service, _)| !there(service)) {
            let ago = duration(now.duration_since(*told).as_secs_f64());
            find(Level::Warning, format!("{}: no process has told of itself for {ago}", printable(service)));
        }
        for one in self.instances.iter().filter(|one| !one.ready) {
            let why = one.why.as_deref().unwrap_or("no reason is told");
            let text = format!("{} {} is not ready: {why}", one.service, one.instance);
            find(Level::Warning, printable(&text));
        }
        for restart in self.restarts.iter().rev() {
            let why = restart.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let ago = duration(now.duration_since(restart.at).as_secs_f64());
            let times = if restart.times == 1 { String::new() } else { format!(" {} times", restart.times) };
            find(
                Level::Warning,
                printable(&format!("{} was restarted{times} {ago} ago{why}", restart.actor)),
            );
        }
        for one in &self.instances {
            for node in leaves(&one.actors) {
                let fill = node.mailbox.depth as f64 / node.mailbox.bound.max(1) as f64;
                if node.mailbox.bound > 0 && fill >= FULL {
                    let text = format!("{} {}: its mailbox is full, senders wait", node.name, one.instance);
                    find(Level::Warning, printable(&text));
                }
                if node.state == State::Stopped && one.ready {
                    find(Level::Warning, printable(&format!("{} {} has stopped", node.name, one.instance)));
                }
            }
        }
    }

    fn judge_flow(&self, find: &mut impl FnMut(Level, String)) {
        let Some(flow) = self.flow() else { return };
        for of in &flow.sources {
            if self.grows(&of.source) {
                let waiting = number(of.in_flight.unwrap_or(0));
                let text = format!("{}: the log grows, {waiting} events wait for a collector", of.source);
                find(Level::Warning, printable(&text));
            }
            if of.refused > 0.0 {
                let share = 100.0 * of.refused / of.received.max(of.refused);
                let example = self.example(&of.source).unwrap_or_default();
                let text =
                    format!("{}: {}/s are refused ({share:.0} %){example}", of.source, rate(of.refused));
                find(Level::Notice, printable(&text));
            }
        }
    }

    /// The last refusal of a source, as the end of a sentence.
    fn example(&self, source: &str) -> Option<String> {
        let sample = self.refused.as_ref()?;
        let known = sample.source.as_deref().unwrap_or(crate::ops::metrics::UNKNOWN_SOURCE);
        let error = sample.errors.first().filter(|_| known == source)?;
        let path = if error.path.is_empty() { "the event" } else { &error.path };
        Some(format!(", the last for {path}: {}", error.message))
    }

    /// True if events of a source have waited in the log over the whole span, and ever more of them.
    fn grows(&self, source: &str) -> bool {
        let waiting = |(_, flow): &(Instant, Flow)| {
            let of = flow.sources.iter().find(|of| of.source == source);
            of.and_then(|of| of.in_flight).unwrap_or(0)
        };
        let waiting: Vec<u64> = self.flows.iter().map(waiting).collect();
        let (earlier, later) = waiting.split_at(waiting.len() / 2);
        let most_before = earlier.iter().max().copied().unwrap_or(0);
        let least_after = later.iter().min().copied().unwrap_or(0);
        waiting.len() >= 8 && earlier[0] > 0 && least_after > most_before.max(GROWN)
    }
}

/// Drops what is older than [`SPAN`], and all beyond [`MAX_KEPT`].
fn forget<T>(kept: &mut VecDeque<(Instant, T)>, now: Instant) {
    while kept.len() > MAX_KEPT
        || kept.front().is_some_and(|(at, _)| kept.len() > 1 && now.duration_since(*at) > SPAN)
    {
        kept.pop_front();
    }
}

/// Nodes without children: actors and tasks.
fn leaves(nodes: &[ActorView]) -> Vec<&ActorView> {
    let mut found = Vec::new();
    let mut open: Vec<&ActorView> = nodes.iter().rev().collect();
    while let Some(node) = open.pop() {
        if node.children.is_empty() {
            found.push(node);
        }
        open.extend(node.children.iter().rev());
    }
    found
}

#[cfg(test)]
pub(super) mod tests;
