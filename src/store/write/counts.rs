//! Rollups on their way into the store: counts and revenue of a transaction's rows, by event type, in spans of a minute
//! to a day.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::event::{EventType, MICROS_PER_MINUTE, MICROS_PER_UNIT, Source};
use crate::store::summary::Map;
use crate::store::write::row::Row;

/// Widths of the spans, in minutes; each is a multiple of the one before.
pub(in crate::store) const WIDTHS: [i16; 5] = [1, 10, 60, 360, 1_440];

/// Columns of a rollup, but for `revenue_high`.
pub(in crate::store) const COLUMNS: &str = "minutes, at, event_type, shard, currency, source, funnel_stage, events, transactions, revenue_units, revenue_micros";

/// The end of an insert that adds to a rollup that exists already. `revenue_high` counts in 10^18 units what exceeds
/// them in `revenue_units`.
pub(in crate::store) const ADD: &str = "ON CONFLICT (minutes, at, event_type, shard, currency) DO UPDATE SET
    events = rollups.events + excluded.events, transactions = rollups.transactions + excluded.transactions,
    revenue_units = (rollups.revenue_units + excluded.revenue_units) % 1000000000000000000,
    revenue_high = rollups.revenue_high + excluded.revenue_high
        + (rollups.revenue_units + excluded.revenue_units) / 1000000000000000000,
    revenue_micros = rollups.revenue_micros + excluded.revenue_micros";

/// Adds one rollup; its parameters are [`COLUMNS`].
pub(in crate::store) static INSERT_ROLLUP: LazyLock<String> = LazyLock::new(|| {
    format!("INSERT INTO rollups ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) {ADD}")
});

/// Adds one rollup whose revenue may exceed 64 bits; its parameters are [`COLUMNS`] and `revenue_high`.
pub(in crate::store) static INSERT_WIDE_ROLLUP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO rollups ({COLUMNS}, revenue_high) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) {ADD}"
    )
});

/// Key of a rollup, but for its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct RollupKey {
    pub minutes: i16,
    pub at: i32,
    pub event_type: i16,
    /// Number of the currency of its revenue. Events without an amount count under the default currency.
    pub currency: i16,
    pub source: i16,
    pub funnel_stage: i16,
}

/// Counts that rows add to one rollup. Revenue is in whole units and, apart from them, millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Count {
    pub events: i64,
    pub transactions: i64,
    pub units: i64,
    pub micros: i64,
}

/// Counts that rows add to the rollups, in the order of their keys.
pub(in crate::store) struct RollupCounts(BTreeMap<RollupKey, Count>);

impl RollupCounts {
    /// Counts rows.
    pub fn of(rows: &[&Row<'_>]) -> Self {
        // By minute first, and wider spans from minutes: there are far fewer minutes than rows.
        let mut minutes: Map<(i64, i16, i16), (&'static EventType, Source, Count)> = Map::default();
        for row in rows {
            let minute = row.event.occurred_at.div_euclid(MICROS_PER_MINUTE);
            let (kind, source) = (row.event.kind, row.event.source);
            let of = (minute, kind.code(), row.event.currency().number());
            let (_, _, count) = minutes.entry(of).or_insert_with(|| (kind, source, Count::default()));
            count.events += 1;
            if let Some(revenue) = row.event.revenue() {
                count.transactions += 1;
                count.units += revenue / MICROS_PER_UNIT;
                count.micros += revenue % MICROS_PER_UNIT;
            }
        }
        let mut counts: BTreeMap<RollupKey, Count> = BTreeMap::new();
        for ((minute, _, currency), (kind, source, more)) in minutes {
            for minutes in WIDTHS {
                let key = RollupKey {
                    minutes,
                    // Instants of the contract are within 1970 to 2199.
                    at: i32::try_from(minute / i64::from(minutes)).unwrap_or(i32::MAX),
                    event_type: kind.code(),
                    currency,
                    source: source.code(),
                    funnel_stage: kind.stage.code(),
                };
                let count = counts.entry(key).or_default();
                count.events += more.events;
                count.transactions += more.transactions;
                count.units += more.units;
                count.micros += more.micros;
            }
        }
        Self(counts)
    }

    /// One value of each rollup, for an array parameter.
    pub fn column<T>(&self, get: impl Fn(&RollupKey, &Count) -> T) -> Vec<T> {
        self.0.iter().map(|(key, count)| get(key, count)).collect()
    }

    /// Keys and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&RollupKey, &Count)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;
    use crate::store::write::samples::{origin, row, sale};

    #[test]
    fn each_row_is_counted_once_in_each_width() {
        let origin = origin();
        let sales = [(0, "1.5"), (9, "2"), (10, "0.000001"), (61, "999999999999.999999")];
        let texts = sales.map(|(minute, amount)| sale(&format!("s-{minute}"), minute, amount));
        let rows: Vec<_> = texts.iter().map(|text| row(text, &origin)).collect();
        let counts = RollupCounts::of(&rows.iter().collect::<Vec<_>>());
        let day = 20_513; // 2026-03-01
        for (minutes, expected) in [(1, 4), (10, 3), (60, 2), (360, 1), (1_440, 1)] {
            let of_width: Vec<_> = counts.iter().filter(|(key, _)| key.minutes == minutes).collect();
            assert_eq!(of_width.len(), expected, "spans of {minutes} minutes");
            assert_eq!(of_width.iter().map(|(_, count)| count.events).sum::<i64>(), 4, "{minutes}");
            assert_eq!(of_width.iter().map(|(_, count)| count.transactions).sum::<i64>(), 4, "{minutes}");
            let (units, micros) =
                of_width.iter().fold((0, 0), |sum, (_, count)| (sum.0 + count.units, sum.1 + count.micros));
            assert_eq!((units, micros), (1_000_000_000_002, 1_500_000), "{minutes}");
            assert!(of_width.iter().all(|(key, _)| i64::from(key.at) * i64::from(minutes) / 1_440 == day));
        }
        let keys: Vec<_> = counts.iter().map(|(key, _)| *key).collect();
        assert!(keys.is_sorted(), "transactions take the rollups' locks in one order");
        assert_eq!(counts.column(|key, _| key.minutes).len(), keys.len());
    }

    #[test]
    fn another_currency_alone_adds_rollups() {
        let origin = origin();
        let texts = ["1", "2", "4"].map(|amount| sale(&format!("s-{amount}"), 0, amount));
        let mut rows: Vec<_> = texts.iter().map(|text| row(text, &origin)).collect();
        let count = |rows: &[Row<'_>]| {
            let counts = RollupCounts::of(&rows.iter().collect::<Vec<_>>());
            let each = counts.iter().filter(|(key, _)| key.minutes == 1);
            each.map(|(key, count)| (key.currency, count.transactions, count.units)).collect::<Vec<_>>()
        };
        assert_eq!(count(&rows), [(840, 3, 7)]);
        rows[1].event.columns.currency = Some(Currency::from_number(978));
        assert_eq!(count(&rows), [(840, 2, 5), (978, 1, 2)]);
    }
}
