//! The first campaigns of a range, from the highest down.
//!
//! What a campaign earned over all time is the most that it can have earned in a range: the first few by that bound
//! hold the first few of any range, and the search ends when no other can be among them. Campaigns that lie within
//! the range are known. Of those that lie in it in part, what they earned in their first and last minutes tells most;
//! what is left of them is looked up in their rows, from the highest bound down, while it can be among the first.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::collections::binary_heap::{BinaryHeap, PeekMut};

use sea_orm::{FromQueryResult, Value};

use crate::event::Source;
use crate::store::dialect::places;
use crate::store::error::StoreError;
use crate::store::report::{CampaignSum, Filter, Report};
use crate::store::summary::{CampaignRevenue, Reading};
use crate::store::write::batch::big;

/// Campaigns that are looked at first, from the highest down.
const STEP: usize = 400;
/// Campaigns that are looked at before all rows in range are.
const MANY: usize = 20_000;
/// Campaigns of the first look at their rows; each look is at twice as many as the one before, up to the most.
const LOOK: usize = 64;
const MOST: usize = 512;
/// Campaigns that are looked up before all rows in range are.
const LOOKED_UP: usize = 4_000;
/// Campaigns of one statement that names them.
const NAMED: usize = 400;
/// The columns of a campaign's revenue over all time.
const CAMPAIGN: &str =
    "campaign_id, transactions, high, units, micros, first_minute, last_minute, first_units, last_units,
    ends_of";

/// A campaign, and its place by what it earned over all time, from 1.
#[derive(Debug, FromQueryResult)]
struct Ranked {
    #[sea_orm(nested)]
    campaign: CampaignRevenue,
    place: i64,
}

/// The first campaigns of a range, as far as they are known.
struct First {
    limit: usize,
    /// The highest first; no more than `limit`.
    top: Vec<CampaignSum>,
    /// Those that have to be looked up, with the most that they can have earned.
    waiting: BinaryHeap<(i128, String)>,
    /// How many were looked up.
    looked_up: usize,
}

impl First {
    fn new(limit: usize) -> Self {
        Self { limit, top: Vec::new(), waiting: BinaryHeap::new(), looked_up: 0 }
    }

    fn add(&mut self, more: impl IntoIterator<Item = CampaignSum>) {
        self.top.extend(more);
        self.top.sort_unstable_by(CampaignSum::rank);
        self.top.truncate(self.limit);
    }

    /// Adds campaigns that meet a range: those within it, and what has to be looked up of the others.
    fn meet(&mut self, source: Source, filter: &Filter, campaigns: impl Iterator<Item = CampaignRevenue>) {
        let (from, to) = (filter.from.unwrap_or(i64::MIN), filter.to.unwrap_or(i64::MAX));
        let mut whole = Vec::new();
        for campaign in campaigns {
            let (begins, ends) = (i64::from(campaign.first_minute), i64::from(campaign.last_minute));
            if begins >= from && ends < to {
                whole.push(CampaignSum {
                    source,
                    transactions: campaign.transactions.unsigned_abs(),
                    total: campaign.total(),
                    campaign_id: campaign.campaign_id,
                });
            } else if ends >= from && begins < to {
                self.waiting.push((campaign.bound(from, to), campaign.campaign_id));
            }
        }
        self.add(whole);
    }

    /// What none must have earned less than to be one of them; `None` while there are too few.
    fn least(&self) -> Option<i128> {
        self.top.get(self.limit.checked_sub(1)?).map(|last| last.total)
    }

    /// Whether all of them come before whoever comes behind a campaign with such a bound and name.
    fn is_before(&self, (bound, name): &(i128, String)) -> bool {
        let last = self.limit.checked_sub(1).and_then(|last| self.top.get(last));
        last.is_some_and(|last| last.total > *bound || (last.total == *bound && last.campaign_id <= *name))
    }

    /// Those that wait, can be among the first, and can have earned at least so much: no more than `most`.
    fn look(&mut self, bound: Option<i128>, most: usize) -> Vec<String> {
        let least = self.least();
        let mut look = Vec::new();
        while look.len() < most
            && let Some(next) = self.waiting.peek_mut()
            // One that earned as much is among the first if its name comes before.
            && bound.is_none_or(|bound| next.0 >= bound)
            && least.is_none_or(|least| next.0 >= least)
        {
            look.push(PeekMut::pop(next).1);
        }
        look
    }
}

impl Report<'_> {
    /// The first `limit` campaigns of a range; `None` if the search would not end soon.
    pub(in crate::store) async fn search_down(
        &self,
        source: Source,
        filter: &Filter,
        limit: usize,
        reading: &Reading,
    ) -> Result<Option<Vec<CampaignSum>>, StoreError> {
        let fresh = self.not_folded(source, reading).await?;
        let mut waiting = fresh.clone();
        waiting.sort_unstable_by_key(|campaign| Reverse(campaign.total()));
        let fresh: HashSet<&str> = fresh.iter().map(|ranked| ranked.campaign_id.as_str()).collect();
        let mut first = First::new(limit);
        let mut looked_at = 0;
        let mut step = STEP.max(2 * limit);
        while looked_at < MANY {
            let ranked = self.ranked(source, filter, looked_at, step).await?;
            looked_at += step;
            // Nobody who was not looked at earned more than this, but for those that are fresh; `None` at the end.
            let last = ranked.last().filter(|last| usize::try_from(last.place) == Ok(looked_at));
            let last = last.map(|last| (last.campaign.total(), last.campaign.campaign_id.clone()));
            let bound = last.as_ref().map(|(bound, _)| *bound);
            let near =
                waiting.partition_point(|campaign| bound.is_none_or(|bound| campaign.total() >= bound));
            let ranked = ranked.into_iter().map(|ranked| ranked.campaign);
            let ranked = ranked.filter(|ranked| !fresh.contains(ranked.campaign_id.as_str()));
            first.meet(source, filter, ranked.chain(waiting.drain(..near)));
            if !self.look_up(source, filter, bound, &mut first).await? {
                return Ok(None);
            }
            if last.is_none_or(|last| first.is_before(&last)) {
                return Ok(Some(first.top));
            }
            step = (step * 2).min(MANY - looked_at.min(MANY));
        }
        Ok(None)
    }

    /// Looks up the campaigns that can be among the first, and can have earned as much as those that are not
    /// known yet; says whether these were not too many.
    async fn look_up(
        &self,
        source: Source,
        filter: &Filter,
        unknown: Option<i128>,
        first: &mut First,
    ) -> Result<bool, StoreError> {
        let mut most = LOOK;
        loop {
            let look = first.look(unknown, most);
            let Some(last) = look.last() else { return Ok(true) };
            first.looked_up += look.len();
            if first.looked_up > LOOKED_UP {
                return Ok(false);
            }
            most = MOST.min(2 * most);
            // The last one again and again: few statements to prepare, however many there are.
            let ids = look.iter().chain(std::iter::repeat(last)).take(look.len().next_power_of_two());
            first.add(self.earned(source, filter, ids.cloned()).await?);
        }
    }

    /// So many campaigns behind the first `from` by what they earned over all time, as far as that was folded: those
    /// that meet a filter's range, and the last of them in any case, if there are so many.
    async fn ranked(
        &self,
        source: Source,
        filter: &Filter,
        from: usize,
        count: usize,
    ) -> Result<Vec<Ranked>, StoreError> {
        let sql = format!(
            "SELECT {CAMPAIGN}, place FROM (
                SELECT {CAMPAIGN}, row_number() OVER (ORDER BY high DESC, units DESC, micros DESC, campaign_id) AS place
                FROM campaigns WHERE source = $1 ORDER BY high DESC, units DESC, micros DESC, campaign_id
                LIMIT $2 OFFSET $3) AS ranked
             WHERE (last_minute >= $4 AND first_minute < $5) OR place = $6 ORDER BY place"
        );
        let big = |number: usize| Value::from(big(number as u64));
        let (first, end) = (filter.from.unwrap_or(i64::MIN), filter.to.unwrap_or(i64::MAX));
        let values =
            vec![source.code().into(), big(count), big(from), first.into(), end.into(), big(from + count)];
        self.select(sql, values).await
    }

    /// The campaigns to which something was added that is not folded yet, with it.
    async fn not_folded(
        &self,
        source: Source,
        reading: &Reading,
    ) -> Result<Vec<CampaignRevenue>, StoreError> {
        let mut deltas = reading.campaign_deltas();
        let ids: Vec<String> = deltas.keys().cloned().collect();
        let mut fresh = Vec::new();
        for part in ids.chunks(NAMED) {
            let mut values = vec![source.code().into()];
            let places = places(&mut values, part.iter().cloned());
            let sql =
                format!("SELECT {CAMPAIGN} FROM campaigns WHERE source = $1 AND campaign_id IN ({places})");
            for mut ranked in self.select::<CampaignRevenue>(sql, values).await? {
                if let Some(delta) = deltas.remove(&ranked.campaign_id) {
                    ranked.merge(&delta);
                }
                fresh.push(ranked);
            }
        }
        fresh.extend(deltas.into_values());
        Ok(fresh)
    }
}
