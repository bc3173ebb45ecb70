//! Events and refusals as text for people.

use super::event::Outcome;
use super::value::Value;
use crate::json::scalar::format_micros;
use crate::source::CanonicalEvent;

/// A member of an event, as examples and commands show it: texts, null where it is not told.
pub(super) fn member(event: &CanonicalEvent<'_>, name: &str) -> Option<Value> {
    event.members().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

impl CanonicalEvent<'_> {
    /// All members with their names, for people: times as RFC 3339, amounts as decimals.
    pub(super) fn members(&self) -> Vec<(&'static str, Value)> {
        let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.into()));
        let columns = &self.columns;
        vec![
            ("id", text(Some(&self.id))),
            ("timestamp", text(Some(&format_micros(self.timestamp)))),
            ("received", Value::Bool(self.is_arrival)),
            ("type", text(Some(&self.event_type))),
            ("stage", text(Some(self.stage.name()))),
            ("user", text(self.user.as_deref())),
            ("name", text(columns.name.as_deref())),
            ("campaign", text(columns.campaign.as_deref())),
            ("ad", text(columns.ad.as_deref())),
            ("country", text(columns.country.as_deref())),
            ("city", text(columns.city.as_deref())),
            ("device", text(columns.device.as_deref())),
            ("browser", text(columns.browser.as_deref())),
            ("age", text(columns.age.map(|age| age.to_string()).as_deref())),
            ("gender", text(columns.gender.as_deref())),
            ("followers", text(columns.followers.map(|followers| followers.to_string()).as_deref())),
            ("referrer", text(columns.referrer.as_deref())),
            ("video", text(columns.video.as_deref())),
            ("amount", text(self.amount.map(decimal).as_deref())),
            ("currency", text(self.currency.as_deref())),
            ("revenue", Value::Bool(self.is_revenue)),
            ("raw", super::json::parse(self.raw.as_bytes()).unwrap_or_default()),
        ]
    }
}

impl Outcome<'_> {
    /// The outcome as JSON for people: on one line, or a member a line without those that are null.
    pub fn to_json(&self, is_one_line: bool) -> String {
        let event = match self {
            Self::Event(event) => event,
            Self::Refused(refused) => {
                let errors = refused.errors.iter().map(|error| {
                    let member = |key: &str, text: &str| (key.into(), Value::Text(text.into()));
                    Value::object([member("path", &error.path), member("message", &error.message)].into())
                });
                let raw = super::json::parse(refused.raw.as_bytes()).unwrap_or_default();
                let members = [("refused".into(), errors.collect()), ("raw".into(), raw)];
                return Value::object(members.into()).to_json();
            }
        };
        let members = event.members().into_iter().filter(|(_, value)| *value != Value::Null);
        if is_one_line {
            let members = members.map(|(key, value)| (key.into(), value));
            return Value::object(members.collect()).to_json();
        }
        members.map(|(key, value)| format!("  {key}: {value}")).collect::<Vec<_>>().join("\n")
    }
}

/// Millionths as a decimal with at least two decimals.
pub(super) fn decimal(micros: i64) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros.rem_euclid(1_000_000));
    let digits = format!("{fraction:06}");
    let kept = digits.trim_end_matches('0').len().max(2);
    format!("{whole}.{}", &digits[..kept])
}
