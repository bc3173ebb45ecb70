//! Follows a reporter for as long as somebody watches: its feed, and what it has to be asked for.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::feed::FeedMessage;
use super::reporter::{LedgerRow, Reporter, ReporterError, Revenue};
use crate::fleet::Instance;

/// Updates that wait for the watcher.
const QUEUE: usize = 64;
/// First and longest pause before the feed is asked for again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Interval at which processes are asked for: each tells of itself once a second.
const FLEET_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the ledger and the revenue are asked for.
const LEDGER_INTERVAL: Duration = Duration::from_secs(2);

/// News of a reporter.
#[derive(Debug)]
pub enum Update {
    /// The feed is read from now on.
    Connected,
    /// The feed is not read; it is asked for again after a pause.
    Away(ReporterError),
    /// A message of the feed.
    Message(FeedMessage),
    /// The processes, or why they are not known.
    Fleet(Result<Vec<Instance>, ReporterError>),
    /// The ledger, or why it is not known.
    Ledger(Result<Vec<LedgerRow>, ReporterError>),
    /// Revenue of all time.
    Revenue(Revenue),
}

/// Figures that are asked for beside the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    /// None: the feed alone.
    Feed,
    /// Processes and the ledger.
    System,
    /// The ledger and the revenue.
    Totals,
}

/// Follows a reporter until the receiver is dropped; `query` filters the feed's samples.
pub fn watch(reporter: &Reporter, query: &str, what: Watching) -> mpsc::Receiver<Update> {
    let (updates, received) = mpsc::channel(QUEUE);
    actix::spawn(follow(reporter.clone(), query.to_owned(), updates.clone()));
    if what == Watching::System {
        actix::spawn(poll_fleet(reporter.clone(), updates.clone()));
    }
    if what != Watching::Feed {
        actix::spawn(poll_totals(reporter.clone(), what == Watching::Totals, updates));
    }
    received
}

/// Reads the feed; begins again after it ended.
async fn follow(reporter: Reporter, query: String, updates: mpsc::Sender<Update>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match reporter.live(&query).await {
            Ok(mut feed) => {
                if updates.send(Update::Connected).await.is_err() {
                    return;
                }
                loop {
                    let message = tokio::select! {
                        message = feed.next() => message,
                        () = updates.closed() => return,
                    };
                    match message {
                        Ok(message) => {
                            pause = FIRST_PAUSE;
                            if updates.send(Update::Message(message)).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        if updates.send(Update::Away(error)).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn poll_fleet(reporter: Reporter, updates: mpsc::Sender<Update>) {
    let mut tick = interval(FLEET_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if updates.send(Update::Fleet(reporter.fleet().await)).await.is_err() {
            return;
        }
    }
}

async fn poll_totals(reporter: Reporter, revenue: bool, updates: mpsc::Sender<Update>) {
    let mut tick = interval(LEDGER_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if updates.send(Update::Ledger(reporter.ledger().await)).await.is_err() {
            return;
        }
        // Revenue that is not known now keeps its last figure.
        if revenue
            && let Ok(revenue) = reporter.revenue().await
            && updates.send(Update::Revenue(revenue)).await.is_err()
        {
            return;
        }
    }
}
