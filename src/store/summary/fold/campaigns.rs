//! Adding revenue to table `campaigns`, which ranks campaigns over all time.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, EntityTrait};

use super::super::campaign_revenue::CampaignRevenue;
use super::super::table::ROWS;
use crate::event::Source;
use crate::store::entity::campaigns;
use crate::store::error::StoreError;
use crate::store::transaction::Transaction;

/// Sums of a stored campaign and an added one, by column. They are [`CampaignRevenue::merge`] in SQL.
const SUMS: [(campaigns::Column, &str); 9] = {
    use campaigns::Column::{
        EdgeTransactions, FirstMinute, FirstMinuteUnits, High, LastMinute, LastMinuteUnits, Micros,
        Transactions, Units,
    };
    [
        (Transactions, "campaigns.transactions + excluded.transactions"),
        (
            Units,
            "(campaigns.units + excluded.units + (campaigns.micros + excluded.micros) / 1000000)
                % 1000000000000000000",
        ),
        (
            High,
            "campaigns.high + excluded.high + (campaigns.units + excluded.units
                + (campaigns.micros + excluded.micros) / 1000000) / 1000000000000000000",
        ),
        (Micros, "(campaigns.micros + excluded.micros) % 1000000"),
        (
            FirstMinute,
            "CASE WHEN excluded.first_minute < campaigns.first_minute THEN excluded.first_minute
                ELSE campaigns.first_minute END",
        ),
        (
            LastMinute,
            "CASE WHEN excluded.last_minute > campaigns.last_minute THEN excluded.last_minute
                ELSE campaigns.last_minute END",
        ),
        (
            FirstMinuteUnits,
            "CASE WHEN excluded.first_minute < campaigns.first_minute THEN excluded.first_units
                WHEN excluded.first_minute = campaigns.first_minute
                    THEN CASE WHEN campaigns.first_units + excluded.first_units < 1000000000000000000
                        THEN campaigns.first_units + excluded.first_units ELSE 1000000000000000000 END
                ELSE campaigns.first_units END",
        ),
        (
            LastMinuteUnits,
            "CASE WHEN excluded.last_minute > campaigns.last_minute THEN excluded.last_units
                WHEN excluded.last_minute = campaigns.last_minute
                    THEN CASE WHEN campaigns.last_units + excluded.last_units < 1000000000000000000
                        THEN campaigns.last_units + excluded.last_units ELSE 1000000000000000000 END
                ELSE campaigns.last_units END",
        ),
        (
            EdgeTransactions,
            "CASE WHEN campaigns.ends_of = campaigns.transactions
                    AND excluded.ends_of = excluded.transactions
                THEN campaigns.ends_of + excluded.ends_of ELSE 0 END",
        ),
    ]
};

/// Adds revenue to the campaigns of a source.
pub(super) async fn add_to_campaigns(
    tx: &Transaction,
    source: Source,
    revenue: Vec<CampaignRevenue>,
) -> Result<(), StoreError> {
    let models = revenue.into_iter().map(|added| campaigns::ActiveModel {
        campaign_id: Set(added.campaign_id),
        source: Set(source.code()),
        transactions: Set(added.transactions),
        units: Set(added.units),
        micros: Set(added.micros),
        first_minute: Set(added.first_minute),
        last_minute: Set(added.last_minute),
        first_minute_units: Set(added.first_minute_units),
        last_minute_units: Set(added.last_minute_units),
        edge_transactions: Set(added.edge_transactions),
        high: Set(added.high),
        currency: Set(added.currency),
    });
    let mut models = models.peekable();
    while models.peek().is_some() {
        let mut sum = OnConflict::columns([
            campaigns::Column::CampaignId,
            campaigns::Column::Source,
            campaigns::Column::Currency,
        ]);
        sum.values(SUMS.map(|(column, sum)| (column, Expr::cust(sum))));
        campaigns::Entity::insert_many(models.by_ref().take(ROWS))
            .on_conflict(sum)
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}
