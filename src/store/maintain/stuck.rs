//! Ending writers' transactions whose process stands still: stopped by a signal or a debugger, or cut off from the
//! network.
//!
//! The locks of a stuck transaction on the rows that it claimed and inserted stay, while its frames are delivered to
//! other collectors. Their statements give up after a few seconds (`lock_timeout`), and the stuck transaction is ended.
//! Its process gets an error when it goes on, and its frames are delivered again: no event is lost or counted
//! twice.

use std::time::Duration;

use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::locks::WRITER_LOCKS;
use crate::store::sql::Sql;
use crate::store::transaction::Transaction;

/// Time for which a writer's transaction may wait for its process, between two statements or for the rows of a COPY,
/// while another writer cannot store. A process that works answers within milliseconds.
pub const STANDS_STILL: Duration = Duration::from_secs(10);

/// A transaction that was ended.
#[derive(Debug)]
pub struct Ended {
    /// Number of the server's process.
    pub backend: i32,
    /// Address of its client; empty for a Unix socket.
    pub client: String,
    /// Beginning of its last statement.
    pub statement: String,
}

/// Ends the writers' transactions of a source that wait for their process. Every writer holds the lock from its first
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
    /// Marks a transaction that changes rows of a source as one of its writers, so that it is ended if it stands still
    /// while another writer waits for these rows. Folding and the removal of rows by age need no mark: the first holds a
    /// lock that others only try, the second is one statement a transaction; frozen, they end after two minutes
    /// (`idle_in_transaction_session_timeout`).
    pub(in crate::store) async fn mark_as_writer(
        &self,
        tx: &Transaction,
        source: Source,
    ) -> Result<(), StoreError> {
        if self.is_postgres() {
            let mark = Sql::new("SELECT 1 FROM (SELECT pg_advisory_xact_lock_shared($1, $2)) marked");
            mark.bind(WRITER_LOCKS).bind(i32::from(source.code())).execute(tx).await?;
        }
        Ok(())
    }

    /// Ends writers' transactions of a source that stand still, of whichever process. SQLite's writers are all in this
    /// process, so it has none.
    ///
    /// # Errors
    ///
    /// If the store is unavailable, or the role may not end them.
    pub async fn end_stuck_writers(&self, source: Source) -> Result<Vec<Ended>, StoreError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let seconds = i64::try_from(STANDS_STILL.as_secs()).unwrap_or(i64::MAX);
        let end = Sql::new(END).bind(WRITER_LOCKS).bind(i32::from(source.code())).bind(seconds);
        let mut ended = Vec::new();
        for row in end.rows(self.db()).await? {
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
