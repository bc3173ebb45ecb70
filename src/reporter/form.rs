//! Formats of a report: JSON, and CSV with the same content.
//!
//! The CSV is one table. Column `section` names the JSON member that a line belongs to; the other columns have the
//! names of the members' fields, and are empty where a section has no such field. Text that a spreadsheet would take
//! for a formula is prefixed with an apostrophe.

use std::cmp::Reverse;

use actix_web::HttpRequest;
use actix_web::http::header::{Accept, Header, Quality};
use serde::Serialize;

use super::answer::{EventsReport, RevenueReport};
use super::error::ReportError;
use super::query::Range;

/// Format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Csv,
}

impl Form {
    /// Negotiates the format by the `Accept` header (RFC 9110, section 12.5.1): by quality, then by the more specific
    /// range, then by the earlier one. JSON if neither is acceptable or the header is invalid.
    pub fn asked(request: &HttpRequest) -> Self {
        let Ok(Accept(ranges)) = Accept::parse(request) else { return Self::Json };
        // The quality of a format is that of the most specific range that matches it.
        let rank = |exact: &str, of_type: &str| {
            let met = ranges.iter().enumerate().filter_map(|(place, range)| {
                let exactness =
                    ["*/*", of_type, exact].iter().position(|known| *known == range.item.essence_str())?;
                Some((exactness, range.quality, Reverse(place)))
            });
            met.max_by_key(|(exactness, _, place)| (*exactness, *place))
                .filter(|(_, quality, _)| *quality > Quality::ZERO)
                .map(|(exactness, quality, place)| (quality, exactness, place))
        };
        if rank("text/csv", "text/*") > rank("application/json", "application/*") {
            Self::Csv
        } else {
            Self::Json
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// Writes a report.
    pub fn write<T: Serialize + Table>(self, report: &T) -> Result<Vec<u8>, ReportError> {
        match self {
            Self::Json => Ok(serde_json::to_vec(report)?),
            Self::Csv => {
                let mut lines =
                    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
                lines.write_record(T::COLUMNS)?;
                for line in report.lines() {
                    let cells: Vec<_> = line.iter().map(|cell| harmless(cell)).collect();
                    lines.write_record(cells.iter().map(|cell| cell.as_bytes()))?;
                }
                Ok(lines.into_inner().map_err(|error| csv::Error::from(error.into_error()))?)
            }
        }
    }
}

/// First characters that make a spreadsheet take a cell for a formula, with their full-width and small forms, and the
/// apostrophe itself, so that a prefixed text differs from every other.
const DEFUSED: [char; 17] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\u{fe66}',
    '\u{fe62}', '\u{fe63}', '\u{fe6b}', '\u{2212}', '\'',
];

/// Prefixes a text with an apostrophe if a spreadsheet could take it for a formula. The original is recovered by
/// removing one leading apostrophe, so that different texts stay different.
fn harmless(cell: &str) -> std::borrow::Cow<'_, str> {
    if cell.starts_with(DEFUSED) { format!("'{cell}").into() } else { cell.into() }
}

/// Report as a table; each line has one cell per column.
pub(super) trait Table {
    const COLUMNS: &'static [&'static str];
    fn lines(&self) -> Vec<Vec<String>>;
}

/// Line of the section `range`, padded to a number of columns.
pub(super) fn range_line(range: &Range, columns: usize) -> Vec<String> {
    let mut line = vec!["range".to_owned()];
    line.extend([range.from.clone().unwrap_or_default(), range.to.clone().unwrap_or_default()]);
    line.resize(columns, String::new());
    line
}

impl Table for EventsReport {
    const COLUMNS: &'static [&'static str] =
        &["section", "from", "to", "at", "source", "funnelStage", "eventType", "count"];

    fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = vec![range_line(&self.range, Self::COLUMNS.len())];
        let mut line = |section: &str, at: &str, words: [&str; 3], count: i64| {
            let [source, stage, kind] = words;
            let cells = [section, "", "", at, source, stage, kind];
            let cells = cells.into_iter().map(str::to_owned).chain([count.to_string()]);
            lines.push(cells.collect());
        };
        line("totalEvents", "", ["", "", ""], self.total_events);
        for entry in &self.events {
            line("events", "", [entry.source, entry.funnel_stage, entry.event_type], entry.count);
        }
        for entry in self.series.iter().flatten() {
            let at = entry.at.as_deref().unwrap_or_default();
            line("series", at, [entry.source, entry.funnel_stage, entry.event_type], entry.count);
        }
        lines
    }
}

impl Table for RevenueReport {
    const COLUMNS: &'static [&'static str] = &[
        "section",
        "from",
        "to",
        "at",
        "source",
        "eventType",
        "campaignId",
        "currency",
        "totalRevenue",
        "transactions",
        "averageOrderValue",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = vec![range_line(&self.range, Self::COLUMNS.len())];
        // Every amount names its currency: spreadsheets add up columns.
        let mut line = |currency: &str, cells: [&str; 6], transactions: String| {
            let [section, at, source, kind, total, average] = cells;
            let (kind, campaign) = if section == "campaigns" { ("", kind) } else { (kind, "") };
            let cells =
                [section, "", "", at, source, kind, campaign, currency, total, &transactions, average];
            lines.push(cells.map(str::to_owned).to_vec());
        };
        let total = ["total", "", "", "", &self.total_revenue, &self.average_order_value];
        line(&self.currency, total, self.transactions.to_string());
        for entry in &self.other_currencies {
            let cells = ["otherCurrencies", "", "", "", &entry.total_revenue, ""];
            line(&entry.currency, cells, entry.transactions.to_string());
        }
        for entry in &self.revenue {
            let average = entry.average_order_value.as_deref().unwrap_or_default();
            let cells = ["revenue", "", entry.source, entry.event_type, &entry.total_revenue, average];
            line(&self.currency, cells, entry.transactions.to_string());
        }
        for entry in self.series.iter().flatten() {
            let at = entry.at.as_deref().unwrap_or_default();
            let cells = ["series", at, entry.source, entry.event_type, &entry.total_revenue, ""];
            line(&self.currency, cells, entry.transactions.to_string());
        }
        for entry in self.campaigns.iter().flatten() {
            let cells = ["campaigns", "", entry.source, &entry.campaign_id, &entry.total_revenue, ""];
            line(&self.currency, cells, entry.transactions.to_string());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_prefixed_and_different_texts_stay_different() {
        for cell in
            ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "＋1", "－1", "＠x", "﹦1", "−1"]
        {
            assert_eq!(harmless(cell), format!("'{cell}"));
        }
        // Texts that already begin with apostrophes stay different too.
        let names = ["=x", "'=x", "''=x", "'", "''", "x", "'x"];
        let cells: std::collections::BTreeSet<_> = names.iter().map(|name| harmless(name)).collect();
        assert_eq!(cells.len(), names.len(), "{cells:?}");
        assert_eq!(harmless("camp-1"), "camp-1");
    }

    #[test]
    fn the_format_follows_the_accept_header() {
        for (accept, form) in [
            ("text/csv", Form::Csv),
            ("text/csv, application/json;q=0.9", Form::Csv),
            ("application/json, text/csv;q=0.5", Form::Json),
            ("*/*", Form::Json),
            ("image/png", Form::Json),
            ("", Form::Json),
            ("text/*", Form::Csv),
            ("text/csv;q=0.5, */*;q=0.1", Form::Csv),
            ("application/json;q=0, */*", Form::Csv),
            ("text/csv;q=0, text/*", Form::Json),
            ("text/csv, */*", Form::Csv),
            ("application/json, text/csv", Form::Json),
            ("text/csv, application/json", Form::Csv),
            ("text/html, application/json;q=0.9, */*;q=0.8", Form::Json),
        ] {
            let request =
                actix_web::test::TestRequest::default().insert_header(("accept", accept)).to_http_request();
            assert_eq!(Form::asked(&request), form, "{accept}");
        }
    }
}
