//! The search for poison events: events that end the process of the collector that handles them.
//!
//! When a collector ends, for whatever reason, its frames are delivered again. A frame that was delivered too often is
//! searched: parts of it are tried, one at a time. Before each trial its part and the frame's delivery are committed to
//! `poison_searches`; a later delivery that finds the trial under way knows that the collector ended during it. If the
//! part had several events, a tenth of it is tried next. If it was one event, that was a failed attempt. After a trial
//! that ended well the search goes on behind the part. The first trial is the whole frame, stored as usual: a frame
//! that came back for a harmless reason costs two small commits more than any other.
//!
//! An event is poison after [`MAX_ATTEMPTS`] failed attempts in a row. The reasons:
//!
//! * A collector may also be ended from outside (a kill, a lack of memory, a deployment) while a harmless event is
//!   tried. Only the trial that was under way counts; a trial that ends well clears all failed attempts; and an event
//!   is tried alone only after three ends during trials of parts around it. For a harmless event of a full frame to be
//!   set aside, six collectors in a row have to be ended from outside within the milliseconds of these trials.
//! * After a failed attempt the frame goes back to the log for a while, and other frames go first: if another event
//!   ends the collector, it does so while no trial of this one is under way.
//! * A trial that has waited for the database for some seconds no longer counts as one.
//! * One trial is under way in a process at a time (see `collector::poison`): events of two frames are never blamed
//!   for one end.
//! * A poison event always ends its collector, so at most three ends during trials of parts and three of its own find
//!   it, whatever the round trip to the database takes: each trial is one short transaction, and parts that ended well
//!   are never tried again.

use sea_orm::{QueryResult, Value};
use uuid::Uuid;

use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// Failed attempts in a row after which an event is poison.
const MAX_ATTEMPTS: u32 = 3;
/// Number of parts into which a part that ended its collector is divided.
const PARTS: usize = 10;
/// The condition that a row of `poison_searches` is a frame's; its parameters are [`LogPosition::bind`].
const OF_FRAME: &str = "source = $1 AND log_id = $2 AND sequence = $3";

/// Position of a frame in the log of its source.
#[derive(Debug, Clone, Copy)]
pub struct LogPosition {
    /// Source of the frame.
    pub source: Source,
    /// Identity of the log.
    pub log_id: Uuid,
    /// Sequence number within the log.
    pub sequence: u64,
}

impl LogPosition {
    /// Binds source, log and sequence number as the next three parameters.
    fn bind(self, sql: Sql) -> Sql {
        sql.bind(self.source.code()).bind(self.log_id).bind(integer(self.sequence))
    }
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// State of the search in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoisonSearch {
    /// Number of events in the frame.
    events: usize,
    /// Part that is tried next: first position, and end (exclusive).
    part: (usize, usize),
    /// Failed attempts in a row at this part, which is one event then.
    attempts: u32,
    /// Positions of the poison events found so far.
    poison: Vec<usize>,
}

impl PoisonSearch {
    /// Starts a search with all events of a frame as its first part.
    pub fn new(events: usize) -> Self {
        Self { events, part: (0, events), attempts: 0, poison: Vec::new() }
    }

    /// Positions of the part to be tried next; `None` after the last one.
    pub fn part(&self) -> Option<std::ops::Range<usize>> {
        (self.part.0 < self.events).then_some(self.part.0..self.part.1)
    }

    /// True if the part to be tried next is the whole frame.
    pub fn is_whole(&self) -> bool {
        self.part == (0, self.events)
    }

    /// Failed attempts in a row at the event that is tried next.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Positions of the poison events found so far.
    pub fn poison_events(&self) -> &[usize] {
        &self.poison
    }

    /// True if the event at a position is poison.
    pub fn is_poison(&self, position: usize) -> bool {
        self.poison.contains(&position)
    }

    /// Adds a poison event that was found otherwise, such as by a panic that was caught.
    pub fn add_poison(&mut self, position: usize) {
        if !self.is_poison(position) {
            self.poison.push(position);
        }
    }

    /// Records that the trial of the part ended well.
    pub fn survived(&mut self) {
        self.continue_at(self.part.1);
    }

    /// Records that the collector ended during the trial of the part.
    pub fn ended(&mut self) {
        let (first, end) = self.part;
        if end - first > 1 {
            self.part.1 = first + largest_power(|width| width < end - first);
            return;
        }
        self.attempts += 1;
        if self.attempts >= MAX_ATTEMPTS {
            self.add_poison(first);
            self.continue_at(end);
        }
    }

    /// Continues at a position, with the widest part that begins there: widths are powers of [`PARTS`], and parts
    /// begin at multiples of their width.
    fn continue_at(&mut self, first: usize) {
        let width = largest_power(|width| first.is_multiple_of(width) && width < self.events);
        self.part = (first, (first + width).min(self.events));
        self.attempts = 0;
    }

    fn read(row: &QueryResult, events: usize) -> Result<Self, StoreError> {
        let position = |name: &str| -> Result<usize, StoreError> {
            Ok(usize::try_from(row.try_get::<i32>("", name)?).unwrap_or(0).min(events))
        };
        let poison: String = row.try_get("", "poison")?;
        Ok(Self {
            events,
            part: (position("first_position")?, position("end_position")?),
            attempts: u32::try_from(row.try_get::<i32>("", "strikes")?).unwrap_or(0),
            poison: poison.split(',').filter_map(|position| position.parse().ok()).collect(),
        })
    }
}

/// The largest power of [`PARTS`], such as 100, that meets a condition; 1 always does.
fn largest_power(meets: impl Fn(usize) -> bool) -> usize {
    let powers = std::iter::successors(Some(1_usize), |power| power.checked_mul(PARTS));
    powers.take(7).filter(|power| meets(*power)).last().unwrap_or(1)
}

impl Store {
    /// The search in a frame of `events` events, as of this delivery; beside it, true if a collector ended during its
    /// last trial.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn load_poison_search(
        &self,
        position: LogPosition,
        events: usize,
        delivery: u64,
    ) -> Result<(PoisonSearch, bool), StoreError> {
        let sql = format!(
            "SELECT first_position, end_position, strikes, under_way, delivery, poison
             FROM poison_searches WHERE {OF_FRAME}"
        );
        let Some(row) = position.bind(Sql::new(sql)).row(self.db()).await? else {
            return Ok((PoisonSearch::new(events), false));
        };
        let mut search = PoisonSearch::read(&row, events)?;
        let ended = row.try_get::<i16>("", "under_way")? == 1
            && row.try_get::<i64>("", "delivery")? < integer(delivery);
        if ended {
            search.ended();
            self.save_search(position, &search, delivery, false).await?;
        }
        Ok((search, ended))
    }

    /// Commits that the next part is being tried from now on, in this delivery.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn begin_trial(
        &self,
        position: LogPosition,
        search: &PoisonSearch,
        delivery: u64,
    ) -> Result<(), StoreError> {
        self.save_search(position, search, delivery, true).await
    }

    /// Cancels a trial, so that an end of the collector no longer counts as a failed attempt.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn cancel_trial(&self, position: LogPosition) -> Result<(), StoreError> {
        let sql = Sql::new(format!("UPDATE poison_searches SET under_way = 0 WHERE {OF_FRAME}"));
        position.bind(sql).execute(self.db()).await.map(drop)
    }

    /// Deletes the search in a frame that was stored.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn clear_search(&self, position: LogPosition) -> Result<(), StoreError> {
        let sql = Sql::new(format!("DELETE FROM poison_searches WHERE {OF_FRAME}"));
        position.bind(sql).execute(self.db()).await.map(drop)
    }

    async fn save_search(
        &self,
        position: LogPosition,
        search: &PoisonSearch,
        delivery: u64,
        under_way: bool,
    ) -> Result<(), StoreError> {
        let sql = Sql::new(
            "INSERT INTO poison_searches (source, log_id, sequence, first_position, end_position, strikes,
                 under_way, delivery, poison)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (source, log_id, sequence) DO UPDATE SET first_position = excluded.first_position,
                 end_position = excluded.end_position, strikes = excluded.strikes,
                 under_way = excluded.under_way, delivery = excluded.delivery, poison = excluded.poison",
        );
        let column = |position: usize| Value::from(i32::try_from(position).unwrap_or(i32::MAX));
        let poison: Vec<String> = search.poison.iter().map(usize::to_string).collect();
        let sql = position
            .bind(sql)
            .bind(column(search.part.0))
            .bind(column(search.part.1))
            .bind(i32::try_from(search.attempts).unwrap_or(i32::MAX))
            .bind(i16::from(under_way))
            .bind(integer(delivery))
            .bind(poison.join(","));
        sql.execute(self.db()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a frame; each trial is given to `ends`, which says if the collector ends during it.
    /// Gives the poison events found, the number of trials and the number of ends.
    fn search(
        events: usize,
        mut ends: impl FnMut(std::ops::Range<usize>) -> bool,
    ) -> (Vec<usize>, usize, usize) {
        let mut search = PoisonSearch::new(events);
        let (mut trials, mut ended) = (0, 0);
        while let Some(part) = search.part() {
            assert!(!part.is_empty() && part.end <= events, "{part:?}");
            trials += 1;
            if ends(part) {
                ended += 1;
                search.ended();
            } else {
                search.survived();
            }
        }
        (search.poison_events().to_vec(), trials, ended)
    }

    #[test]
    fn a_frame_without_poison_takes_one_trial() {
        assert_eq!(search(1_000, |_| false), (Vec::new(), 1, 0));
        assert_eq!(search(0, |_| true), (Vec::new(), 0, 0));
    }

    #[test]
    fn six_ends_find_a_poison_event_among_a_thousand() {
        for poison in 0..1_000 {
            let (found, trials, ended) = search(1_000, |part| part.contains(&poison));
            assert_eq!((found, ended), (vec![poison], 6), "{poison}");
            assert!(trials <= 35, "{poison}: {trials} trials");
        }
    }

    #[test]
    fn five_ends_from_outside_in_a_row_make_no_event_poison() {
        for first in 0..35 {
            let mut trial = 0;
            let (found, trials, _) = search(1_000, |_| {
                trial += 1;
                (first..first + 5).contains(&trial)
            });
            assert_eq!(found, Vec::<usize>::new(), "ends from trial {first}");
            assert!(trials <= 40, "{trials} trials");
        }
    }

    proptest! {
        #[test]
        fn all_poison_events_and_no_others_are_found(
            events in 1_usize..1_200,
            poison in proptest::collection::btree_set(0_usize..1_200, 0..6),
            outside in proptest::collection::btree_set(0_usize..200, 0..20),
        ) {
            let poison: Vec<usize> = poison.into_iter().filter(|position| *position < events).collect();
            // Ends from outside, of which never three follow each other.
            let mut trial = 0;
            let (mut found, trials, _) = search(events, |part| {
                trial += 1;
                poison.iter().any(|position| part.contains(position))
                    || (outside.contains(&trial) && trial % 3 != 0)
            });
            found.sort_unstable();
            prop_assert_eq!(&found, &poison);
            prop_assert!(trials < 50 * (1 + poison.len() + outside.len()));
        }
    }
}
