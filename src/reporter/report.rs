//! The actors that answer questions.

use std::time::{Duration, SystemTime};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::sync::oneshot;

use super::answer::{
    CampaignEntry, EventsEntry, EventsReport, RevenueEntry, RevenueReport, mean_money, money,
};
use super::demographics::{DemographicsReport, SourceDemographics};
use super::error::ReportError;
use super::form::Form;
use super::query::{Interval, MAX_BUCKETS, range_of, too_many_buckets};
use crate::log::Origin;
use crate::ops::trace;
use crate::runtime::Held;
use crate::store::report::{EventCount, Filter, Report, Reports, RevenueSum};

/// How long a report may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A question.
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

/// Answer this, in this form, as long as somebody waits for it.
pub(super) struct Ask {
    pub question: Question,
    pub form: Form,
    /// Ends when the asker does.
    pub asker: oneshot::Receiver<()>,
    /// The request that asks.
    pub origin: Origin,
}

impl Message for Ask {
    type Result = Result<Vec<u8>, ReportError>;
}

/// The actor.
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
            // A report that is dropped tells the database to stop.
            let answer = tokio::select! {
                answer = tokio::time::timeout(DEADLINE, answer(&reports, question, form)) => {
                    answer.unwrap_or(Err(ReportError::TooLong))
                }
                _ = asker => Err(ReportError::ClientLeft),
            };
            trace::beneath(&origin, || trace::Said {
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

/// A series in an open range can still be too long. One campaign's is looked at once it is there.
async fn check_buckets(
    report: &Report<'_>,
    filter: &Filter,
    interval: Option<Interval>,
    revenue: bool,
) -> Result<(), ReportError> {
    let Some(interval) = interval else { return Ok(()) };
    let most = MAX_BUCKETS.unsigned_abs();
    if (filter.from.is_none() || filter.to.is_none())
        && filter.campaign_id.is_none()
        && report.count_buckets(filter, interval.minutes(), revenue, most + 1).await? > most
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
    // One look at the store for both: the series' sums are the totals.
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
    // They are in the order of their buckets.
    if sums.chunk_by(|one, other| one.bucket == other.bucket).count()
        > usize::try_from(MAX_BUCKETS).unwrap_or(0)
    {
        return Err(ReportError::Parameter(too_many_buckets()));
    }
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
        total_revenue: money(total),
        transactions,
        average_order_value: mean_money(total, transactions),
        revenue: totals.iter().map(|total| RevenueEntry::new(total, None)).collect(),
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
        answer.users_estimated |= audience.estimated;
        answer.sources.push((source, SourceDemographics::new(source, audience)));
    }
    Ok(answer)
}
