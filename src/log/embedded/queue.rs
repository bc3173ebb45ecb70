//! The frames of a topic, in memory: which are ready, handed out or delayed, and which ids were seen lately.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Frames of a topic.
#[derive(Default)]
pub(super) struct Queue {
    /// Highest sequence that was given.
    pub last: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    pub held: BTreeMap<u64, Held>,
    /// Sequences of frames that can be handed out.
    pub ready: BTreeSet<u64>,
    /// Sequences of frames that become ready later.
    pub later: BTreeSet<(Instant, u64)>,
    /// Sequences by the ids of frames that were appended within the duplicate window.
    pub recent: HashMap<String, u64>,
    pub recent_order: VecDeque<(Instant, String)>,
}

/// A frame that the log holds.
pub(super) struct Held {
    pub bytes: u64,
    /// Time of the append, in microseconds since 1970.
    pub logged_at: i64,
    pub deliveries: u64,
    /// Writer and number of the frame; `None` for a message that is no frame.
    pub name: Option<(Uuid, u64)>,
    /// True if an earlier process appended the frame: then its deliveries are committed.
    pub inherited: bool,
}

impl Queue {
    /// Makes frames ready whose time has come.
    pub(super) fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(&(due, sequence)) = self.later.first()
            && due <= now
        {
            self.later.pop_first();
            if self.held.contains_key(&sequence) {
                self.ready.insert(sequence);
            }
        }
    }

    /// Remembers the id of a frame for the duplicate window, and forgets older ids.
    pub(super) fn remember(&mut self, id: String, sequence: u64, window: Duration) {
        let now = Instant::now();
        while let Some((at, _)) = self.recent_order.front()
            && now.duration_since(*at) > window
        {
            if let Some((_, old)) = self.recent_order.pop_front() {
                self.recent.remove(&old);
            }
        }
        self.recent.insert(id.clone(), sequence);
        self.recent_order.push_back((now, id));
    }

    /// Removes a frame.
    pub(super) fn drop_frame(&mut self, sequence: u64) {
        if let Some(held) = self.held.remove(&sequence) {
            self.bytes -= held.bytes;
            self.ready.remove(&sequence);
        }
    }

    /// Adopts the file's frames after it was opened again: new frames are ready, missing ones are dropped, the others
    /// stay as they are, handed out or not.
    pub(super) fn agree(&mut self, file: Queue) {
        let gone: Vec<u64> =
            self.held.keys().filter(|known| !file.held.contains_key(known)).copied().collect();
        gone.into_iter().for_each(|sequence| self.drop_frame(sequence));
        self.last = self.last.max(file.last);
        for (sequence, held) in file.held {
            if !self.held.contains_key(&sequence) {
                self.bytes += held.bytes;
                self.held.insert(sequence, Held { deliveries: 0, ..held });
                self.ready.insert(sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(bytes: u64) -> Held {
        Held { bytes, logged_at: 1, deliveries: 3, name: None, inherited: true }
    }

    fn queue(sequences: &[u64]) -> Queue {
        let mut queue = Queue { last: 9, ..Queue::default() };
        for sequence in sequences {
            queue.held.insert(*sequence, held(10));
            queue.bytes += 10;
        }
        queue
    }

    #[test]
    fn a_delayed_frame_is_ready_when_its_time_has_come_unless_it_was_removed() {
        let mut queue = queue(&[1, 2, 3]);
        let now = Instant::now();
        queue.later.extend([(now, 1), (now, 2), (now + Duration::from_secs(60), 3)]);
        queue.drop_frame(2);
        queue.wake_due();
        assert_eq!(queue.ready, BTreeSet::from([1]));
        assert_eq!((queue.later.len(), queue.bytes), (1, 20));
    }

    #[test]
    fn an_id_is_forgotten_after_the_duplicate_window() {
        let mut queue = Queue::default();
        queue.remember("a".to_owned(), 1, Duration::from_secs(60));
        queue.remember("b".to_owned(), 2, Duration::from_secs(60));
        assert_eq!(queue.recent.len(), 2);
        queue.recent_order[0].0 = Instant::now() - Duration::from_secs(61);
        queue.remember("c".to_owned(), 3, Duration::from_secs(60));
        assert_eq!((queue.recent.get("a"), queue.recent.get("b")), (None, Some(&2)));
    }

    #[test]
    fn the_file_decides_which_frames_a_queue_has() {
        let mut known = queue(&[1, 2]);
        let mut file = queue(&[2, 3]);
        file.last = 11;
        known.agree(file);
        assert_eq!(known.held.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!((known.ready, known.last, known.bytes), (BTreeSet::from([3]), 11, 20));
        assert_eq!(
            (known.held[&2].deliveries, known.held[&3].deliveries),
            (3, 0),
            "2 stays with its consumer"
        );
    }
}
