//! The canonical event: the one form that events of declared sources are brought to.
//!
//! A frame of a declared source holds canonical events, each as one compact JSON object of the members that `member.rs`
//! names. Only gateways read source files; collectors and reporters learn sources, types and stages from these events.
//! An event that is in the log is therefore never read differently later. Readers ignore members that they do not know.

mod event;
mod member;
mod names;
mod read;
mod write;

pub use event::{CanonicalColumns, CanonicalEvent, MAX_CANONICAL_BYTES, NotCanonical};
pub(super) use event::{MAX_AGE, MAX_AMOUNT, MAX_EVENT_ID, MAX_FOLLOWERS, MAX_ID, MAX_TEXT};
pub(super) use names::{is_source_name, is_type_name};

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::json::scalar::END_OF_2199;
    use crate::source::{FunnelStage, MAX_EVENT_BYTES};

    /// An event of the required members alone.
    const SMALLEST: &str =
        r#"{"version":1,"id":"1","timestamp":0,"source":"s","type":"t","stage":"top","raw":{}}"#;

    fn read(text: &str) -> Result<CanonicalEvent<'_>, String> {
        CanonicalEvent::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn text(most: usize) -> impl Strategy<Value = Option<Cow<'static, str>>> {
        option::of(proptest::collection::vec(any::<char>(), 1..most.min(40))).prop_map(|chars| {
            chars
                .map(|chars| Cow::Owned(chars.into_iter().map(|c| if c == '\0' { 'x' } else { c }).collect()))
        })
    }

    prop_compose! {
        fn columns()(
            ids in [text(MAX_ID), text(MAX_ID), text(MAX_ID)],
            texts in [text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT),
                text(MAX_TEXT)],
            age in option::of(0..=MAX_AGE),
            followers in option::of(0..=MAX_FOLLOWERS),
        ) -> CanonicalColumns<'static> {
            let ([campaign, ad, video], [country, city, device, browser, gender, name, referrer]) = (ids, texts);
            CanonicalColumns {
                campaign, ad, country, city, device, browser, age, gender, followers, name, referrer, video,
            }
        }
    }

    prop_compose! {
        fn events()(
            id in text(MAX_EVENT_ID), user in text(MAX_ID), columns in columns(),
            (timestamp, is_arrival) in (0..END_OF_2199, any::<bool>()),
            source in "[a-z][a-z0-9_]{0,31}", event_type in "[a-z0-9][a-z0-9._-]{0,63}",
            stage in any::<bool>(), is_revenue in any::<bool>(),
            amount in option::of(0..=MAX_AMOUNT), currency in option::of("[A-Z]{3}"),
            raw in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        ) -> CanonicalEvent<'static> {
            CanonicalEvent {
                id: id.unwrap_or(Cow::Borrowed("7400000000000000777")),
                timestamp,
                is_arrival,
                source: source.into(),
                event_type: event_type.into(),
                stage: if stage { FunnelStage::TOP } else { FunnelStage::BOTTOM },
                user,
                columns,
                is_revenue: is_revenue && amount.is_some(),
                currency: currency.filter(|_| amount.is_some()).map(Cow::Owned),
                amount,
                raw: serde_json::to_string(&raw).unwrap().into(),
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_is_read_as_it_was_written(event in events()) {
            let mut bytes = Vec::new();
            event.write(&mut bytes);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
            let again = CanonicalEvent::read(&bytes).unwrap();
            prop_assert_eq!(&again, &event);
            let mut second = Vec::new();
            again.write(&mut second);
            prop_assert_eq!(second, bytes);
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise_than_with_an_error(
            event in events(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            event.write(&mut bytes);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(event) = CanonicalEvent::read(&bytes) {
                let mut again = Vec::new();
                event.write(&mut again);
                prop_assert_eq!(CanonicalEvent::read(&again).unwrap(), event);
            }
        }
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let event = read(SMALLEST).unwrap();
        assert!(matches!((&event.id, &event.raw), (Cow::Borrowed("1"), Cow::Borrowed("{}"))));
    }

    #[test]
    fn a_wrong_member_is_named() {
        let with = |from: &str, to: &str| SMALLEST.replace(from, to);
        for (text, part) in [
            (with(r#""id":"1","#, ""), "`id` is missing"),
            (with(r#""id":"1""#, r#""id":1"#), "`id`: invalid type: integer"),
            (with(r#""id":"1""#, r#""id":"""#), "`id` is empty"),
            (with(r#""id":"1""#, &format!(r#""id":"{}""#, "x".repeat(129))), "`id` has too many characters"),
            (with(r#""id":"1""#, r#""id":"\u0000""#), "`id`: must not contain U+0000"),
            (with(r#""id":"1""#, r#""id":"1","id":"2""#), "`id` comes twice"),
            (with(r#""timestamp":0"#, r#""timestamp":-1"#), "`timestamp` is out of range"),
            (with(r#""timestamp":0"#, r#""timestamp":1.5"#), "`timestamp`: invalid type"),
            (with(r#""source":"s""#, r#""source":"S""#), "`source` is no name of a source"),
            (with(r#""type":"t""#, r#""type":"a b""#), "`type` is no name of a type"),
            (with(r#""stage":"top""#, r#""stage":"middle""#), "`stage`: must be one of top, bottom"),
            (with(r#""raw":{}"#, r#""raw":[]"#), "`raw` must be an object"),
            (with(r#""raw":{}"#, r#""revenue":true,"raw":{}"#), "`amount` is missing"),
            (with(r#""raw":{}"#, r#""currency":"EUR","raw":{}"#), "`amount` is missing"),
            (with(r#""raw":{}"#, r#""amount":-1,"raw":{}"#), "`amount` is out of range"),
            (with(r#""raw":{}"#, r#""amount":1,"currency":"eur","raw":{}"#), "`currency` must be a code"),
            (with(r#""raw":{}"#, r#""age":151,"raw":{}"#), "`age` is out of range"),
            (with(r#""version":1"#, r#""version":0"#), "`version` is no version"),
            (with(r#""version":1,"#, ""), "`version` is missing"),
            (with(r#""version":1"#, r#""version":2"#), "`version` is 2, and this version of ESS reads 1"),
            (r#"{"id":[],"version":2}"#.to_owned(), "`version` is 2"),
            ("[]".to_owned(), "expected an object"),
            ("{".to_owned(), "EOF"),
            (format!("{SMALLEST}{}", " ".repeat(MAX_CANONICAL_BYTES)), "larger than"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(
            read(&with(r#""raw":{}"#, r#""later":{"a":[1]},"raw":{}"#)).is_ok(),
            "members of later versions"
        );
    }

    #[test]
    fn the_largest_event_is_within_the_bound() {
        let long = |most: usize| Some(Cow::Owned("\u{1}".repeat(most)));
        let (id, text) = (long(MAX_ID), long(MAX_TEXT));
        let event = CanonicalEvent {
            id: "\u{1}".repeat(MAX_EVENT_ID).into(),
            timestamp: END_OF_2199 - 1,
            is_arrival: true,
            source: "s".repeat(32).into(),
            event_type: "t".repeat(64).into(),
            stage: FunnelStage::BOTTOM,
            user: id.clone(),
            columns: CanonicalColumns {
                campaign: id.clone(),
                ad: id.clone(),
                country: text.clone(),
                city: text.clone(),
                device: text.clone(),
                browser: text.clone(),
                age: Some(MAX_AGE),
                gender: text.clone(),
                followers: Some(MAX_FOLLOWERS),
                name: text.clone(),
                referrer: text,
                video: id,
            },
            amount: Some(MAX_AMOUNT),
            currency: Some("EUR".into()),
            is_revenue: true,
            raw: format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES - 8)).into(),
        };
        let mut bytes = Vec::new();
        event.write(&mut bytes);
        assert_eq!(event.raw.len(), MAX_EVENT_BYTES);
        assert_eq!(CanonicalEvent::read(&bytes).unwrap(), event);
    }
}
