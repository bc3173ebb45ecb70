//! From bytes to an event, or to every error in them.

use std::borrow::Cow;
use std::cell::RefCell;

use garde::Validate;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::MAX_EVENT_BYTES;
use super::columns::Columns;
use super::field_error::FieldError;
use super::lenient::{Notes, Unknown, leaf};
use super::object::{branch, object};
use super::reading::Reading;
use super::refusal::Refusal;
use super::scalar::{Instant, Text};
use super::source::Source;
use super::spec::{EventType, FunnelStage};
use super::walk::Walk;

/// An event that keeps the contract. Only [`decode`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The publisher's id, as sent.
    pub id: Cow<'a, str>,
    /// The event time, in microseconds since 1970.
    pub occurred_at: i64,
    /// Who sent it.
    pub source: Source,
    /// What happened, and so in which stage of the funnel.
    pub kind: &'static EventType,
    /// The fields of user and engagement.
    pub columns: Columns<'a>,
    /// What no column holds exactly, as a JSON object in the event's own shape: unknown keys, and
    /// known values that are finer than their columns.
    pub rest: Option<String>,
}

impl Event<'_> {
    /// The revenue it makes, in millionths.
    pub fn revenue(&self) -> Option<i64> {
        self.columns.amount.filter(|_| self.kind.makes_revenue).map(|amount| amount.0)
    }

    /// The key by which duplicates are found.
    pub fn key(&self) -> Uuid {
        event_key(self.source, &self.id)
    }
}

/// The key of (source, eventId): the first 16 bytes of SHA-256 over `source`, NUL, `eventId`.
pub fn event_key(source: Source, event_id: &str) -> Uuid {
    let mut hash = Sha256::new_with_prefix(source.as_str());
    hash.update([0]);
    hash.update(event_id);
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(key)
}

/// An eventId has at most 128 characters; what is longer in bytes is none.
const MAX_ID_BYTES: usize = 128 * 4;

/// Judges one event: `bytes` is one JSON value.
///
/// `only` is the source whose own address the event came to: another one is an error at `source`.
pub fn decode(bytes: &[u8], only: Option<Source>) -> Result<Event<'_>, Refusal> {
    match read_fast(bytes, only) {
        Some(event) => Ok(event),
        None => read_whole(bytes, only),
    }
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 128))]
    event_id: Option<Text<'a>>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    timestamp: Option<Instant>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    source: Option<Source>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    funnel_stage: Option<FunnelStage>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(custom(belongs_to_stage(self.source, self.funnel_stage)))]
    event_type: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "branch")]
    #[garde(skip)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    user: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    engagement: Option<&'a RawValue>,
}

/// The rule that an eventType is one of its source's and belongs to its funnelStage.
fn belongs_to_stage(
    source: Option<Source>,
    stage: Option<FunnelStage>,
) -> impl FnOnce(&Option<Text<'_>>, &()) -> garde::Result {
    move |text, ()| {
        let (Some(text), Some(source)) = (text, source) else { return Ok(()) };
        let fits = |kind: &&EventType| stage.is_none_or(|stage| kind.stage == stage);
        match source.event_type(text) {
            Some(kind) if fits(&kind) => Ok(()),
            _ => {
                let allowed: Vec<_> =
                    source.event_types().iter().filter(fits).map(|kind| kind.word.text).collect();
                let stage = stage.map(|stage| format!(" in funnelStage {stage}")).unwrap_or_default();
                Err(garde::Error::new(format!(
                    "must be one of {} for source {source}{stage}",
                    allowed.join(", ")
                )))
            }
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads user and engagement as the source and the stage ask for.
    fn read_data(&self, reading: &mut Reading<'a>) {
        let (Some(source), Some(data)) = (self.source, &self.data) else {
            reading.failed = true;
            return;
        };
        let spec = source.spec();
        match data.user {
            Some(user) => (spec.user)(reading, user),
            None => reading.failed = true,
        }
        let kind = self.event_type.as_ref().map(|text| source.event_type(text));
        let judged = match (self.funnel_stage, kind) {
            // A mismatch is an error at eventType; which engagement was meant is not known.
            (Some(stage), Some(kind)) => kind.filter(|kind| kind.stage == stage).map(|_| stage),
            (stage, None) => stage,
            (None, _) => None,
        };
        match (judged, data.engagement) {
            (Some(FunnelStage::Top), Some(engagement)) => (spec.top)(reading, engagement),
            (Some(FunnelStage::Bottom), Some(engagement)) => (spec.bottom)(reading, engagement),
            _ => reading.failed = true,
        }
    }

    fn event(self, reading: &mut Reading<'a>) -> Option<Event<'a>> {
        let source = self.source?;
        Some(Event {
            id: self.event_id?.0,
            occurred_at: reading.instant("timestamp", self.timestamp?),
            source,
            kind: source.event_type(&self.event_type?)?,
            columns: std::mem::take(&mut reading.columns),
            rest: None,
        })
    }
}

/// The first look: one typed pass, for an event with every field as declared and nothing else.
fn read_fast<'a>(bytes: &'a [u8], only: Option<Source>) -> Option<Event<'a>> {
    if bytes.len() > MAX_EVENT_BYTES {
        return None;
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let envelope: Envelope<'a> = object(&mut json).ok()?;
    json.end().ok()?;
    envelope.validate().ok()?;
    if only.is_some() && only != envelope.source {
        return None;
    }
    let mut reading = Reading::new(None);
    envelope.read_data(&mut reading);
    let event = envelope.event(&mut reading)?;
    (!reading.failed && reading.inexact.is_empty()).then_some(event)
}

/// The second look: field by field, to the end.
fn read_whole(bytes: &[u8], only: Option<Source>) -> Result<Event<'_>, Refusal> {
    let refuse = |path: &str, message: String| Refusal {
        errors: vec![FieldError { path: path.to_owned(), message }],
        ..Refusal::default()
    };
    let raw: &RawValue =
        serde_json::from_slice(bytes).map_err(|error| refuse("", format!("is no JSON: {error}")))?;
    if bytes.len() > MAX_EVENT_BYTES {
        let (event_id, source) = identify(raw);
        return Err(Refusal {
            event_id,
            source,
            ..refuse("", format!("is larger than {MAX_EVENT_BYTES} bytes"))
        });
    }
    let mut reading = Reading::new(Some(RefCell::default()));
    let envelope: Option<Envelope<'_>> = reading.read(raw, &[]);
    let (mut event_id, mut source) = (None, None);
    let mut event = None;
    if let Some(envelope) = envelope {
        event_id =
            envelope.event_id.as_ref().filter(|id| id.len() <= MAX_ID_BYTES).map(|id| id.0.to_string());
        source = envelope.source;
        if let (Some(only), Some(notes)) = (only, &reading.notes)
            && source.is_some_and(|source| source != only)
        {
            let message = format!("must be {only} at this address");
            notes.borrow_mut().error("source", message);
        }
        envelope.read_data(&mut reading);
        event = envelope.event(&mut reading);
    }
    let Notes { errors, truncated, unknown, .. } =
        reading.notes.take().map(RefCell::into_inner).unwrap_or_default();
    match event {
        Some(mut event) if errors.is_empty() && !reading.failed => {
            event.rest = rest(raw, unknown, &reading.inexact);
            Ok(event)
        }
        _ if errors.is_empty() => {
            Err(Refusal { event_id, source, ..refuse("", "could not be read".to_owned()) })
        }
        _ => Err(Refusal { event_id, source, errors, truncated }),
    }
}

/// Who sent an event that is not read whole, and its id, where they can be seen.
fn identify(raw: &RawValue) -> (Option<String>, Option<Source>) {
    /// All else is passed over, however much it is.
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Who<'a> {
        #[serde(borrow, default)]
        event_id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        source: Option<&'a RawValue>,
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let Who { event_id, source } = object(&mut json).unwrap_or_default();
    let text = |value: Option<&RawValue>, most: usize| {
        let value = value.filter(|value| value.get().len() <= most)?;
        serde_json::from_str::<String>(value.get()).ok()
    };
    (
        text(event_id, 6 * MAX_ID_BYTES).filter(|id| id.len() <= MAX_ID_BYTES),
        text(source, MAX_ID_BYTES).and_then(|name| Source::parse(&name)),
    )
}

/// The unknown keys, and the values that are finer than their columns, in the event's own shape.
fn rest<'a>(raw: &'a RawValue, unknown: Vec<Unknown<'a>>, inexact: &[&'static str]) -> Option<String> {
    let mut root = Tree::default();
    for path in inexact {
        let mut walk = Walk::new(raw);
        if path.split('.').all(|segment| walk.seek(segment)) {
            let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
            let above = above.split('.').filter(|segment| !segment.is_empty());
            root.at(above).values.push((Cow::Borrowed(key), walk.value()));
        }
    }
    for (path, entries) in unknown {
        let values = entries.into_iter().map(|(key, value)| (key, value.get()));
        root.at(path.iter().map(String::as_str)).values.extend(values);
    }
    if root.values.is_empty() && root.trees.is_empty() {
        return None;
    }
    let mut text = String::new();
    root.write(&mut text);
    Some(text)
}

/// Values by path, to be written as one object. Only the contract's own objects become trees: there are five.
#[derive(Default)]
struct Tree<'a> {
    values: Vec<(Cow<'a, str>, &'a str)>,
    trees: Vec<(String, Tree<'a>)>,
}

impl<'a> Tree<'a> {
    /// The tree at a path, made where it is not there yet.
    fn at<'p>(&mut self, path: impl Iterator<Item = &'p str>) -> &mut Self {
        path.fold(self, |tree, key| {
            let known = tree.trees.iter().position(|(name, _)| name == key);
            let at = known.unwrap_or_else(|| {
                tree.trees.push((key.to_owned(), Self::default()));
                tree.trees.len() - 1
            });
            &mut tree.trees[at].1
        })
    }

    fn write(&self, to: &mut String) {
        let mut first = '{';
        let mut key = |key: &str, to: &mut String| {
            to.push(first);
            first = ',';
            to.push_str(&serde_json::to_string(key).unwrap_or_default());
            to.push(':');
        };
        for (name, value) in &self.values {
            key(name, to);
            to.push_str(value);
        }
        for (name, tree) in &self.trees {
            key(name, to);
            tree.write(to);
        }
        to.push_str(if first == '{' { "{}" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = include_str!("../../tests/samples/valid.jsonl");
    const INVALID: &str = include_str!("../../tests/samples/invalid.jsonl");

    fn paths(event: &str) -> Vec<String> {
        let errors = decode(event.as_bytes(), None).map(|_| ()).err().map(|refusal| refusal.errors);
        errors.unwrap_or_default().into_iter().map(|error| error.path).collect()
    }

    fn valid(line: usize) -> serde_json::Value {
        serde_json::from_str(VALID.lines().nth(line).unwrap_or_default()).unwrap_or_default()
    }

    #[test]
    fn the_samples_are_judged_as_they_say() {
        for line in VALID.lines() {
            assert!(decode(line.as_bytes(), None).is_ok(), "{line}: {:?}", paths(line));
        }
        for line in INVALID.lines() {
            #[derive(Deserialize)]
            struct Sample<'a> {
                #[serde(borrow)]
                event: &'a RawValue,
                path: String,
            }
            let sample: Sample<'_> = serde_json::from_str(line).expect("a sample");
            assert_eq!(paths(sample.event.get()), [sample.path], "{line}");
        }
    }

    #[test]
    fn both_looks_give_the_same_event() {
        for line in VALID.lines() {
            if let Some(fast) = read_fast(line.as_bytes(), None) {
                assert_eq!(Ok(fast), read_whole(line.as_bytes(), None));
            }
        }
    }

    #[test]
    fn every_error_is_found_at_its_own_path() {
        let event = r#"{"eventId":"","timestamp":5,"source":"facebook","funnelStage":"bottom",
            "eventType":"ad.click","extra":"\u0000","data":{"user":{"userId":"u","age":200,"gender":"male",
            "location":{"country":5}},"engagement":{"campaignId":"c","clickPosition":"x","device":"mobile",
            "browser":"Chrome","purchaseAmount":12.5,"deep":{"a":1,"a":2,"b":["\ud800"]}}}}"#;
        let mut found = paths(event);
        found.sort();
        assert_eq!(
            found,
            [
                "data.engagement.adId",
                "data.engagement.clickPosition",
                "data.engagement.deep.a",
                "data.engagement.deep.b.0",
                "data.engagement.purchaseAmount",
                "data.user.age",
                "data.user.location.city",
                "data.user.location.country",
                "data.user.name",
                "eventId",
                "extra",
                "timestamp",
            ]
        );
    }

    #[test]
    fn a_value_of_a_wrong_type_is_an_error_at_its_path_whatever_the_field() {
        fn leaves(value: &serde_json::Value, path: String, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(object) => object.iter().for_each(|(key, value)| {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    leaves(value, path, found);
                }),
                _ => found.push(path),
            }
        }
        for line in VALID.lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("a sample");
            let (mut fields, rest) = (Vec::new(), decode(line.as_bytes(), None).expect("valid").rest);
            leaves(&event, String::new(), &mut fields);
            for path in fields.iter().filter(|_| rest.is_none()) {
                for wrong in ["{}", "[]", "true", "1e999", "-1.5"] {
                    let mut event = event.clone();
                    let field = format!("/{}", path.replace('.', "/"));
                    *event.pointer_mut(&field).expect("a field") = "WRONG".into();
                    let found = paths(&event.to_string().replace("\"WRONG\"", wrong));
                    assert_eq!(found, [path.as_str()], "{wrong} in {line}");
                }
            }
        }
    }

    /// The least time of three that decoding takes.
    fn time(event: &str) -> std::time::Duration {
        let once = || {
            let started = std::time::Instant::now();
            let _ = std::hint::black_box(decode(event.as_bytes(), None));
            started.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap_or_default()
    }

    #[test]
    fn errors_are_bounded_in_number_and_size() {
        let size = |refusal: &Refusal| serde_json::to_string(&refusal.errors).map_or(0, |json| json.len());
        let many = format!("{{\"k\":[{}]}}", vec!["\"\\u0000\""; 20_000].join(","));
        let refusal = decode(many.as_bytes(), None).expect_err("no event");
        assert_eq!((refusal.errors.len(), refusal.truncated), (101, true));
        assert_eq!(refusal.errors[100].message, "has more errors than these 100");
        for key in ["k", "\\u0001", "é", "\\\"", "\\u0000"] {
            let event = format!(
                "{{\"{}\":[{}],\"eventId\":\"e\"}}",
                key.repeat(10_000),
                vec!["\"\\u0000\""; 20_000].join(",")
            );
            let refusal = decode(event.as_bytes(), None).expect_err("no event");
            assert!(refusal.truncated && size(&refusal) < 9_000, "{key}: {}", size(&refusal));
            assert_eq!(refusal.event_id.as_deref(), Some("e"));
            assert!(refusal.errors[0].path.len() <= 256);
        }
        let refusal = decode(b"{}", None).expect_err("no event");
        assert!(!refusal.truncated);
    }

    #[test]
    fn an_error_that_is_not_told_costs_nothing() {
        // One object whose key comes again and again, beneath a key of half the event and beneath a short one.
        let event = |key: usize| {
            format!("{{\"x\":{{\"{}\":{{\"y\":1{}}}}}}}", "k".repeat(key), ",\"y\":1".repeat(21_600))
        };
        let (short, long) = (time(&event(10)), time(&event(131_000)));
        assert!(
            long < short * 10 + std::time::Duration::from_millis(20),
            "{long:?}, {short:?} beneath a short key"
        );
    }

    #[test]
    fn what_an_event_costs_grows_with_its_bytes_whatever_its_shape() {
        let keys =
            |from: char, count: usize| (0..count).map(|n| format!("\"{from}{n:05}\":1,")).collect::<String>();
        let event = |counts: [usize; 4]| {
            let [root, data, user, location] = counts;
            VALID
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start()
                .replacen('{', &format!("{{{}", keys('w', root)), 1)
                .replacen("\"data\": {", &format!("\"data\": {{{}", keys('x', data)), 1)
                .replacen("\"user\": {", &format!("\"user\": {{{}", keys('y', user)), 1)
                .replacen("\"location\": {", &format!("\"location\": {{{}", keys('z', location)), 1)
        };
        let (one, four) = (event([22_400, 0, 0, 0]), event([5_600; 4]));
        assert_eq!(one.len(), four.len());
        for event in [&one, &four] {
            let rest = decode(event.as_bytes(), None).expect("valid").rest.expect("unknown keys");
            assert_eq!(rest.matches(":1").count(), 22_400);
        }
        let (one_place, four_places) = (time(&one), time(&four));
        assert!(four_places < one_place * 4, "{four_places:?}, {one_place:?} with all in one place");
        // Nested as deep as may be, above many values; and far deeper.
        let deep = |depth: usize| {
            format!("{{\"x\":{}{}1{}}}", "[".repeat(depth), "1,".repeat(100_000), "]".repeat(depth))
        };
        let (flat, nested) = (time(&deep(1)), time(&deep(60)));
        assert!(nested < flat * 4, "{nested:?} nested, {flat:?} flat");
        let brackets = format!("{{\"x\":{}{}}}", "[".repeat(120_000), "]".repeat(120_000));
        assert!(time(&brackets) < flat * 4);
    }

    #[test]
    fn an_array_is_no_object_at_any_level() {
        /// The objects of an event, by their paths.
        fn objects(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
            let Some(object) = value.as_object() else { return };
            found.push(path.to_owned());
            object.iter().for_each(|(key, value)| objects(value, &format!("{path}/{key}"), found));
        }
        let mut tried = 0;
        for line in
            VALID.lines().filter(|line| decode(line.as_bytes(), None).is_ok_and(|event| event.rest.is_none()))
        {
            let event: serde_json::Value = serde_json::from_str(line).expect("a sample");
            let mut found = Vec::new();
            objects(&event, "", &mut found);
            for path in found {
                let mut event = event.clone();
                let object = event.pointer_mut(&path).expect("an object");
                // In the order of the contract, which is the order of the samples.
                let raw: &RawValue = serde_json::from_str(line).expect("a sample");
                let mut walk = Walk::new(raw);
                assert!(path.split('/').skip(1).all(|key| walk.seek(key)));
                walk.enter();
                let mut values = Vec::new();
                while walk.more() {
                    let _ = walk.key();
                    values.push(serde_json::from_str(walk.value()).expect("a value"));
                }
                *object = serde_json::Value::Array(values);
                let expected = path.trim_start_matches('/').replace('/', ".");
                let refusal = decode(event.to_string().as_bytes(), None).expect_err("an array");
                assert_eq!(refusal.errors.len(), 1, "{expected}: {:?}", refusal.errors);
                assert_eq!(
                    (&*refusal.errors[0].path, &*refusal.errors[0].message),
                    (&*expected, "must be an object")
                );
                tried += 1;
            }
        }
        assert!(tried > 20, "{tried}");
    }

    #[test]
    fn a_minus_before_zero_is_no_sign_of_a_fraction() {
        let age = |age: &str| {
            let event = VALID.lines().next().unwrap_or_default().replacen(
                "\"age\": 45",
                &format!("\"age\": {age}"),
                1,
            );
            decode(event.as_bytes(), None)
                .map(|event| event.columns.age)
                .map_err(|refusal| refusal.errors[0].path.clone())
        };
        assert_eq!(age("-0"), Ok(Some(0)));
        for wrong in
            ["-0.0", "0.0", "-0e1", "-1", "1e2", "45.0", "99999999999999999999", "-99999999999999999999"]
        {
            assert_eq!(age(wrong), Err("data.user.age".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_an_error_of_that_field() {
        let event = VALID.lines().next().unwrap_or_default();
        let twice = event.replacen("\"age\": 45", "\"age\": 45, \"age\": 45", 1);
        assert_eq!(paths(&twice), ["data.user.age"]);
        let twice = event.replacen("\"source\"", "\"timestamp\": \"x\", \"source\"", 1);
        assert_eq!(paths(&twice), ["timestamp"]);
    }

    #[test]
    fn a_null_is_taken_only_where_the_contract_says_so() {
        let mut event = valid(0);
        event["data"]["engagement"]["videoId"] = serde_json::Value::Null;
        assert_eq!(paths(&event.to_string()), Vec::<String>::new());
        event["data"]["user"]["name"] = serde_json::Value::Null;
        assert_eq!(paths(&event.to_string()), ["data.user.name"]);
    }

    #[test]
    fn a_mismatched_type_leaves_the_engagement_unjudged_and_an_absent_one_does_not() {
        let mut event = valid(0);
        event["eventType"] = "ad.click".into();
        event["data"]["engagement"] = serde_json::json!({});
        assert_eq!(paths(&event.to_string()), ["eventType"]);
        event.as_object_mut().expect("an object").remove("eventType");
        assert_eq!(paths(&event.to_string()).len(), 4);
    }

    #[test]
    fn what_no_column_holds_is_kept_in_its_own_shape() {
        let mut event = valid(0);
        event["timestamp"] = "2026-11-24T02:37:52.1234567Z".into();
        event["data"]["user"]["nick"] = "x".into();
        event["extra"] = serde_json::json!({"n": 1});
        let text = event.to_string();
        let rest = decode(text.as_bytes(), None).expect("valid").rest.expect("a rest");
        let rest: serde_json::Value = serde_json::from_str(&rest).expect("an object");
        assert_eq!(
            rest,
            serde_json::json!({
                "timestamp": "2026-11-24T02:37:52.1234567Z",
                "data": {"user": {"nick": "x"}},
                "extra": {"n": 1}
            })
        );
    }

    #[test]
    fn an_address_of_one_source_refuses_another() {
        let event = VALID.lines().next().unwrap_or_default();
        assert!(decode(event.as_bytes(), Some(Source::Facebook)).is_ok());
        let refusal = decode(event.as_bytes(), Some(Source::Tiktok)).expect_err("another source");
        assert_eq!(refusal.errors.len(), 1);
        assert_eq!(refusal.errors[0].path, "source");
    }

    #[test]
    fn what_is_no_object_is_an_error_of_the_event_itself() {
        for element in ["null", "5", "\"x\"", "[]", "[{}]", "true"] {
            assert_eq!(paths(element), [""], "{element}");
        }
        assert_eq!(paths("{}").len(), 6);
    }

    #[test]
    fn lengths_count_unicode_scalar_values() {
        let mut event = valid(0);
        event["eventId"] = "😀".repeat(128).into();
        assert_eq!(paths(&event.to_string()), Vec::<String>::new());
        event["eventId"] = "é".repeat(129).into();
        assert_eq!(paths(&event.to_string()), ["eventId"]);
        event["eventId"] = "x".into();
        event["data"]["user"]["name"] = "n".repeat(1024).into();
        assert_eq!(paths(&event.to_string()), Vec::<String>::new());
        event["data"]["user"]["name"] = "n".repeat(1025).into();
        assert_eq!(paths(&event.to_string()), ["data.user.name"]);
        event["data"]["user"]["name"] = "".into();
        event["extra"] = "x".repeat(MAX_EVENT_BYTES).into();
        assert_eq!(paths(&event.to_string()), [""]);
    }

    proptest! {
        #[test]
        fn decode_never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, None).is_ok();
        }

        #[test]
        fn decode_never_panics_on_a_mutated_event(line in 0..18_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = VALID.lines().nth(line).unwrap_or_default().as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(fast) = read_fast(&bytes, None) {
                prop_assert_eq!(Ok(fast), read_whole(&bytes, None));
            } else if let Err(refusal) = decode(&bytes, None) {
                prop_assert!(!refusal.errors.is_empty());
            }
        }
    }
}
