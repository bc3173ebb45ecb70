//! What one transaction of rows adds.

use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};

use super::body::{GrowingSummary, Seen, Summary};
use crate::event::MICROS_PER_UNIT;
use crate::store::error::StoreError;
use crate::store::report::total;
use crate::store::row::Row;

/// Microseconds of an hour and of a minute.
pub const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;

/// What one transaction added, by hours since 1970.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Delta {
    /// By hour, ascending.
    pub hours: Vec<(i32, Summary)>,
    /// All campaigns' revenue, ascending by id.
    pub campaigns: Vec<CampaignRevenue>,
}

/// What a campaign earned: by one transaction, or over all time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromQueryResult)]
pub struct CampaignRevenue {
    /// The campaign.
    pub campaign_id: String,
    /// Events that made revenue.
    pub transactions: i64,
    /// Whole units of it.
    pub units: i64,
    /// Millionths beside them, less than one unit.
    pub micros: i64,
    /// The first event's minute since 1970.
    pub first_minute: i32,
    /// The last one's.
    pub last_minute: i32,
}

impl CampaignRevenue {
    /// The sum, in millionths.
    pub fn total(&self) -> i128 {
        total(self.units, self.micros)
    }

    /// Adds to a campaign what it earned besides.
    pub fn merge(&mut self, other: &Self) {
        self.transactions += other.transactions;
        let micros = self.micros + other.micros;
        self.units += other.units + micros / MICROS_PER_UNIT;
        self.micros = micros % MICROS_PER_UNIT;
        self.first_minute = self.first_minute.min(other.first_minute);
        self.last_minute = self.last_minute.max(other.last_minute);
    }
}

/// Puts those of one campaign together; ascending by id.
pub fn merge_campaigns(mut campaigns: Vec<CampaignRevenue>) -> Vec<CampaignRevenue> {
    campaigns.sort_unstable_by(|left, right| left.campaign_id.cmp(&right.campaign_id));
    campaigns.dedup_by(|next, kept| {
        let same = next.campaign_id == kept.campaign_id;
        if same {
            kept.merge(next);
        }
        same
    });
    campaigns
}

fn whole(number: i64) -> i32 {
    // Instants of the contract are within 1970 to 2199: their minutes fit.
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Delta {
    /// What rows add that are all new, and of one source.
    pub fn of(rows: &[&Row<'_>]) -> Self {
        let mut rows = rows.to_vec();
        let hour = |row: &Row<'_>| whole(row.event.occurred_at.div_euclid(HOUR));
        rows.sort_by_key(|row| hour(row));
        let mut delta = Self::default();
        for part in rows.chunk_by(|left, right| hour(left) == hour(right)) {
            let seen: Vec<Seen<'_>> = part.iter().map(|row| Seen::of(&row.event)).collect();
            let mut growing = GrowingSummary::default();
            growing.add_events(&seen);
            delta.hours.push((hour(part[0]), growing.finish()));
        }
        let campaigns = rows.iter().filter_map(|row| {
            let (campaign_id, revenue) = (row.event.columns.campaign_id.as_ref()?, row.event.revenue()?);
            let minute = whole(row.event.occurred_at.div_euclid(MINUTE));
            Some(CampaignRevenue {
                campaign_id: campaign_id.to_string(),
                transactions: 1,
                units: revenue / MICROS_PER_UNIT,
                micros: revenue % MICROS_PER_UNIT,
                first_minute: minute,
                last_minute: minute,
            })
        });
        delta.campaigns = merge_campaigns(campaigns.collect());
        delta
    }

    /// As it rests until it is folded.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let size = self.hours.iter().map(|(_, summary)| summary.size()).sum::<usize>();
        super::encode(self, size + self.campaigns.len() * 48)
    }
}
