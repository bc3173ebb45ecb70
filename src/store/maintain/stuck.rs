//! Writers' transactions whose process stands still: frozen, cut off, or stopped by a debugger.
//!
//! Such a transaction keeps what it has claimed and inserted locked, and other collectors get the same frames. Each of
//! their statements gives up after a few seconds (`lock_timeout`), and the one that stands still is ended. Its
//! process meets an error when it goes on, and its frames come again: nothing is lost, and nothing is counted twice.

use std::time::Duration;

use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::ledger::rows;
use crate::store::locks::WRITER_LOCKS;

/// How long a writer's transaction may wait for its process while another writer cannot store: between two statements,
/// or for the rows that it copies. A process that works gives them within milliseconds.
pub const STANDS_STILL: Duration = Duration::from_secs(10);

/// A transaction that was ended.
#[derive(Debug)]
pub struct Ended {
    /// The number of PostgreSQL's process.
    pub backend: i32,
    /// Its client's address, where it has one.
    pub client: String,
    /// What it had been asked last.
    pub statement: String,
}

/// Writers' transactions of a source that wait for their process. The lock that marks them is held from their first
/// statement on.
const END: &str = "SELECT a.pid, coalesce(host(a.client_addr), '') AS client, left(a.query, 60) AS statement,
        pg_terminate_backend(a.pid) AS ended
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
        AND (a.state LIKE 'idle in transaction%' AND a.state_change < clock_timestamp() - $3 * interval '1 second'
            OR a.state = 'active' AND a.wait_event = 'ClientRead'
            AND a.query_start < clock_timestamp() - $3 * interval '1 second')
        AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
            AND l.database = a.datid AND l.classid = $1::int4::oid AND l.objid = $2::int4::oid)";

impl Store {
    /// Ends writers' transactions of a source that stand still, of whichever process. SQLite has none: it is of one
    /// process.
    ///
    /// # Errors
    ///
    /// If the store is away, or the role may not end them.
    pub async fn end_stuck_writers(&self, source: Source) -> Result<Vec<Ended>, StoreError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let seconds = i64::try_from(STANDS_STILL.as_secs()).unwrap_or(i64::MAX);
        let values = vec![WRITER_LOCKS.into(), i32::from(source.code()).into(), seconds.into()];
        let found = rows(self.db(), END, values).await?;
        let mut ended = Vec::new();
        for row in found {
            if row.try_get::<bool>("", "ended")? {
                ended.push(Ended {
                    backend: row.try_get("", "pid")?,
                    client: row.try_get("", "client")?,
                    statement: row.try_get("", "statement")?,
                });
            }
        }
        Ok(ended)
    }
}
