//! Mapping of an event to the canonical form.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::decimal::Decimal;
use super::json;
use super::pointer::Pointer;
use super::reader::{Faults, Fields, list, pointer, text, word};
use super::time::TimeForm;
use super::value::Value;
use super::yaml::{Kind, Node};
use crate::json::FieldError;
use crate::money::Currency;
use crate::source::FunnelStage;
use crate::source::canonical::{
    CanonicalColumns, CanonicalEvent, MAX_AGE, MAX_AMOUNT, MAX_EVENT_ID, MAX_FOLLOWERS, MAX_ID, MAX_TEXT,
    is_type_name,
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

/// Origin of a value. Of several the first one that is there counts.
#[derive(Debug)]
enum Origin {
    At(Pointer),
    Constant(Constant),
    /// SHA-256 of several values.
    Hash(Vec<Pointer>),
}

/// A constant of the file: a text, or the digits of a number.
#[derive(Debug)]
struct Constant(String);

#[derive(Debug)]
enum TimeOrigin {
    At(Pointer, TimeForm),
    /// The arrival of the request.
    Received,
}

#[derive(Debug)]
enum TypeRule {
    Constant(Arc<str>),
    /// A closed set of words; others are of the type `otherwise`, or refused.
    Words {
        at: Vec<Origin>,
        words: HashMap<String, Arc<str>>,
        otherwise: Option<Arc<str>>,
    },
}

#[derive(Debug)]
struct StageRule {
    by_type: HashMap<Arc<str>, FunnelStage>,
    otherwise: Option<FunnelStage>,
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

const STAGES: [(&str, FunnelStage); 2] = [("top", FunnelStage::TOP), ("bottom", FunnelStage::BOTTOM)];

/// The reason of an error at a value that is not there.
pub(super) const MISSING: &str = "is missing";

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

/// Errors of an event.
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, path: String, message: impl Into<String>) {
        self.0.push(FieldError { path, message: message.into() });
    }

    fn missing<T>(&mut self, origins: &[Origin], name: &str) -> Option<T> {
        self.add(path_of(origins.iter().flat_map(Origin::pointers), name), MISSING);
        None
    }

    fn take<T>(&mut self, origins: &[Origin], result: Result<T, (Option<String>, String)>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err((path, message)) => {
                let path = path.unwrap_or_else(|| path_of(origins.iter().flat_map(Origin::pointers), ""));
                self.add(path, message);
                None
            }
        }
    }

    /// A text of at most so many characters, if it is there.
    fn optional(&mut self, origins: &[Origin], event: &Value, most: usize) -> Option<String> {
        let found = first(origins, event, is_there)?;
        self.take(origins, found.text(most))
    }
}

/// Path of errors of a value: of several pointers the first one that a platform sends; the names of a filter's own
/// members begin with an underscore.
fn path_of<'p>(pointers: impl Iterator<Item = &'p Pointer>, name: &str) -> String {
    let paths: Vec<String> = pointers.map(Pointer::to_string).collect();
    let sent = paths.iter().find(|path| !path.starts_with('_'));
    sent.or(paths.first()).cloned().unwrap_or_else(|| name.to_owned())
}

/// A value that was found, with its pointer.
struct Found<'o> {
    value: Value,
    at: Option<&'o Pointer>,
}

impl Found<'_> {
    fn wrong(&self, message: impl Into<String>) -> (Option<String>, String) {
        (self.at.map(Pointer::to_string), message.into())
    }

    /// A text, or a number's digits.
    fn text(&self, most: usize) -> Result<String, (Option<String>, String)> {
        let text = match &self.value {
            Value::Text(text) => text.to_string(),
            Value::Int(_) | Value::Float(_) | Value::Number(_) => self.value.to_json(),
            _ => return Err(self.wrong("must be a string or a number")),
        };
        // Bytes are no fewer than characters.
        if text.len() > most && text.chars().count() > most {
            return Err(self.wrong(format!("must have at most {most} characters")));
        }
        Ok(text)
    }

    /// A whole number in a range.
    fn integer(&self, most: i64) -> Result<i64, (Option<String>, String)> {
        let decimal = Decimal::read(&self.value).filter(|decimal| !decimal.is_negative);
        match decimal.and_then(|decimal| decimal.shifted(0)) {
            Some((number, true)) if number <= most => Ok(number),
            _ => Err(self.wrong(format!("must be a whole number from 0 to {most}"))),
        }
    }
}

impl Origin {
    fn pointers(&self) -> &[Pointer] {
        match self {
            Self::At(pointer) => std::slice::from_ref(pointer),
            Self::Hash(pointers) => pointers.as_slice(),
            Self::Constant(_) => &[],
        }
    }
}

/// The first value that is there.
fn first<'o>(origins: &'o [Origin], event: &Value, counts: impl Fn(&Value) -> bool) -> Option<Found<'o>> {
    origins.iter().find_map(|origin| match origin {
        Origin::At(pointer) => {
            find(event, pointer).filter(&counts).map(|value| Found { value, at: Some(pointer) })
        }
        Origin::Constant(Constant(text)) if text.is_empty() => None,
        Origin::Constant(Constant(text)) => {
            Some(Found { value: Value::Text(text.as_str().into()), at: None })
        }
        Origin::Hash(pointers) => {
            hash(event, pointers).map(|hash| Found { value: Value::Text(hash.into()), at: None })
        }
    })
}

/// The value at a pointer, also within JSON in a string.
fn find(event: &Value, pointer: &Pointer) -> Option<Value> {
    pointer.find_through(event, |text| json::parse(text.as_bytes()).ok())
}

/// Absent, null and "" all mean that nothing is told.
fn is_there(value: &Value) -> bool {
    !matches!(value, Value::Null) && value.as_str() != Some("")
}

/// For campaigns and ads 0 and "0" mean the same.
fn is_known(value: &Value) -> bool {
    is_there(value) && !matches!(value, Value::Int(0)) && value.as_str() != Some("0")
}

/// SHA-256 in hex of values, each behind its length in bytes, so that "ab", "c" is another than "a", "bc"; a number is
/// the string of its digits. `None` if none of them is there.
fn hash(event: &Value, pointers: &[Pointer]) -> Option<String> {
    let mut hash = Sha256::new();
    let mut is_any = false;
    for pointer in pointers {
        let text = match find(event, pointer).filter(is_there) {
            None => String::new(),
            Some(Value::Text(text)) => text.to_string(),
            Some(other) => other.to_json(),
        };
        is_any |= !text.is_empty();
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    is_any.then(|| hex::encode(hash.finalize()))
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

impl TypeRule {
    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Mapping(_)) {
            faults.expected(node, "{value: NAME}, or {at: POINTER, words: {…}, else: other | refuse},");
            return None;
        }
        let fields = Fields::read(node, "type", &["value", "at", "words", "else"], faults)?;
        match (fields.get("value"), fields.get("at")) {
            (Some(node), None) => {
                let name = type_name(node, faults)?;
                for (key, _) in fields.entries().filter(|(key, _)| key.text != "value") {
                    faults.add(key.place, format!("`{}` has no use beside `value`", key.text));
                }
                Some(Self::Constant(name))
            }
            (None, Some(at)) => {
                let at = origins(at, faults);
                let words = fields.required("words", faults).and_then(|node| words(node, faults));
                let otherwise = match fields.get("else") {
                    None => None,
                    Some(node) => match text(node, faults)? {
                        "other" => Some("other".into()),
                        "refuse" => None,
                        found => {
                            faults.add(
                                node.place,
                                format!("unknown word `{found}`: expected one of other, refuse"),
                            );
                            None
                        }
                    },
                };
                Some(Self::Words { at: at?, words: words?, otherwise })
            }
            _ => {
                faults.add(node.place, "type has exactly one of value, at");
                None
            }
        }
    }

    fn types(&self) -> Vec<Arc<str>> {
        let mut types: Vec<Arc<str>> = match self {
            Self::Constant(name) => vec![name.clone()],
            Self::Words { words, otherwise, .. } => words.values().chain(otherwise).cloned().collect(),
        };
        types.sort_unstable();
        types.dedup();
        types
    }

    fn of(&self, event: &Value, errors: &mut Errors) -> Option<&Arc<str>> {
        let (at, words, otherwise) = match self {
            Self::Constant(name) => return Some(name),
            Self::Words { at, words, otherwise } => (at, words, otherwise),
        };
        let Some(found) = first(at, event, is_there) else {
            return otherwise.as_ref().or_else(|| errors.missing(at, "type"));
        };
        let known = match &found.value {
            Value::Text(text) => words.get(&**text),
            Value::Array(_) | Value::Object(_) => None,
            other => words.get(&other.to_json()),
        };
        known
            .or(otherwise.as_ref())
            .or_else(|| errors.take(at, Err(found.wrong("is a word that the source does not know"))))
    }
}

impl StageRule {
    fn read(node: &Node, types: Option<&[Arc<str>]>, faults: &mut Faults<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Mapping(_)) {
            faults.expected(node, "{value: top | bottom}, or {by_type: {…}, else: top | bottom},");
            return None;
        }
        let fields = Fields::read(node, "stage", &["value", "by_type", "else"], faults)?;
        if let Some(node) = fields.get("value") {
            for (key, _) in fields.entries().filter(|(key, _)| key.text != "value") {
                faults.add(key.place, format!("`{}` has no use beside `value`", key.text));
            }
            return Some(Self { by_type: HashMap::new(), otherwise: Some(word(node, &STAGES, faults)?) });
        }
        let otherwise = match fields.get("else") {
            None => None,
            Some(node) => Some(word(node, &STAGES, faults)?),
        };
        let by_type_node = fields.required("by_type", faults)?;
        let mut by_type: HashMap<Arc<str>, FunnelStage> = HashMap::new();
        for (key, node) in Fields::read_open(by_type_node, "by_type", faults)?.entries() {
            if let Some(types) = types {
                is_type(&key.text, key.place, types, faults);
            }
            if let Some(stage) = word(node, &STAGES, faults) {
                by_type.insert(key.text.as_str().into(), stage);
            }
        }
        if otherwise.is_none() {
            for name in types.unwrap_or_default().iter().filter(|name| !by_type.contains_key(*name)) {
                faults.add(
                    by_type_node.place,
                    format!("the type `{name}` has no stage: name it here, or add `else`"),
                );
            }
        }
        Some(Self { by_type, otherwise })
    }

    fn of(&self, event_type: &Arc<str>) -> Option<FunnelStage> {
        self.by_type.get(event_type).copied().or(self.otherwise)
    }
}

/// Origins of a value: a pointer, a constant, a hash, or a list of these.
fn origins(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<Origin>> {
    match &node.kind {
        Kind::Sequence(items) if items.is_empty() => {
            faults.expected(node, "a pointer or a list with at least one");
            None
        }
        Kind::Sequence(items) => {
            let read: Vec<_> = items.iter().map(|item| origin(item, faults)).collect();
            read.into_iter().collect()
        }
        _ => Some(vec![origin(node, faults)?]),
    }
}

fn origin(node: &Node, faults: &mut Faults<'_>) -> Option<Origin> {
    if !matches!(node.kind, Kind::Mapping(_)) {
        return pointer(node, faults).map(Origin::At);
    }
    let fields = Fields::read(node, "a value", &["at", "value", "hash"], faults)?;
    match (fields.get("at"), fields.get("value"), fields.get("hash")) {
        (Some(node), None, None) => pointer(node, faults).map(Origin::At),
        (None, Some(node), None) => {
            text(node, faults).map(|text| Origin::Constant(Constant(text.to_owned())))
        }
        (None, None, Some(node)) => {
            let items = list(node, faults)?;
            if items.is_empty() {
                faults.expected(node, "a list with at least one pointer");
            }
            let read: Vec<_> = items.iter().map(|item| pointer(item, faults)).collect();
            read.into_iter().collect::<Option<_>>().map(Origin::Hash)
        }
        _ => {
            faults.add(node.place, "a value has exactly one of at, value, hash");
            None
        }
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

/// Words of a closed set: a mapping to types, or a list of words that stand for themselves.
fn words(node: &Node, faults: &mut Faults<'_>) -> Option<HashMap<String, Arc<str>>> {
    if let Kind::Sequence(items) = &node.kind {
        let read: Vec<_> = items.iter().map(|item| type_name(item, faults)).collect();
        return read.into_iter().map(|name| name.map(|name| (name.to_string(), name))).collect();
    }
    let mut words = HashMap::new();
    for (key, node) in Fields::read_open(node, "words", faults)?.entries() {
        if let Some(name) = type_name(node, faults) {
            words.insert(key.text.clone(), name);
        }
    }
    if words.is_empty() {
        faults.add(node.place, "a closed set has at least one word");
        return None;
    }
    Some(words)
}

/// Name of a type: it becomes a word of reports.
fn type_name(node: &Node, faults: &mut Faults<'_>) -> Option<Arc<str>> {
    let name = text(node, faults)?;
    if is_type_name(name) {
        return Some(name.into());
    }
    faults.add(
        node.place,
        format!("`{name}` is no name of a type: expected up to 64 of a-z, 0-9, `.`, `_`, `-`"),
    );
    None
}

fn is_type(name: &str, place: super::fault::Place, types: &[Arc<str>], faults: &mut Faults<'_>) -> bool {
    let known = types.iter().any(|known| **known == *name);
    if !known {
        let names: Vec<&str> = types.iter().map(|name| &**name).collect();
        let hint = match super::fault::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", names.join(", ")),
        };
        faults.add(place, format!("`{name}` is no type of this source: {hint}"));
    }
    known
}

fn revenue_types(node: &Node, types: Option<&[Arc<str>]>, faults: &mut Faults<'_>) -> Option<Vec<Arc<str>>> {
    let mut revenue = Vec::new();
    for item in list(node, faults)? {
        let name = text(item, faults)?;
        if types.is_none_or(|types| is_type(name, item.place, types, faults)) {
            revenue.push(name.into());
        }
    }
    Some(revenue)
}
