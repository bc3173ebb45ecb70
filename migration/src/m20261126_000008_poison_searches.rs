//! `poison_searches`: the search for events that end their collector, one row for each frame that is searched.
//!
//! The part of the frame from `first_position` to `end_position` (exclusive) is tried next; while `under_way` is 1
//! it is being tried. `delivery` is the delivery of the frame in which it was tried: a later delivery that finds
//! `under_way` knows that the collector ended during the trial. `strikes` counts how often in a row that happened
//! to a part of one event. `poison` lists the positions found so far, comma-separated.
//!
//! `suspects` is no longer read. Collectors of the version before still write it while both versions run, so it
//! stays until the next release.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Both databases take these types: SQLite goes by their affinity.
const TABLE: &str = "
CREATE TABLE poison_searches (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    first_position integer NOT NULL,
    end_position integer NOT NULL,
    strikes integer NOT NULL,
    under_way smallint NOT NULL,
    delivery bigint NOT NULL,
    poison text NOT NULL,
    PRIMARY KEY (source, log_id, sequence)
);
";

const DOWN: &str = "DROP TABLE poison_searches;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    // SQLite too: a kill must not leave half of it.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, TABLE, TABLE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, DOWN, DOWN).await
    }
}
