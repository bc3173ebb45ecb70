//! The search for poison events: events that end their collector.
//!
//! A collector that ends, for whatever reason, gets its frames again. A frame that came too often is searched: parts
//! of it are tried, one at a time. Before each trial the part and the delivery are committed here; a later delivery
//! that finds the trial under way knows that the collector ended during it. Then the part was too large to say which
//! event did it, and a tenth of it is tried next; or it was one event, and gets a strike. A part that was survived is
//! passed, and the next part is as wide as its position allows. The first trial is the whole frame, stored in
//! earnest: a frame that came back for a harmless reason costs two small commits more than any other.
//!
//! An event is poison after [`STRIKES`] strikes in a row. The reasons:
//!
//! * A collector may be ended from outside (a kill, a lack of memory, a deployment) while an innocent event is tried.
//!   Only the one trial that was under way counts, never marks of earlier ones; a trial that is survived takes all
//!   strikes away; and one event is tried alone only after parts around it ended collectors three times. For an
//!   innocent event in a full frame to be set aside, six collectors in a row have to be ended from outside in just
//!   the milliseconds in which parts around it are tried.
//! * After a strike the frame goes back to the log for a while, and other frames go first: if another event ends
//!   the collector, it does so while no trial of this one is under way.
//! * A trial that has waited for the database for some seconds no longer counts as one.
//! * One trial is under way in a process at a time (see `collector::poison`): events of two frames are never blamed
//!   for one end.
//! * A poison event always ends its collector, so it is found after at most three ends of the parts around it and
//!   three of its own, wherever the round trip to the database takes: each trial is one short transaction, and what
//!   was passed is never tried again.

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};
use uuid::Uuid;

use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;

/// Ends of a collector in a row, while an event was tried alone, after which the event is poison.
const STRIKES: u32 = 3;
/// A part that ended its collector is tried in this many parts.
const PARTS: usize = 10;

/// A frame, by its place.
#[derive(Debug, Clone, Copy)]
pub struct FramePlace {
    /// The source.
    pub source: Source,
    /// Which log.
    pub log_id: Uuid,
    /// Its place in the log.
    pub sequence: u64,
}

impl FramePlace {
    fn values(self) -> Vec<Value> {
        vec![self.source.code().into(), self.log_id.into(), integer(self.sequence).into()]
    }
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// State of the search in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Events of the frame.
    events: usize,
    /// Part that is tried next: first position, and end (exclusive).
    part: (usize, usize),
    /// Ends in a row while this part, which is then one event, was tried.
    strikes: u32,
    /// Positions of the poison events that were found.
    poison: Vec<usize>,
}

impl Search {
    /// A search that begins with all of a frame's events.
    pub fn new(events: usize) -> Self {
        Self { events, part: (0, events), strikes: 0, poison: Vec::new() }
    }

    /// Positions of the part to be tried next; `None` after the last one.
    pub fn part(&self) -> Option<std::ops::Range<usize>> {
        (self.part.0 < self.events).then_some(self.part.0..self.part.1)
    }

    /// True if the part to be tried next is the whole frame.
    pub fn is_whole(&self) -> bool {
        self.part == (0, self.events)
    }

    /// Strikes of the event that is tried next.
    pub fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Positions of the poison events that were found.
    pub fn poison(&self) -> &[usize] {
        &self.poison
    }

    /// Adds an event that was found otherwise, such as by a panic that was caught.
    pub fn add_poison(&mut self, position: usize) {
        if !self.poison.contains(&position) {
            self.poison.push(position);
        }
    }

    /// The part was survived.
    pub fn survived(&mut self) {
        self.go_on(self.part.1);
    }

    /// The collector ended while it tried the part.
    pub fn ended(&mut self) {
        let (first, end) = self.part;
        if end - first > 1 {
            self.part.1 = first + largest_power(|width| width < end - first);
            return;
        }
        self.strikes += 1;
        if self.strikes >= STRIKES {
            self.add_poison(first);
            self.go_on(end);
        }
    }

    /// Goes on at a position, with the widest part that begins there: widths are powers of [`PARTS`], and parts
    /// begin at multiples of their width.
    fn go_on(&mut self, first: usize) {
        let width = largest_power(|width| first.is_multiple_of(width) && width < self.events);
        self.part = (first, (first + width).min(self.events));
        self.strikes = 0;
    }

    fn read(row: &QueryResult, events: usize) -> Result<Self, StoreError> {
        let position = |name: &str| -> Result<usize, StoreError> {
            Ok(usize::try_from(row.try_get::<i32>("", name)?).unwrap_or(0).min(events))
        };
        let poison: String = row.try_get("", "poison")?;
        Ok(Self {
            events,
            part: (position("first_position")?, position("end_position")?),
            strikes: u32::try_from(row.try_get::<i32>("", "strikes")?).unwrap_or(0),
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
    /// The search in a frame of so many events, as of this delivery; true beside it if a collector ended during
    /// its last trial.
    pub async fn poison_search(
        &self,
        place: FramePlace,
        events: usize,
        delivery: u64,
    ) -> Result<(Search, bool), StoreError> {
        let sql = "SELECT first_position, end_position, strikes, under_way, delivery, poison
                   FROM poison_searches WHERE source = $1 AND log_id = $2 AND sequence = $3";
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, place.values());
        let Some(row) = self.db().query_one_raw(statement).await? else {
            return Ok((Search::new(events), false));
        };
        let mut search = Search::read(&row, events)?;
        let ended = row.try_get::<i16>("", "under_way")? == 1
            && row.try_get::<i64>("", "delivery")? < integer(delivery);
        if ended {
            search.ended();
            self.save_search(place, &search, delivery, false).await?;
        }
        Ok((search, ended))
    }

    /// Commits that the next part is being tried from now on, in this delivery.
    pub async fn begin_trial(
        &self,
        place: FramePlace,
        search: &Search,
        delivery: u64,
    ) -> Result<(), StoreError> {
        self.save_search(place, search, delivery, true).await
    }

    /// Takes back that a part is being tried: it was not, for a reason that is not its own.
    pub async fn call_trial_off(&self, place: FramePlace) -> Result<(), StoreError> {
        let sql = "UPDATE poison_searches SET under_way = 0
                   WHERE source = $1 AND log_id = $2 AND sequence = $3";
        self.change(sql, place.values()).await.map(drop)
    }

    /// Forgets the search in a frame that was stored.
    pub async fn end_search(&self, place: FramePlace) -> Result<(), StoreError> {
        let sql = "DELETE FROM poison_searches WHERE source = $1 AND log_id = $2 AND sequence = $3";
        self.change(sql, place.values()).await.map(drop)
    }

    async fn save_search(
        &self,
        place: FramePlace,
        search: &Search,
        delivery: u64,
        under_way: bool,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO poison_searches (source, log_id, sequence, first_position, end_position, strikes,
                       under_way, delivery, poison)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                   ON CONFLICT (source, log_id, sequence) DO UPDATE SET first_position = excluded.first_position,
                       end_position = excluded.end_position, strikes = excluded.strikes,
                       under_way = excluded.under_way, delivery = excluded.delivery, poison = excluded.poison";
        let position = |position: usize| Value::from(i32::try_from(position).unwrap_or(i32::MAX));
        let poison: Vec<String> = search.poison.iter().map(usize::to_string).collect();
        let mut values = place.values();
        values.extend([
            position(search.part.0),
            position(search.part.1),
            i32::try_from(search.strikes).unwrap_or(i32::MAX).into(),
            i16::from(under_way).into(),
            integer(delivery).into(),
            poison.join(",").into(),
        ]);
        self.change(sql, values).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a frame; each trial is given to `ends`, which says if the collector ends during it.
    /// Gives the poison that was found, and how many trials and ends there were.
    fn search(
        events: usize,
        mut ends: impl FnMut(std::ops::Range<usize>) -> bool,
    ) -> (Vec<usize>, usize, usize) {
        let mut search = Search::new(events);
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
        (search.poison().to_vec(), trials, ended)
    }

    #[test]
    fn a_frame_that_is_survived_takes_one_trial() {
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
    fn five_ends_from_outside_in_a_row_condemn_nobody() {
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
        fn all_poison_and_nothing_else_is_found(
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
