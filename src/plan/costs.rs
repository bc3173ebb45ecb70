//! Measured costs of an event, and what one server or process takes: the only place where they stand.
//!
//! Sources: docs/performance.md, "The pipeline" and "Bytes of an event". They were measured on two shared cores, so sizes
//! beyond [`MEASURED_ARRAYS`] are arithmetic.

/// CPU time of an event in microseconds, in requests of one event and in arrays of 50,000.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    /// In requests of one event, 64 connections.
    pub single: f64,
    /// In arrays of 50,000 events.
    pub array: f64,
}

impl Cpu {
    /// CPU time of an event in microseconds if a request holds so many. Between the two measured sizes it is
    /// interpolated: a part for the event, and a part for the request.
    pub fn per_event(self, events_per_request: f64) -> f64 {
        self.array + (self.single - self.array) / events_per_request.max(1.0)
    }
}

pub(super) const GATEWAY: Cpu = Cpu { single: 46.0, array: 2.0 };
pub(super) const NATS: Cpu = Cpu { single: 22.0, array: 1.4 };
pub(super) const COLLECTOR: Cpu = Cpu { single: 11.0, array: 3.2 };
pub(super) const POSTGRES: Cpu = Cpu { single: 11.0, array: 4.8 };
/// CPU time in microseconds that an event takes in addition when tens of millions of rows are stored: 15.9 in place of
/// 11.4 at 22 million rows, with an index that fits into memory.
pub(super) const POSTGRES_MANY_ROWS: f64 = 4.5;
/// Number of rows from which [`POSTGRES_MANY_ROWS`] is added.
pub(super) const MANY_ROWS: f64 = 10e6;

/// Largest measured rate in arrays of 1,000 events and more, in events a second: all of it on two cores, one process of
/// each kind, one replica.
pub(super) const MEASURED_ARRAYS: f64 = 50_000.0;
/// Largest measured rate in requests of single events, in events a second.
pub(super) const MEASURED_SINGLES: f64 = 20_800.0;

/// Bytes of an event in a stream, with the overhead of frame and message: 424. A request carries a few bytes less.
pub(super) const LOG_BYTES: f64 = 424.0;
/// Bytes of an event in the index of the key, which every insertion searches.
pub(super) const KEY_INDEX_BYTES: f64 = 46.0;
/// Bytes of an event in `event_rows`, its index included.
pub(super) const ROW_BYTES: f64 = 243.0 + KEY_INDEX_BYTES;
/// Bytes of an event in PostgreSQL's write-ahead log, with lz4 compression.
pub(super) const WAL_BYTES: f64 = 389.0;
/// Factor of [`WAL_BYTES`] from [`MANY_ROWS`] on: keys are random, so nearly each event is the first change of its page
/// of the index after a checkpoint, and the whole page is logged. Measured at 40 million rows.
pub(super) const WAL_MANY_ROWS: f64 = 3.7;
/// Time between PostgreSQL's checkpoints in docker/postgresql.conf, in seconds.
pub(super) const CHECKPOINT_SECONDS: f64 = 900.0;

/// Part of a core, disk or link that is planned with; the rest is for peaks, folding and reports.
pub(super) const UTILISATION: f64 = 0.6;
/// Cores that one gateway uses: two validators, and the workers beside them.
pub(super) const GATEWAY_CORES: f64 = 4.0;
/// Cores that one collector uses: it has one thread.
pub(super) const COLLECTOR_CORES: f64 = 1.0;
/// Cores of one stream: its messages are appended one after another.
pub(super) const STREAM_CORES: f64 = 1.0;
/// Cores of the database server. One server takes all writes.
pub(super) const DATABASE_CORES: f64 = 64.0;
/// Bytes a second that a server's disks write: four NVMe drives. PostgreSQL writes its log and, at checkpoints, its
/// pages.
pub(super) const DISK_BYTES_PER_SECOND: f64 = 4e9;
/// Bytes a second of a network interface: 25 Gbit/s.
pub(super) const NETWORK_BYTES_PER_SECOND: f64 = 25e9 / 8.0;
/// Memory of the database server in bytes.
pub(super) const DATABASE_MEMORY: f64 = 512e9;
/// Part of the memory that the index of the key may take.
pub(super) const INDEX_MEMORY: f64 = 0.5;
/// Random reads a second of the database server's disks. An insertion reads a page of the index that is not in memory.
pub(super) const DISK_READS_PER_SECOND: f64 = 500_000.0;
/// Disk of the database server in bytes.
pub(super) const DATABASE_DISK: f64 = 100e12;

/// Peak memory of a gateway in bytes without the requests that it holds, which `ESS_MAX_INFLIGHT` bounds.
pub(super) const GATEWAY_MEMORY: f64 = 98e6;
/// Default of `ESS_MAX_INFLIGHT`, in bytes.
pub(super) const GATEWAY_INFLIGHT: f64 = 268_435_456.0;
/// Peak memory of a collector in bytes.
pub(super) const COLLECTOR_MEMORY: f64 = 145e6;
/// Peak memory of a reporter in bytes: its cache of summaries, and the rest.
pub(super) const REPORTER_MEMORY: f64 = 640e6;
/// Time that the log is to hold while the database is away, in seconds.
pub(super) const OUTAGE_SECONDS: f64 = 3_600.0;
