//! Mapping of an event to the canonical form.

use std::borrow::Cow;
use std::sync::Arc;

use super::decimal::Decimal;
use super::kinds::{StageRule, TypeRule, revenue_types};
use super::origin::{Errors, Origin, find, first, is_known, is_there, origins, path_of};
use super::pointer::Pointer;
use super::reader::{Faults, Fields, pointer, word};
use super::reason::MISSING;
use super::time::TimeForm;
use super::value::Value;
use super::yaml::{Kind, Node};
use crate::json::FieldError;
use crate::money::Currency;
use crate::source::canonical::{
    CanonicalColumns, CanonicalEvent, MAX_AGE, MAX_AMOUNT, MAX_EVENT_ID, MAX_FOLLOWERS, MAX_ID, MAX_TEXT,
};

/// The mapping of a source.
#[derive(Debug)]
pub(super) struct Map {
    id: Vec<Origin>,
    timestamp: Vec<TimeOrigin>,
    event_type: TypeRule,
    stage: StageRule,
    user: Vec<Origin>,
    columns: Vec<(Column, Vec<Origin>)>,
    amount: Option<AmountRule>,
    revenue: Vec<Arc<str>>,
}

#[derive(Debug)]
enum TimeOrigin {
    At(Pointer, TimeForm),
    /// The arrival of the request.
    Received,
}

#[derive(Debug)]
struct AmountRule {
    at: Vec<Origin>,
    is_minor: bool,
    currency: Vec<Origin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Campaign,
    Ad,
    Country,
    City,
    Device,
    Browser,
    Age,
    Gender,
    Followers,
    Name,
    Referrer,
    Video,
}

const COLUMNS: [(&str, Column); 12] = [
    ("campaign", Column::Campaign),
    ("ad", Column::Ad),
    ("country", Column::Country),
    ("city", Column::City),
    ("device", Column::Device),
    ("browser", Column::Browser),
    ("age", Column::Age),
    ("gender", Column::Gender),
    ("followers", Column::Followers),
    ("name", Column::Name),
    ("referrer", Column::Referrer),
    ("video", Column::Video),
];

impl Map {
    /// Reads `map` and `revenue`.
    pub fn read(node: &Node, revenue: Option<&Node>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut known = vec!["id", "timestamp", "type", "stage", "user", "amount"];
        known.extend(COLUMNS.iter().map(|(name, _)| *name));
        let fields = Fields::read(node, "map", &known, faults)?;
        let id = fields.required("id", faults).and_then(|node| origins(node, faults));
        let timestamp = fields.required("timestamp", faults).and_then(|node| time_origins(node, faults));
        let event_type = fields.required("type", faults).and_then(|node| TypeRule::read(node, faults));
        let types = event_type.as_ref().map(TypeRule::types);
        let stage =
            fields.required("stage", faults).and_then(|node| StageRule::read(node, types.as_deref(), faults));
        let user = fields.get("user").map_or(Some(Vec::new()), |node| origins(node, faults));
        let mut columns = Vec::new();
        for (name, column) in COLUMNS {
            if let Some(origins) = fields.get(name).and_then(|node| origins(node, faults)) {
                columns.push((column, origins));
            }
        }
        let amount = fields.get("amount").map_or(Some(None), |node| AmountRule::read(node, faults).map(Some));
        let revenue = revenue.map_or(Some(Vec::new()), |node| revenue_types(node, types.as_deref(), faults));
        Some(Self {
            id: id?,
            timestamp: timestamp?,
            event_type: event_type?,
            stage: stage?,
            user: user?,
            columns,
            amount: amount?,
            revenue: revenue?,
        })
    }

    /// Types that events of the source can have.
    pub fn types(&self) -> Vec<Arc<str>> {
        self.event_type.types()
    }

    /// Pointers to the id.
    pub fn id_pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.id.iter().filter_map(|origin| match origin {
            Origin::At(pointer) => Some(pointer),
            _ => None,
        })
    }

    /// Pointers to the user.
    pub fn user_pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.user.iter().flat_map(Origin::pointers)
    }

    /// Pointers to the user's name.
    pub fn name_pointers(&self) -> impl Iterator<Item = &Pointer> {
        let names = self.columns.iter().filter(|(column, _)| *column == Column::Name);
        names.flat_map(|(_, origins)| origins).flat_map(Origin::pointers)
    }

    /// The id of an event, if it can be read.
    pub fn id(&self, event: &Value) -> Option<String> {
        first(&self.id, event, is_there)?.text(MAX_EVENT_ID).ok().filter(|id| !id.contains('\0'))
    }

    /// The canonical form of an event, all but `raw`; or all errors.
    pub fn apply<'a>(
        &'a self,
        event: &Value,
        source: &'a str,
        received: i64,
    ) -> Result<CanonicalEvent<'a>, Vec<FieldError>> {
        let mut errors = Errors(Vec::new());
        let id = match first(&self.id, event, is_there) {
            Some(found) => errors.take(&self.id, found.text(MAX_EVENT_ID)),
            None => errors.missing(&self.id, "id"),
        };
        let timestamp = self.time(event, received, &mut errors);
        let event_type = self.event_type.of(event, &mut errors);
        let stage = event_type.and_then(|event_type| self.stage.of(event_type));
        let user = errors.optional(&self.user, event, MAX_ID);
        let mut columns = CanonicalColumns::default();
        for (column, origins) in &self.columns {
            column.fill(&mut columns, origins, event, &mut errors);
        }
        let money = self.amount.as_ref().and_then(|amount| amount.of(event, &mut errors));
        let (amount, currency) = money.map_or((None, None), |(amount, currency)| (Some(amount), currency));
        match (id, timestamp, event_type, stage, errors.0.is_empty()) {
            (Some(id), Some((timestamp, is_arrival)), Some(event_type), Some(stage), true) => {
                Ok(CanonicalEvent {
                    id: id.into(),
                    timestamp,
                    is_arrival,
                    source: source.into(),
                    is_revenue: amount.is_some() && self.revenue.contains(event_type),
                    event_type: Cow::Borrowed(&**event_type),
                    stage,
                    user: user.map(Cow::Owned),
                    columns,
                    amount,
                    currency: currency.map(Cow::Owned),
                    raw: Cow::Borrowed(""),
                })
            }
            _ => Err(errors.0),
        }
    }

    fn time(&self, event: &Value, received: i64, errors: &mut Errors) -> Option<(i64, bool)> {
        for origin in &self.timestamp {
            match origin {
                TimeOrigin::Received => return Some((received, true)),
                TimeOrigin::At(pointer, form) => {
                    let Some(value) = find(event, pointer).filter(is_there) else { continue };
                    match form.parse(&value) {
                        Ok(micros) => return Some((micros, false)),
                        Err(message) => errors.add(pointer.to_string(), message),
                    }
                    return None;
                }
            }
        }
        let pointers = self.timestamp.iter().filter_map(|origin| match origin {
            TimeOrigin::At(pointer, _) => Some(pointer),
            TimeOrigin::Received => None,
        });
        errors.add(path_of(pointers, "timestamp"), MISSING);
        None
    }
}

impl Column {
    fn fill(
        self,
        columns: &mut CanonicalColumns<'_>,
        origins: &[Origin],
        event: &Value,
        errors: &mut Errors,
    ) {
        match self {
            Self::Age => {
                let found = first(origins, event, is_there);
                let age = found.and_then(|found| errors.take(origins, found.integer(i64::from(MAX_AGE))));
                columns.age = age.and_then(|age| i16::try_from(age).ok());
            }
            Self::Followers => {
                let found = first(origins, event, is_there);
                columns.followers =
                    found.and_then(|found| errors.take(origins, found.integer(MAX_FOLLOWERS)));
            }
            Self::Campaign | Self::Ad => {
                let found = first(origins, event, is_known);
                let id = found.and_then(|found| errors.take(origins, found.text(MAX_ID))).map(Cow::Owned);
                *(if self == Self::Campaign { &mut columns.campaign } else { &mut columns.ad }) = id;
            }
            Self::Video => columns.video = errors.optional(origins, event, MAX_ID).map(Cow::Owned),
            Self::Country => columns.country = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
            Self::City => columns.city = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
            Self::Device => columns.device = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
            Self::Browser => columns.browser = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
            Self::Gender => columns.gender = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
            Self::Name => columns.name = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
            Self::Referrer => columns.referrer = errors.optional(origins, event, MAX_TEXT).map(Cow::Owned),
        }
    }
}

impl AmountRule {
    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        if matches!(node.kind, Kind::Scalar(_) | Kind::Sequence(_)) {
            return Some(Self { at: origins(node, faults)?, is_minor: false, currency: Vec::new() });
        }
        let fields = Fields::read(node, "amount", &["at", "unit", "currency"], faults)?;
        let at = fields.required("at", faults).and_then(|node| origins(node, faults));
        let units = [("major", false), ("minor", true)];
        let is_minor = fields.get("unit").map_or(Some(false), |node| word(node, &units, faults));
        let currency = match fields.get("currency") {
            None => Some(Vec::new()),
            Some(node) => origins(node, faults),
        };
        if is_minor == Some(true) && fields.get("currency").is_none() {
            faults.add(node.place, "a minor unit needs `currency`, which says how many decimals it has");
        }
        Some(Self { at: at?, is_minor: is_minor?, currency: currency? })
    }

    /// Amount in millionths and its currency, if an amount is told.
    fn of(&self, event: &Value, errors: &mut Errors) -> Option<(i64, Option<String>)> {
        let found = first(&self.at, event, is_there)?;
        let currency = match first(&self.currency, event, is_there) {
            None => None,
            Some(found) => {
                let code = found.text(MAX_TEXT).map(|code| code.to_ascii_uppercase());
                let checked = code.and_then(|code| match Currency::parse(&code) {
                    Some(currency) => Ok((code, i32::from(currency.decimals()))),
                    None => Err(found.wrong("must be a currency's code of ISO 4217, such as EUR")),
                });
                Some(errors.take(&self.currency, checked)?)
            }
        };
        let shift = match (&currency, self.is_minor) {
            (_, false) => 6,
            (Some((_, decimals)), true) => 6 - decimals,
            (None, true) => return errors.missing(&self.currency, "currency"),
        };
        let Some(decimal) = Decimal::read(&found.value) else {
            return errors.take(&self.at, Err(found.wrong("must be a decimal number, such as \"261.96\"")));
        };
        let amount = match decimal.shifted(shift) {
            Some((0, true)) => Ok(0),
            _ if decimal.is_negative => Err(found.wrong("must not be negative")),
            Some((amount, true)) if amount <= MAX_AMOUNT => Ok(amount),
            Some((amount, false)) if amount <= MAX_AMOUNT => Err(found.wrong("must have at most 6 decimals")),
            _ => Err(found.wrong("must be less than 1,000,000,000,000")),
        };
        Some((errors.take(&self.at, amount)?, currency.map(|(code, _)| code)))
    }
}

fn time_origins(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<TimeOrigin>> {
    let one = |node: &Node, faults: &mut Faults<'_>| {
        if !matches!(node.kind, Kind::Mapping(_)) {
            return pointer(node, faults).map(|pointer| TimeOrigin::At(pointer, TimeForm::Rfc3339));
        }
        let fields = Fields::read(node, "timestamp", &["at", "as", "zone", "value"], faults)?;
        if let Some(node) = fields.get("value") {
            return word(node, &[("received", ())], faults).map(|()| TimeOrigin::Received);
        }
        let at = fields.required("at", faults).and_then(|node| pointer(node, faults));
        let form = TimeForm::read(fields.get("as"), fields.get("zone"), faults);
        Some(TimeOrigin::At(at?, form?))
    };
    match &node.kind {
        Kind::Sequence(items) if !items.is_empty() => {
            let read: Vec<_> = items.iter().map(|item| one(item, faults)).collect();
            read.into_iter().collect()
        }
        _ => Some(vec![one(node, faults)?]),
    }
}
