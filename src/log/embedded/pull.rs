//! Handing out frames: a pull takes ready frames, and each frame's receipt acknowledges it or makes it ready again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::shared::{Shared, away};
use super::writer::Write;
use crate::log::{Delivery, LogError, Receipt, Settlement, Token, Topic};

/// The receipt's side of a frame that is handed out.
struct Hold {
    topic: Topic,
    sequence: u64,
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
}

impl Hold {
    /// Makes the frame ready again after a delay.
    fn again(&self, delay: Duration) {
        let (mut queue, notify) = self.shared.queue(self.topic);
        if queue.held.contains_key(&self.sequence) {
            if delay.is_zero() {
                queue.ready.insert(self.sequence);
            } else {
                queue.later.insert((Instant::now() + delay, self.sequence));
            }
        }
        drop(queue);
        notify.notify_one();
    }
}

impl Token for Hold {
    fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            match settlement {
                Settlement::Retry(delay) => {
                    self.again(delay);
                    Ok(())
                }
                Settlement::Ack => {
                    let (reply, answer) = oneshot::channel();
                    let order = Write::Ack { topic: self.topic, sequence: self.sequence, reply };
                    self.writes.send(order).await.map_err(|_| away("the log is closed"))?;
                    answer.await.map_err(|_| away("the log is closed"))?
                }
            }
        })
    }

    fn progress(&self) -> BoxFuture<'static, Result<(), LogError>> {
        // A frame is handed out until its receipt is settled or dropped: there is no time limit to extend.
        Box::pin(async { Ok(()) })
    }

    fn abandon(&self) {
        self.again(Duration::ZERO);
    }
}

/// A pull under way.
pub(super) struct Pulling {
    pub topic: Topic,
    /// Frames that may still be handed out.
    pub left: usize,
    /// End of the pull.
    pub until: Instant,
    pub shared: Arc<Shared>,
    pub writes: mpsc::Sender<Write>,
    /// Inherited frames whose deliveries are committed, to be handed out next.
    pub counted: VecDeque<HandedOut>,
}

/// A frame that is handed out; dropping its receipt makes it ready again.
pub(super) struct HandedOut {
    sequence: u64,
    deliveries: u64,
    logged_at: i64,
    receipt: Receipt,
}

impl Pulling {
    /// Takes the next frame that is ready, if it is inherited or not, as asked for.
    fn take(&self, inherited: bool) -> Option<HandedOut> {
        let (mut queue, _) = self.shared.queue(self.topic);
        queue.wake_due();
        let sequence = *queue.ready.first()?;
        let Some(held) = queue.held.get_mut(&sequence) else {
            queue.ready.pop_first();
            return None;
        };
        if held.inherited != inherited {
            return None;
        }
        held.deliveries += 1;
        let (deliveries, logged_at) = (held.deliveries, held.logged_at);
        queue.ready.pop_first();
        let (topic, shared) = (self.topic, self.shared.clone());
        let hold = Hold { topic, sequence, shared, writes: self.writes.clone() };
        Some(HandedOut { sequence, deliveries, logged_at, receipt: Receipt::new(Box::new(hold)) })
    }

    /// Takes frames that an earlier process appended, and commits that they are delivered once more.
    async fn take_inherited(&mut self) {
        while self.counted.len() < self.left
            && let Some(out) = self.take(true)
        {
            self.counted.push_back(out);
        }
        if !self.counted.is_empty() {
            let counts = self.counted.iter().map(|out| (out.sequence, out.deliveries)).collect();
            let (reply, answer) = oneshot::channel();
            // A log that cannot be written is reported by `prepare`; its frames may be collected all the same.
            if self.writes.send(Write::Deliveries { topic: self.topic, counts, reply }).await.is_ok() {
                let _ = answer.await;
            }
        }
    }

    /// The next delivery; `None` at the end of the pull.
    pub async fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if self.counted.is_empty() {
                self.take_inherited().await;
            }
            if let Some(out) = self.counted.pop_front().or_else(|| self.take(false)) {
                self.left -= 1;
                let (topic, log_id) = (self.topic, self.shared.log_id);
                let HandedOut { sequence, deliveries, logged_at, receipt } = out;
                return Some(match self.shared.read(topic, sequence) {
                    Ok(Some(frame)) => {
                        Ok(Delivery { topic, log_id, sequence, deliveries, logged_at, frame, receipt })
                    }
                    Ok(None) => Err(away(format!("frame {sequence} was removed meanwhile"))),
                    Err(error) => Err(error),
                });
            }
            let due = self.shared.queue(self.topic).0.later.first().map(|(due, _)| *due);
            let until = due.map_or(self.until, |due| due.min(self.until));
            let notify = &self.shared.queues.of(self.topic).1;
            let waited = tokio::time::timeout_at(until.into(), notify.notified()).await;
            if waited.is_err() && Instant::now() >= self.until {
                return None;
            }
        }
    }
}
