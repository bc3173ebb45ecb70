use proptest::prelude::*;

use super::*;
use crate::json::walk::{Walk, count_looks};

const VALID: &str = include_str!("../../../tests/samples/valid.jsonl");
const INVALID: &str = include_str!("../../../tests/samples/invalid.jsonl");

fn paths(event: &str) -> Vec<String> {
    let errors = decode(event.as_bytes(), None).map(|_| ()).err().map(|refusal| refusal.errors);
    errors.unwrap_or_default().into_iter().map(|error| error.path).collect()
}

fn valid(line: usize) -> serde_json::Value {
    serde_json::from_str(VALID.lines().nth(line).unwrap_or_default()).unwrap_or_default()
}

#[test]
fn each_sample_is_accepted_or_refused_as_it_declares() {
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
fn the_fast_pass_and_the_thorough_pass_read_the_same_event() {
    for line in VALID.lines() {
        if let Some(fast) = read_fast(line.as_bytes(), None) {
            assert_eq!(Ok(fast), read_thoroughly(line.as_bytes(), None));
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

/// Number of looks at the bytes of unknown values that decoding takes.
fn looks(event: &str) -> usize {
    count_looks(|| drop(std::hint::black_box(decode(event.as_bytes(), None))))
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
fn an_unknown_value_is_not_read_further_once_no_more_errors_are_noted() {
    // An object with a repeated key, beneath a key of half the event's size and beneath a short one.
    let event = |key: usize, repeats: usize| {
        format!("{{\"x\":{{\"{}\":{{\"y\":1{}}}}}}}", "k".repeat(key), ",\"y\":1".repeat(repeats))
    };
    let (all, short, long) =
        (looks(&event(10, 90)), looks(&event(10, 21_600)), looks(&event(131_000, 21_600)));
    assert!(all > 90, "{all} looks at 90 repetitions, each of them an error");
    assert!(short < 2 * all, "{short} looks at 21,600 repetitions, {all} at 90");
    assert!(long <= short, "{long} looks beneath a long key, {short} beneath a short one");
}

#[test]
fn bytes_of_an_event_are_read_a_bounded_number_of_times_whatever_its_nesting() {
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
    let (in_one, in_four) = (looks(&one), looks(&four));
    assert!(in_one >= 22_400, "{in_one} looks at 22,400 unknown keys");
    assert!(in_four <= in_one + 100, "{in_four} looks with the keys in four objects, {in_one} in one");
    // Nested to the limit, above many values; and far deeper.
    let nested = |depth: usize| {
        format!("{{\"x\":{}{}1{}}}", "[".repeat(depth), "1,".repeat(100_000), "]".repeat(depth))
    };
    let (flat, deep) = (looks(&nested(1)), looks(&nested(60)));
    assert!(flat >= 100_000, "{flat} looks at 100,000 values");
    assert!(deep <= flat + 1_000, "{deep} looks at 60 levels, {flat} at one");
    let brackets = format!("{{\"x\":{}{}}}", "[".repeat(120_000), "]".repeat(120_000));
    let looks = looks(&brackets);
    assert!((200_000..3 * 240_000).contains(&looks), "{looks} looks at 240,000 brackets");
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
fn minus_zero_is_read_as_the_integer_zero() {
    let age = |age: &str| {
        let event =
            VALID.lines().next().unwrap_or_default().replacen("\"age\": 45", &format!("\"age\": {age}"), 1);
        decode(event.as_bytes(), None)
            .map(|event| event.columns.age)
            .map_err(|refusal| refusal.errors[0].path.clone())
    };
    assert_eq!(age("-0"), Ok(Some(0)));
    for wrong in ["-0.0", "0.0", "-0e1", "-1", "1e2", "45.0", "99999999999999999999", "-99999999999999999999"]
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
fn a_mismatched_type_leaves_the_engagement_unvalidated_and_an_absent_one_does_not() {
    let mut event = valid(0);
    event["eventType"] = "ad.click".into();
    event["data"]["engagement"] = serde_json::json!({});
    assert_eq!(paths(&event.to_string()), ["eventType"]);
    event.as_object_mut().expect("an object").remove("eventType");
    assert_eq!(paths(&event.to_string()).len(), 4);
}

#[test]
fn unknown_keys_are_kept_as_they_were_sent() {
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
fn the_path_of_a_source_refuses_events_of_another_source() {
    let event = VALID.lines().next().unwrap_or_default();
    assert!(decode(event.as_bytes(), Some(Source::FACEBOOK)).is_ok());
    let refusal = decode(event.as_bytes(), Some(Source::TIKTOK)).expect_err("another source");
    assert_eq!(refusal.errors.len(), 1);
    assert_eq!(refusal.errors[0].path, "source");
}

#[test]
fn an_element_that_is_no_object_is_refused_with_an_empty_path() {
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
            prop_assert_eq!(Ok(fast), read_thoroughly(&bytes, None));
        } else if let Err(refusal) = decode(&bytes, None) {
            prop_assert!(!refusal.errors.is_empty());
        }
    }
}
