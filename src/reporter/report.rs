//! The actor that answers questions.

use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use futures::try_join;

use super::answer::{
    CampaignEntry, DemographicsReport, EventsEntry, EventsReport, FacebookAudience, RevenueEntry,
    RevenueReport, TiktokAudience, age_groups, average_percentage, average_watch_time, cities, countries,
    devices, followers, genders, mean_money, money,
};
use super::query::{BadParameter, Interval, MAX_BUCKETS, range_of, too_many_buckets};
use crate::event::Source;
use crate::runtime::Held;
use crate::store::report::{Filter, Group, RevenueSum};
use crate::store::{Store, StoreError};

/// How long a report may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A question.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Events { filter: Filter, interval: Option<Interval> },
    Revenue { filter: Filter, interval: Option<Interval>, campaigns: Option<u64> },
    Demographics { filter: Filter, limit: u64 },
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ReportError {
    Bad(BadParameter),
    Store(StoreError),
    TooLong,
    Shape(serde_json::Error),
}

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Answer this.
#[derive(Debug, Clone)]
pub(super) struct Ask(pub Question);

impl Message for Ask {
    type Result = Result<String, ReportError>;
}

/// The actor.
pub(super) struct Reporter {
    store: Store,
}

impl Reporter {
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Actor for Reporter {
    type Context = Context<Self>;
}

impl Handler<Held<Ask>> for Reporter {
    type Result = ResponseFuture<Result<String, ReportError>>;

    fn handle(&mut self, held: Held<Ask>, _: &mut Self::Context) -> Self::Result {
        let (Ask(question), room) = held.open();
        let store = self.store.clone();
        Box::pin(async move {
            let _room = room;
            match tokio::time::timeout(DEADLINE, answer(&store, question)).await {
                Ok(answer) => answer,
                Err(_) => Err(ReportError::TooLong),
            }
        })
    }
}

async fn answer(store: &Store, question: Question) -> Result<String, ReportError> {
    let json = match question {
        Question::Events { filter, interval } => {
            serde_json::to_string(&events(store, &filter, interval).await?)
        }
        Question::Revenue { filter, interval, campaigns } => {
            serde_json::to_string(&revenue(store, &filter, interval, campaigns).await?)
        }
        Question::Demographics { filter, limit } => {
            serde_json::to_string(&demographics(store, &filter, limit).await?)
        }
    };
    json.map_err(ReportError::Shape)
}

/// A series in an open range can still be too long.
fn check_buckets<T>(series: &[T], bucket: impl Fn(&T) -> i64) -> Result<(), ReportError> {
    let mut buckets: Vec<i64> = series.iter().map(bucket).collect();
    buckets.dedup();
    let too_many = i64::try_from(buckets.len()).unwrap_or(i64::MAX) > MAX_BUCKETS;
    if too_many { Err(ReportError::Bad(too_many_buckets())) } else { Ok(()) }
}

async fn events(
    store: &Store,
    filter: &Filter,
    interval: Option<Interval>,
) -> Result<EventsReport, ReportError> {
    // One look at the store for both: the series' sums are the totals.
    let counts = store.count_events(filter, interval.map(Interval::minutes)).await?;
    let mut totals: Vec<crate::store::report::EventCount> = Vec::new();
    for count in &counts {
        let same = totals.iter_mut().find(|total| total.event_type == count.event_type);
        match same {
            Some(total) => total.events += count.events,
            None => totals.push(count.clone()),
        }
    }
    totals.sort_by_key(|total| (total.source, total.funnel_stage, total.event_type));
    check_buckets(&counts, |count| count.bucket)?;
    Ok(EventsReport {
        range: range_of(filter),
        total_events: totals.iter().map(|total| total.events).sum(),
        events: totals.iter().map(|total| EventsEntry::new(total, None)).collect(),
        series: interval
            .map(|interval| counts.iter().map(|count| EventsEntry::new(count, Some(interval))).collect()),
    })
}

async fn revenue(
    store: &Store,
    filter: &Filter,
    interval: Option<Interval>,
    campaigns: Option<u64>,
) -> Result<RevenueReport, ReportError> {
    let sums = store.sum_revenue(filter, interval.map(Interval::minutes)).await?;
    let mut totals: Vec<RevenueSum> = Vec::new();
    for sum in &sums {
        let same = totals.iter_mut().find(|total| total.event_type == sum.event_type);
        match same {
            Some(total) => {
                total.transactions += sum.transactions;
                total.units += sum.units;
                total.micros += sum.micros;
            }
            None => totals.push(sum.clone()),
        }
    }
    totals.sort_by_key(|total| (total.source, total.event_type));
    check_buckets(&sums, |sum| sum.bucket)?;
    let campaigns = match campaigns {
        Some(limit) => {
            Some(store.sum_campaigns(filter, limit).await?.into_iter().map(CampaignEntry::new).collect())
        }
        None => None,
    };
    let total: i128 = totals.iter().map(RevenueSum::total).sum();
    let transactions = totals.iter().map(|total| total.transactions).sum();
    Ok(RevenueReport {
        range: range_of(filter),
        total_revenue: money(total),
        transactions,
        average_order_value: mean_money(total, transactions),
        revenue: totals.iter().map(|total| RevenueEntry::new(total, None)).collect(),
        series: interval
            .map(|interval| sums.iter().map(|sum| RevenueEntry::new(sum, Some(interval))).collect()),
        campaigns,
    })
}

async fn demographics(store: &Store, filter: &Filter, limit: u64) -> Result<DemographicsReport, ReportError> {
    let asked = |source| filter.source.is_none_or(|only| only == source);
    let of = |source| Filter { source: Some(source), ..filter.clone() };
    let mut report =
        DemographicsReport { range: range_of(filter), users_estimated: false, facebook: None, tiktok: None };
    if asked(Source::Facebook) {
        report.facebook = Some(facebook(store, &of(Source::Facebook), limit).await?);
    }
    if asked(Source::Tiktok) {
        report.tiktok = Some(tiktok(store, &of(Source::Tiktok), limit).await?);
    }
    Ok(report)
}

async fn facebook(store: &Store, filter: &Filter, limit: u64) -> Result<FacebookAudience, StoreError> {
    let (sums, ages, genders_, countries_, mut cities_) = try_join!(
        store.audience(filter),
        store.count_users(filter, Group::AgeRange, limit.max(16)),
        store.count_users(filter, Group::Gender, limit.max(16)),
        store.count_users(filter, Group::Country, limit),
        store.count_users(filter, Group::City, limit + 1),
    )?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let cities_truncated = cities_.len() > limit;
    cities_.truncate(limit);
    Ok(FacebookAudience {
        events: sums.events,
        users: sums.users,
        age_groups: age_groups(&ages),
        genders: genders(&genders_),
        countries: countries(countries_),
        cities: cities(cities_),
        cities_truncated,
    })
}

async fn tiktok(store: &Store, filter: &Filter, limit: u64) -> Result<TiktokAudience, StoreError> {
    let (sums, ranges, countries_, devices_) = try_join!(
        store.audience(filter),
        store.count_users(filter, Group::FollowerRange, limit.max(16)),
        store.count_users(filter, Group::Country, limit),
        store.count_users(filter, Group::Device, limit.max(16)),
    )?;
    Ok(TiktokAudience {
        events: sums.events,
        users: sums.users,
        followers: followers(&sums, &ranges),
        countries: countries(countries_),
        devices: devices(&devices_),
        average_watch_time: average_watch_time(&sums),
        average_percentage_watched: average_percentage(&sums),
    })
}
