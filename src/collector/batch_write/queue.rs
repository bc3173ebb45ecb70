//! Frames that wait for a transaction.

use std::collections::VecDeque;

use super::frame::PendingFrame;

/// Maximum bytes of the events of one transaction; its first frame always fits.
pub(super) const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The queue. The writer's mailbox bounds it.
#[derive(Default)]
pub(super) struct Queue {
    frames: VecDeque<PendingFrame>,
    events: usize,
}

impl Queue {
    pub fn push(&mut self, frame: PendingFrame) {
        self.events += frame.events();
        self.frames.push_back(frame);
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Events of all frames.
    pub fn events(&self) -> usize {
        self.events
    }

    pub fn iter(&self) -> impl Iterator<Item = &PendingFrame> {
        self.frames.iter()
    }

    /// Takes the frames of the next transaction: of one log, up to `max_events` and [`BATCH_BYTES`], and a frame with
    /// more than `max_deliveries` by itself.
    pub fn next_batch(&mut self, max_events: usize, max_deliveries: u64) -> Vec<PendingFrame> {
        let mut batch: Vec<PendingFrame> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        // Frames of other streams of the source lie between them.
        let mut others = VecDeque::new();
        while let Some(next) = self.frames.pop_front() {
            let first = batch.first();
            if first.is_some_and(|first| first.log_id != next.log_id) {
                others.push_back(next);
                continue;
            }
            let fits = first.is_none_or(|first| {
                next.deliveries <= max_deliveries
                    && first.deliveries <= max_deliveries
                    && events + next.events() <= max_events
                    && bytes + next.bytes() <= BATCH_BYTES
            });
            if !fits {
                self.frames.push_front(next);
                break;
            }
            events += next.events();
            bytes += next.bytes();
            batch.push(next);
        }
        others.append(&mut self.frames);
        self.frames = others;
        self.events -= events;
        batch
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::frame::tests::{frame, ids};
    use super::*;

    fn queue(frames: impl IntoIterator<Item = PendingFrame>) -> Queue {
        let mut queue = Queue::default();
        frames.into_iter().for_each(|frame| queue.push(frame));
        queue
    }

    /// Sequence numbers of the batches.
    fn batches(mut queue: Queue, max_events: usize) -> Vec<Vec<u64>> {
        let mut batches = Vec::new();
        while !queue.is_empty() {
            let batch = queue.next_batch(max_events, 2);
            batches.push(batch.iter().map(|frame| frame.sequence).collect());
        }
        assert_eq!(queue.events(), 0);
        batches
    }

    fn of(sequence: u64, deliveries: u64, events: usize) -> PendingFrame {
        frame(sequence, deliveries, &ids("e", events)).0
    }

    #[test]
    fn frames_are_written_together_up_to_the_limit_of_events() {
        let frames = (1..=5).map(|sequence| of(sequence, 1, 10));
        assert_eq!(batches(queue(frames), 25), [vec![1, 2], vec![3, 4], vec![5]]);
        let frames = (1..=3).map(|sequence| of(sequence, 1, 10));
        assert_eq!(batches(queue(frames), 1), [[1], [2], [3]], "the first frame always fits");
    }

    #[test]
    fn a_frame_with_too_many_deliveries_is_written_by_itself() {
        let frames =
            [(1, 1), (2, 3), (3, 2), (4, 2)].map(|(sequence, deliveries)| of(sequence, deliveries, 1));
        assert_eq!(batches(queue(frames), 100), [vec![1], vec![2], vec![3, 4]]);
    }

    #[test]
    fn frames_of_two_logs_are_never_in_one_transaction() {
        let mut frames = [of(1, 1, 1), of(2, 1, 1), of(3, 1, 1)];
        frames[1].log_id = Uuid::from_u128(2);
        assert_eq!(batches(queue(frames), 100), [vec![1, 3], vec![2]]);
    }

    #[test]
    fn frames_of_two_logs_in_turn_fill_a_transaction_of_each() {
        let mut frames: Vec<_> = (1..=6).map(|sequence| of(sequence, 1, 10)).collect();
        frames.iter_mut().skip(1).step_by(2).for_each(|frame| frame.log_id = Uuid::from_u128(2));
        assert_eq!(batches(queue(frames), 20), [vec![1, 3], vec![2, 4], vec![5], vec![6]]);
    }
}
