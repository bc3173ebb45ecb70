//! Comparing campaigns with the rows.

use super::retention::{NO_MINUTE, retain, retained_from};
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::summary::fold_all;

impl Store {
    /// Number of a source's campaigns, by currency, that differ from the rows; they are repaired if `mend` is true. `None` if rows were
    /// deleted by age, so that there is nothing to compare with.
    ///
    /// # Errors
    ///
    /// If the store is unavailable, or summaries are being folded again and again.
    pub async fn compare_campaigns(&self, source: Source, mend: bool) -> Result<Option<i64>, StoreError> {
        self.retry_conflicts(async || self.compare_campaigns_once(source, mend).await).await
    }

    async fn compare_campaigns_once(&self, source: Source, mend: bool) -> Result<Option<i64>, StoreError> {
        let rows = self.campaign_sums();
        let busy = || StoreError::conflict("summaries are being folded");
        let tx = self.lock_summaries(source).await?.ok_or_else(busy)?;
        retain(&tx, source, NO_MINUTE).await?;
        if retained_from(&tx, source).await?.is_some() {
            tx.rollback().await?;
            return Ok(None);
        }
        fold_all(&tx, source).await?;
        let sql = format!(
            "WITH truth AS ({rows}), kept AS (SELECT * FROM campaigns WHERE source = $1)
             SELECT count(*) FILTER (WHERE (t.transactions, t.high, t.units, t.micros, t.first_minute, t.last_minute)
                    IS DISTINCT FROM (k.transactions, k.high, k.units, k.micros, k.first_minute, k.last_minute)
                OR (k.ends_of = k.transactions AND (t.first_units, t.last_units)
                    IS DISTINCT FROM (k.first_units, k.last_units))) AS wrong,
                count(*) FILTER (WHERE k.ends_of <> k.transactions) AS unknown
             FROM truth t FULL JOIN kept k ON k.campaign_id = t.campaign_id AND k.currency = t.currency"
        );
        let of_source = |sql: &str| Sql::new(sql).bind(source.code());
        let (wrong, unknown) = match of_source(&sql).row(&tx).await? {
            Some(row) => (row.try_get("", "wrong")?, row.try_get("", "unknown")?),
            None => (0_i64, 0_i64),
        };
        // Revenue of first and last minutes that an earlier version did not count is no difference; it is added.
        if mend && wrong + unknown > 0 {
            // Only rows that differ are written, so that the index stays compact for readers.
            let none = "DELETE FROM campaigns WHERE source = $1 AND NOT EXISTS (SELECT 1 FROM event_rows e
                WHERE e.campaign_id = campaigns.campaign_id AND e.source = $1 AND e.currency = campaigns.currency
                    AND e.revenue IS NOT NULL)";
            of_source(none).execute(&tx).await?;
            let sums = [
                "transactions",
                "high",
                "units",
                "micros",
                "first_minute",
                "last_minute",
                "first_units",
                "last_units",
                "ends_of",
            ];
            let each = |form: &dyn Fn(&str) -> String| sums.map(form).join(", ");
            let sql = format!(
                "INSERT INTO campaigns (campaign_id, source, currency, {}) {rows}
                 ON CONFLICT (campaign_id, source, currency) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})",
                sums.join(", "),
                each(&|sum| format!("{sum} = excluded.{sum}")),
                each(&|sum| format!("campaigns.{sum}")),
                each(&|sum| format!("excluded.{sum}")),
            );
            of_source(&sql).execute(&tx).await?;
        }
        tx.commit().await?;
        Ok(Some(wrong))
    }

    /// The campaigns of a source (`$1`) as the rows have them, with the columns of `campaigns`.
    ///
    /// Text, not a query of the builder: window functions and filtered aggregates. Sums are in parts that never exceed 64
    /// bits; revenue of the first and the last minute stops at 10^18 units.
    fn campaign_sums(&self) -> String {
        let minute = self.minute();
        format!(
            "SELECT campaign_id, source, currency, transactions,
                CAST(millions / 1000000000000 AS bigint) AS high,
                CAST(millions % 1000000000000 * 1000000 + units AS bigint) AS units, micros, first_minute, last_minute,
                CASE WHEN first_millions >= 1000000000000 THEN 1000000000000000000
                    ELSE first_millions * 1000000 + first_units END AS first_units,
                CASE WHEN last_millions >= 1000000000000 THEN 1000000000000000000
                    ELSE last_millions * 1000000 + last_units END AS last_units,
                transactions AS ends_of
            FROM (SELECT campaign_id, source, currency, transactions, first_minute, last_minute,
                    millions + (units + micros / 1000000) / 1000000 AS millions,
                    (units + micros / 1000000) % 1000000 AS units, micros % 1000000 AS micros,
                    first_millions + first_units / 1000000 AS first_millions, first_units % 1000000 AS first_units,
                    last_millions + last_units / 1000000 AS last_millions, last_units % 1000000 AS last_units
                FROM (SELECT campaign_id, source, currency, count(*) AS transactions,
                        CAST(min(minute) AS integer) AS first_minute, CAST(max(minute) AS integer) AS last_minute,
                        CAST(sum(revenue / 1000000000000) AS bigint) AS millions,
                        CAST(sum(revenue / 1000000 % 1000000) AS bigint) AS units,
                        CAST(sum(revenue % 1000000) AS bigint) AS micros,
                        CAST(sum(revenue / 1000000000000) FILTER (WHERE minute = first) AS bigint) AS first_millions,
                        CAST(sum(revenue / 1000000 % 1000000) FILTER (WHERE minute = first) AS bigint) AS first_units,
                        CAST(sum(revenue / 1000000000000) FILTER (WHERE minute = last) AS bigint) AS last_millions,
                        CAST(sum(revenue / 1000000 % 1000000) FILTER (WHERE minute = last) AS bigint) AS last_units
                    FROM (SELECT campaign_id, source, currency, revenue, {minute} AS minute,
                            min({minute}) OVER campaign AS first, max({minute}) OVER campaign AS last
                        FROM event_rows WHERE source = $1 AND revenue IS NOT NULL AND campaign_id IS NOT NULL
                        WINDOW campaign AS (PARTITION BY campaign_id, currency)) AS sales
                    GROUP BY campaign_id, source, currency) AS sums) AS parts WHERE true"
        )
    }
}
