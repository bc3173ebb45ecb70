//! JSON, CSV and entity tags of reports.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;

use crate::summaries::send;
use crate::support::events::simple;
use crate::support::http;
use crate::support::system::System;

#[test]
pub fn a_report_in_csv_has_the_content_of_the_report_in_json() {
    let system = System::embedded(&[]);
    let mut formula = simple("formula", "facebook");
    formula["data"]["user"]["location"]["city"] = json!("=HYPERLINK(\"http://x\")");
    assert_eq!(system.post(&formula.to_string()).status, 202);
    send(&system, 5, 300);
    system.settle();
    for path in [
        "/reports/events?interval=day",
        "/reports/revenue?interval=day&groupBy=campaign",
        "/reports/demographics?limit=1000",
    ] {
        let json = system.report(path);
        let answer = http::get_with(&system.reporter_url(path), &[("Accept", "text/csv")]).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv; charset=utf-8")));
        let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
        let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let lines: Vec<BTreeMap<String, String>> = reader
            .records()
            .map(|line| columns.iter().cloned().zip(line.unwrap().iter().map(str::to_owned)).collect())
            .collect();
        let of = |section: &str| lines.iter().filter(|line| line["section"] == section).collect::<Vec<_>>();
        for section in ["events", "series", "revenue", "campaigns"] {
            let Some(entries) = json[section].as_array() else { continue };
            let found = of(section);
            assert_eq!(found.len(), entries.len(), "{path} {section}");
            for (line, entry) in found.iter().zip(entries) {
                for (name, value) in entry.as_object().unwrap() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    assert_eq!(line[name], value, "{path} {section} {name}");
                }
            }
        }
        if let Some(cities) = json["facebook"]["cities"].as_array() {
            assert_eq!(of("cities").len(), cities.len());
            assert!(of("cities").iter().any(|line| line["group"] == "'=HYPERLINK(\"http://x\")"));
            let users: HashSet<&str> = of("total").iter().map(|line| line["users"].as_str()).collect();
            assert!(users.contains(json["tiktok"]["users"].to_string().as_str()));
        }
    }
}

#[test]
fn an_unchanged_report_is_answered_with_304() {
    let system = System::embedded(&[]);
    send(&system, 1, 50);
    system.settle();
    let url = system.reporter_url("/reports/revenue");
    let first = http::get(&url).unwrap();
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    let again = http::get_with(&url, &[("If-None-Match", &tag)]).unwrap();
    assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", Some(tag.as_str())));
    let csv = http::get_with(&url, &[("If-None-Match", &tag), ("Accept", "text/csv")]).unwrap();
    assert_eq!(csv.status, 200, "another form is another answer");
    send(&system, 2, 50);
    system.settle();
    let other = http::get_with(&url, &[("If-None-Match", &tag)]).unwrap();
    assert_eq!(other.status, 200);
    assert_ne!(other.header("etag"), Some(tag.as_str()));
}
