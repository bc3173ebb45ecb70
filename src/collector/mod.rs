//! A collector: from the log to rows, for one source.
//!
//! ```text
//! log ──Delivery { frame, receipt }──▶ consume ──Collect──▶ batch_write ──Batch──▶ store
//!                                         ▲                      │ committed: acknowledge
//!                                         └───────room───────────┘
//! ```
//!
//! `consume` asks the log for as many frames as `batch_write` has room for, never more. `batch_write`
//! makes transactions of what waits and acknowledges after the commit. Several collectors of one
//! source share its frames.

mod batch_write;
mod consume;
mod dead_letters;
mod poison;
mod progress;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Arbiter;
use tokio::sync::watch;

use crate::config::Config;
use crate::event::Source;
use crate::ledger::{Reconciler, Reconciliation};
use crate::log::{SharedLog, Topic};
use crate::ops::http::{Requests, ServiceView, serve};
use crate::ops::metrics::{CollectorMetrics, ServiceMetrics};
use crate::ops::{Readiness, Sampler};
use crate::runtime::{DrainHandle, Registry, Spec, supervise};
use crate::service::Running;
use crate::store::{Retention, RetentionClock, Store, StoreError};

/// The log and the database, as readiness names them.
const LOG: &str = "log";
const DATABASE: &str = "database";
/// What the log holds that this version cannot read, as readiness names it.
const FRAMES: &str = "frames";
/// Frames that `batch_write` holds at one time: 32 MiB at most, and about 1 MiB of small ones.
const BATCH_WRITE_BOUND: usize = 64;
/// Batches that wait for the database, as readiness names them.
const STORING: &str = "storing";
/// `consume` takes no messages: it is the source.
const CONSUME_BOUND: usize = 1;
/// How often the database is asked whether it is there.
const PROBE: Duration = Duration::from_secs(1);
/// How often processed frames are folded and the lag is measured.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Time limit of folding.
const FOLD_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which it is checked that batches are stored.
const WATCH: Duration = Duration::from_secs(1);
/// A batch waits so long before writers that stand still are looked for, and before readiness says so.
const HELD_UP: Duration = Duration::from_secs(5);
const NOT_STORING: Duration = Duration::from_secs(10);
/// Time limit of looking for writers that stand still.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often summaries are kept, if that is little work, and if it is much.
const SUMMARIES: Duration = Duration::from_secs(5);
const SUMMARIES_AT_LATEST: Duration = Duration::from_secs(30);
/// How often dead letters leave.
const EXPIRY: Duration = Duration::from_secs(30);
/// Lines per second about requests whose events were stored.
const LINES_PER_SECOND: u32 = 50;

/// The collector's name.
pub const fn name(source: Source) -> &'static str {
    match source {
        Source::Facebook => "collector-facebook",
        Source::Tiktok => "collector-tiktok",
    }
}

/// Starts a collector of one source. The error names what could not be started.
pub fn start(
    config: &Config,
    source: Source,
    port: u16,
    log: &SharedLog,
    store: &Store,
    drain: &DrainHandle,
) -> Result<Running, String> {
    let actors = Arc::new(Registry::default());
    let service_metrics = ServiceMetrics::new(actors.clone());
    let metrics = CollectorMetrics::new(&service_metrics);
    let readiness = Arc::new(Readiness::new(name(source), &[LOG, DATABASE]));
    let spec = |name: &str, bound| Spec { name: format!("collector.{source}.{name}"), bound };
    let (schema, migrated) = watch::channel(false);
    let progress = progress::Progress::default();

    let home = Arbiter::new();
    let batch_write = {
        let parts = batch_write::Parts {
            source,
            store: store.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            drain: drain.clone(),
            lanes: config.batch_concurrency,
            max_deliveries: config.max_deliveries,
            lines: Arc::new(Sampler::per_second(LINES_PER_SECOND)),
            progress: progress.clone(),
            limit: batch_write::Limit::default(),
        };
        supervise(&actors, spec("batch_write", BATCH_WRITE_BOUND), &home.handle(), move || {
            batch_write::BatchWriter::new(parts.clone())
        })
    };
    let (consumed, ended) = consume::ending();
    {
        let parts = consume::Parts {
            source,
            log: log.clone(),
            sink: batch_write.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            drain: drain.clone(),
            migrated: migrated.clone(),
            ended: consumed,
        };
        supervise(&actors, spec("consume", CONSUME_BOUND), &home.handle(), move || {
            consume::Consumer::new(parts.clone())
        });
    }
    let (letters_consumed, letters_ended) = consume::ending();
    {
        let parts = dead_letters::Parts {
            log: log.clone(),
            store: store.clone(),
            drain: drain.clone(),
            migrated: migrated.clone(),
            ended: letters_consumed,
        };
        supervise(&actors, spec("dead_letters", CONSUME_BOUND), &home.handle(), move || {
            dead_letters::DeadLetterCollector::new(parts.clone())
        });
    }

    let mut probes = vec![
        tokio::spawn(probe_store(store.clone(), readiness.clone(), schema)),
        tokio::spawn(keep_house(source, log.clone(), store.clone(), metrics.clone())),
        tokio::spawn(watch_storing(source, store.clone(), readiness.clone(), progress)),
        tokio::spawn(keep_summaries(source, store.clone(), migrated, metrics.clone())),
        tokio::spawn(expire_letters(
            store.clone(),
            Retention { age: config.dead_letter_retention, bytes: config.log.dead_letter_max_bytes },
            metrics,
        )),
    ];
    if let Some(retention) = config.retention {
        probes.push(tokio::spawn(expire_rows(source, store.clone(), retention)));
    }
    let view = ServiceView {
        name: name(source),
        actors: actors.clone(),
        metrics: service_metrics,
        readiness,
        drain: drain.clone(),
        admin_token: config.admin_token.clone(),
        requests: Requests::default(),
        tokens: Vec::new(),
        settings: config.http.clone(),
    };
    let requests = view.requests.clone();
    let (server, address) = serve(view, port, 1, |_| {})?;
    let idle = Box::pin(async move {
        ended.wait().await;
        letters_ended.wait().await;
        batch_write.idle().await;
        format!("{} frames", batch_write.stats().handled())
    });
    Ok(Running {
        name: name(source),
        address,
        server,
        requests,
        actors,
        idle,
        works_over_http: false,
        probes,
        arbiters: vec![home],
    })
}

/// Migrates, as soon as the database is there, and then asks it again and again whether it still is.
async fn probe_store(store: Store, readiness: Arc<Readiness>, schema: watch::Sender<bool>) {
    loop {
        if *schema.borrow() {
            readiness.probe(DATABASE, store.check()).await;
        } else {
            // A migration takes the time that it takes.
            let migrated = store.migrate().await;
            schema.send_replace(migrated.is_ok());
            readiness.report(DATABASE, migrated.map_err(|error| error.to_string()));
        }
        tokio::time::sleep(PROBE).await;
    }
}

/// Folds processed frames, measures the lag, and remembers what was seen of the log.
async fn keep_house(source: Source, log: SharedLog, store: Store, metrics: CollectorMetrics) {
    metrics.set_lag(source, Some(0));
    let ledgers = Reconciler::new(log.clone(), store.clone());
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        if let Ok(state) = log.state(topic(source)).await {
            let fold = async {
                store.fold_ledger(source, state.log_id, state.first).await?;
                store.expire_writers(source, &state.acknowledged).await
            };
            match tokio::time::timeout(FOLD_TIMEOUT, fold).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%source, %error, "processed frames were not folded now"),
                Err(_) => tracing::warn!(%source, "processed frames were not folded within {FOLD_TIMEOUT:?}"),
            }
        }
        match ledgers.reconcile(source).await {
            Ok(look) => {
                metrics.set_lag(source, Some(look.ledger.in_flight));
                compare_logs(source, &look);
                if let Err(error) = store.save_observation(source, &look.known, &look.observed).await {
                    tracing::debug!(%source, %error, "what was seen of the log is not remembered now");
                }
            }
            Err(error) => {
                metrics.set_lag(source, None);
                tracing::debug!(%source, %error, "the lag is not known now");
            }
        }
    }
}

/// Says aloud that the log is another one than before, or has lost its newest frames.
fn compare_logs(source: Source, look: &Reconciliation) {
    let Some((before, last_before)) = look.known.log else { return };
    let (log_id, last, missing) = (look.observed.log_id, look.observed.last, look.observed.missing);
    if before != log_id {
        tracing::warn!(%source, %log_id, %before, last_before, missing,
            "another log than before: it was made anew. If that was not meant, put the former one back; what it had \
             taken and the store has not is missing in /ledger");
    } else if last < last_before {
        tracing::error!(%source, %log_id, last, last_before, missing,
            "the log went back: it was restored from an older copy, or lost its newest frames. What it had taken and \
             the store has not is missing in /ledger; if a newer copy is there, put that back");
    }
}

/// Ends writers that stand still and hold up this one's batches, and tells readiness when batches are not stored.
async fn watch_storing(
    source: Source,
    store: Store,
    readiness: Arc<Readiness>,
    progress: progress::Progress,
) {
    let mut held_up = false;
    loop {
        tokio::time::sleep(WATCH).await;
        let waited = progress.oldest();
        if waited >= HELD_UP {
            match tokio::time::timeout(WATCH_TIMEOUT, store.end_stuck_writers(source)).await {
                Ok(Ok(ended)) => ended.iter().for_each(|ended| {
                    tracing::error!(%source, backend = ended.backend, client = ended.client,
                        statement = ended.statement, "a writer's transaction stood still and held up others: it was \
                         ended, and its frames come again. Look for a collector that is frozen or cut off");
                }),
                Ok(Err(error)) => {
                    tracing::debug!(%source, %error, "writers that stand still were not looked for now");
                }
                Err(_) => {}
            }
        }
        let not_storing = waited >= NOT_STORING;
        if not_storing || held_up {
            let why = || format!("a batch waits for the database since more than {NOT_STORING:?}");
            readiness.report(STORING, if not_storing { Err(why()) } else { Ok(()) });
        }
        held_up = not_storing;
    }
}

/// Folds what transactions added into the summaries of their hours, and those into wider ones. Reports are
/// exact without it, and slower.
async fn keep_summaries(
    source: Source,
    store: Store,
    mut migrated: watch::Receiver<bool>,
    metrics: CollectorMetrics,
) {
    if migrated.wait_for(|migrated| *migrated).await.is_err() {
        return;
    }
    let mut rest = SUMMARIES;
    loop {
        tokio::time::sleep(rest).await;
        let started = Instant::now();
        let kept = async {
            let folded = store.fold_summaries(source).await?;
            let mut refreshed = 0;
            while started.elapsed() < SUMMARIES {
                match store.refresh_summaries(source).await? {
                    0 => break,
                    some => refreshed += some,
                }
            }
            Ok::<_, StoreError>((folded, refreshed))
        };
        match kept.await {
            Ok((0, 0)) => {}
            Ok((events, spans)) => tracing::debug!(%source, events, spans, "summaries kept"),
            // Another collector of this source does it at the same time, or the store is away.
            Err(error) => tracing::debug!(%source, %error, "summaries were not kept now"),
        }
        metrics.set_damaged(source, store.damaged_summaries(source).await.ok());
        // A tenth of the time, if that is not too seldom.
        rest = SUMMARIES.max(started.elapsed() * 19).min(SUMMARIES_AT_LATEST);
    }
}

/// Lets rows go that are older than that; at most a twentieth of it late.
async fn expire_rows(source: Source, store: Store, retention: Duration) {
    let every = (retention / 20).clamp(Duration::from_secs(1), Duration::from_hours(24));
    let age = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let mut clock = RetentionClock::default();
    loop {
        tokio::time::sleep(every).await;
        let expire = async {
            let Some(now) = clock.now(&store).await? else {
                tracing::warn!(%source, "no row leaves by age: the clock is far ahead of the last one; if it goes on \
                    evenly for an hour, it is trusted");
                return Ok(0);
            };
            store.expire_rows(source, now.saturating_sub(age).max(0)).await
        };
        match expire.await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(%source, rows, "rows left by age"),
            Err(error) => tracing::debug!(%source, %error, "rows did not leave now"),
        }
    }
}

/// Lets dead letters go that are too old or too many.
async fn expire_letters(store: Store, retention: Retention, metrics: CollectorMetrics) {
    loop {
        tokio::time::sleep(EXPIRY).await;
        match store.expire_letters(retention).await {
            Ok(gone) => metrics.letters_expired.inc_by(gone),
            Err(error) => tracing::debug!(%error, "dead letters did not leave now"),
        }
    }
}

/// The topic of a source.
const fn topic(source: Source) -> Topic {
    Topic::Events(source)
}
