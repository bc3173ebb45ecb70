//! Actors that compute reports.

use std::time::{Duration, SystemTime};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::sync::oneshot;

use super::answer::{
    CampaignEntry, CurrencyEntry, EventsEntry, EventsReport, RevenueEntry, RevenueReport, mean_money, money,
};
use super::demographics::{DemographicsReport, SourceDemographics};
use super::error::ReportError;
use super::form::Form;
use super::query::{Interval, MAX_BUCKETS, range_of, too_many_buckets};
use crate::event::has_name;
use crate::log::Origin;
use crate::ops::trace;
use crate::runtime::Held;
use crate::store::report::{EventCount, Filter, Report, Reports, RevenueSum};

/// Maximum duration of a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// Report that a client asks for.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Events { filter: Filter, interval: Option<Interval> },
    Revenue { filter: Filter, interval: Option<Interval>, campaigns: Option<usize> },
    Demographics { filter: Filter, limit: usize },
}

impl Question {
    const fn name(&self) -> &'static str {
        match self {
            Self::Events { .. } => "events",
            Self::Revenue { .. } => "revenue",
            Self::Demographics { .. } => "demographics",
        }
    }
}

/// Request for a report. The report is cancelled when the client no longer waits.
pub(super) struct Ask {
    pub question: Question,
    pub form: Form,
    /// Resolves when the handler of the request is dropped.
    pub asker: oneshot::Receiver<()>,
    /// The HTTP request, for its trace.
    pub origin: Origin,
}

impl Message for Ask {
    type Result = Result<Vec<u8>, ReportError>;
}

/// Computes the reports of its mailbox concurrently, each in a transaction of its own.
pub(super) struct Reporter {
    reports: Reports,
}

impl Reporter {
    pub fn new(reports: Reports) -> Self {
        Self { reports }
    }
}

impl Actor for Reporter {
    type Context = Context<Self>;
}

impl Handler<Held<Ask>> for Reporter {
    type Result = ResponseFuture<Result<Vec<u8>, ReportError>>;

    fn handle(&mut self, held: Held<Ask>, _: &mut Self::Context) -> Self::Result {
        let (Ask { question, form, asker, origin }, room) = held.open();
        let reports = self.reports.clone();
        Box::pin(async move {
            let _room = room;
            let (name, began) = (question.name(), SystemTime::now());
            // Dropping the report's future cancels its statement in the database.
            let answer = tokio::select! {
                answer = tokio::time::timeout(REPORT_TIMEOUT, answer(&reports, question, form)) => {
                    answer.unwrap_or(Err(ReportError::TooLong))
                }
                _ = asker => Err(ReportError::ClientLeft),
            };
            trace::export_child(&origin, || trace::SpanRecord {
                name: format!("query {name}"),
                kind: SpanKind::Client,
                began,
                error: answer.as_ref().err().map(ToString::to_string),
                attributes: vec![KeyValue::new("db.system.name", reports.store().system())],
            });
            answer
        })
    }
}

async fn answer(reports: &Reports, question: Question, form: Form) -> Result<Vec<u8>, ReportError> {
    let report = reports.begin().await?;
    let answer = match question {
        Question::Events { filter, interval } => form.write(&events(&report, &filter, interval).await?),
        Question::Revenue { filter, interval, campaigns } => {
            form.write(&revenue(&report, &filter, interval, campaigns).await?)
        }
        Question::Demographics { filter, limit } => form.write(&demographics(&report, &filter, limit).await?),
    };
    report.end().await?;
    answer
}

/// Reads the dictionary if a number of the report has no name yet: a collector may have given it since the last look.
async fn learn_names(report: &Report<'_>, numbers: impl IntoIterator<Item = i16>) {
    if numbers.into_iter().any(|number| !has_name(number))
        && let Err(error) = report.store().read_dictionary().await
    {
        tracing::debug!(%error, "the dictionary was not read now");
    }
}

/// Refuses a series of too many buckets over an open range, which is only known from the data. Revenue of one campaign
/// is checked by its result instead.
async fn check_buckets(
    report: &Report<'_>,
    filter: &Filter,
    interval: Option<Interval>,
    revenue: bool,
) -> Result<(), ReportError> {
    let Some(interval) = interval else { return Ok(()) };
    let limit = MAX_BUCKETS.unsigned_abs();
    if (filter.from.is_none() || filter.to.is_none())
        && filter.campaign_id.is_none()
        && report.count_buckets(filter, interval.minutes(), revenue, limit + 1).await? > limit
    {
        return Err(ReportError::Parameter(too_many_buckets()));
    }
    Ok(())
}

async fn events(
    report: &Report<'_>,
    filter: &Filter,
    interval: Option<Interval>,
) -> Result<EventsReport, ReportError> {
    check_buckets(report, filter, interval, false).await?;
    // One query for both: the totals are the sums of the series.
    let counts = report.count_events(filter, interval.map(Interval::minutes)).await?;
    let mut totals: Vec<EventCount> = Vec::new();
    for count in &counts {
        let same = totals.iter_mut().find(|total| total.event_type == count.event_type);
        match same {
            Some(total) => total.events += count.events,
            None => totals.push(count.clone()),
        }
    }
    totals.sort_by_key(|total| (total.source, total.funnel_stage, total.event_type));
    learn_names(report, totals.iter().flat_map(|total| [total.source, total.event_type])).await;
    Ok(EventsReport {
        range: range_of(filter),
        total_events: totals.iter().map(|total| total.events).sum(),
        events: totals.iter().map(|total| EventsEntry::new(total, None)).collect(),
        series: interval
            .map(|interval| counts.iter().map(|count| EventsEntry::new(count, Some(interval))).collect()),
    })
}

async fn revenue(
    report: &Report<'_>,
    filter: &Filter,
    interval: Option<Interval>,
    campaigns: Option<usize>,
) -> Result<RevenueReport, ReportError> {
    check_buckets(report, filter, interval, true).await?;
    let sums = report.sum_revenue(filter, interval.map(Interval::minutes)).await?;
    // The sums are sorted by bucket.
    if sums.chunk_by(|one, other| one.bucket == other.bucket).count()
        > usize::try_from(MAX_BUCKETS).unwrap_or(0)
    {
        return Err(ReportError::Parameter(too_many_buckets()));
    }
    let (sums, others): (Vec<_>, Vec<_>) =
        sums.into_iter().partition(|sum| sum.currency == filter.currency.number());
    let mut totals: Vec<RevenueSum> = Vec::new();
    for sum in &sums {
        let same = totals.iter_mut().find(|total| total.event_type == sum.event_type);
        match same {
            Some(total) => {
                total.transactions += sum.transactions;
                total.millions += sum.millions;
                total.units += sum.units;
                total.micros += sum.micros;
            }
            None => totals.push(sum.clone()),
        }
    }
    totals.sort_by_key(|total| (total.source, total.event_type));
    learn_names(report, totals.iter().flat_map(|total| [total.source, total.event_type])).await;
    let campaigns = match campaigns {
        Some(limit) => {
            Some(report.top_campaigns(filter, limit).await?.into_iter().map(CampaignEntry::new).collect())
        }
        None => None,
    };
    let total: i128 = totals.iter().map(RevenueSum::total).sum();
    let transactions = totals.iter().map(|total| total.transactions).sum();
    Ok(RevenueReport {
        range: range_of(filter),
        currency: filter.currency.to_string(),
        total_revenue: money(total),
        transactions,
        average_order_value: mean_money(total, transactions),
        revenue: totals.iter().map(|total| RevenueEntry::new(total, None)).collect(),
        other_currencies: CurrencyEntry::of(others.iter()),
        series: interval
            .map(|interval| sums.iter().map(|sum| RevenueEntry::new(sum, Some(interval))).collect()),
        campaigns,
    })
}

async fn demographics(
    report: &Report<'_>,
    filter: &Filter,
    limit: usize,
) -> Result<DemographicsReport, ReportError> {
    let mut answer =
        DemographicsReport { range: range_of(filter), users_estimated: false, sources: Vec::new() };
    for (source, audience) in report.audiences(filter, limit).await? {
        learn_names(report, audience.groups.iter().filter_map(|(group, _)| group.number())).await;
        answer.users_estimated |= audience.estimated;
        answer.sources.push((source, SourceDemographics::new(source, audience)));
    }
    Ok(answer)
}
