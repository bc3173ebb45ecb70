//! Rollups as they are written: counts and revenue of a transaction's rows, by type, in spans of a minute to a day.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::event::{EventType, MICROS_PER_MINUTE, MICROS_PER_UNIT, Source};
use crate::store::summary::Map;
use crate::store::write::row::Row;

/// The widths of spans, in minutes: each a multiple of the one before.
pub(in crate::store) const WIDTHS: [i16; 5] = [1, 10, 60, 360, 1_440];

/// The columns of a rollup, and what becomes of what is counted where something is counted already.
pub(in crate::store) const COLUMNS: &str = "minutes, at, event_type, shard, source, funnel_stage, events, transactions, revenue_units, revenue_micros";
pub(in crate::store) const ADDED: &str = "ON CONFLICT (minutes, at, event_type, shard) DO UPDATE SET
    events = rollups.events + excluded.events, transactions = rollups.transactions + excluded.transactions,
    revenue_units = (rollups.revenue_units + excluded.revenue_units) % 1000000000000000000,
    revenue_high = rollups.revenue_high + excluded.revenue_high
        + (rollups.revenue_units + excluded.revenue_units) / 1000000000000000000,
    revenue_micros = rollups.revenue_micros + excluded.revenue_micros";

/// Adds one rollup; its parameters are [`COLUMNS`].
pub(in crate::store) static ADD: LazyLock<String> = LazyLock::new(|| {
    format!("INSERT INTO rollups ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) {ADDED}")
});

/// Adds one rollup that may be beyond 64 bits; its parameters are [`COLUMNS`] and `revenue_high`.
pub(in crate::store) static ADD_WIDE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO rollups ({COLUMNS}, revenue_high) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) {ADDED}"
    )
});

/// What a rollup is of, but for its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Counted {
    pub minutes: i16,
    pub at: i32,
    pub event_type: i16,
    pub source: i16,
    pub funnel_stage: i16,
}

/// What rows add to a rollup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Count {
    pub events: i64,
    pub transactions: i64,
    pub units: i64,
    pub micros: i64,
}

/// What rows add to the rollups, in the order of their keys.
pub(in crate::store) struct Counts(BTreeMap<Counted, Count>);

impl Counts {
    pub fn of(rows: &[&Row<'_>]) -> Self {
        // Minutes first: there are far fewer of them than rows.
        let mut minutes: Map<(i64, i16), (&'static EventType, Source, Count)> = Map::default();
        for row in rows {
            let minute = row.event.occurred_at.div_euclid(MICROS_PER_MINUTE);
            let (kind, source) = (row.event.kind, row.event.source);
            let of = (minute, kind.word.code);
            let (_, _, count) = minutes.entry(of).or_insert_with(|| (kind, source, Count::default()));
            count.events += 1;
            if let Some(revenue) = row.event.revenue() {
                count.transactions += 1;
                count.units += revenue / MICROS_PER_UNIT;
                count.micros += revenue % MICROS_PER_UNIT;
            }
        }
        let mut counts: BTreeMap<Counted, Count> = BTreeMap::new();
        for ((minute, _), (kind, source, more)) in minutes {
            for minutes in WIDTHS {
                let span = Counted {
                    minutes,
                    // Instants of the contract are within 1970 to 2199.
                    at: i32::try_from(minute / i64::from(minutes)).unwrap_or(i32::MAX),
                    event_type: kind.word.code,
                    source: source.code(),
                    funnel_stage: kind.stage.code(),
                };
                let count = counts.entry(span).or_default();
                count.events += more.events;
                count.transactions += more.transactions;
                count.units += more.units;
                count.micros += more.micros;
            }
        }
        Self(counts)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Counted, &Count)> {
        self.0.iter()
    }
}
