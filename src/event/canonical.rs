//! From a canonical event of the log to an event with the numbers of its names.

use std::borrow::Cow;

use super::{Event, Refusal};
use crate::json::FieldError;
use crate::json::scalar::Money;
use crate::money::Currency;
use crate::source::canonical::{CanonicalColumns, CanonicalEvent};
use crate::source::{Columns, Names, Source, WordColumn};

/// Decodes a canonical event of a declared source.
///
/// # Errors
///
/// If the bytes are no canonical event of this source, or its type has no number in `names`.
pub fn decode_canonical<'a>(
    source: Source,
    bytes: &'a [u8],
    names: &mut Names,
) -> Result<Event<'a>, Refusal> {
    let refuse = |event_id: Option<String>, path: &str, message: String| Refusal {
        event_id,
        source: Some(source),
        errors: vec![FieldError { path: path.to_owned(), message }],
        truncated: false,
    };
    let event = CanonicalEvent::read(bytes).map_err(|error| refuse(None, "", error.to_string()))?;
    if event.source != source.name() {
        let message = format!("must be {source} in this topic");
        return Err(refuse(Some(event.id.into_owned()), "source", message));
    }
    let currency = event.currency.as_deref().map(|code| Currency::parse(code).ok_or(code));
    let currency = match currency.transpose() {
        Ok(currency) => currency,
        Err(code) => {
            let message = format!("`{code}` is no currency that this version knows");
            return Err(refuse(Some(event.id.to_string()), "currency", message));
        }
    };
    let kind = names.kind(&event.event_type, event.stage);
    let CanonicalColumns {
        campaign,
        ad,
        country,
        city,
        device,
        browser,
        age,
        gender,
        followers,
        name,
        referrer,
        video,
    } = event.columns;
    // All names are asked for at once, those of an event without a type as well.
    let mut word = |column, text: Option<Cow<'a, str>>| text.map(|text| names.word(column, &text));
    let (gender, referrer) = (word(WordColumn::Gender, gender), word(WordColumn::Referrer, referrer));
    let (device, browser) = (word(WordColumn::Device, device), word(WordColumn::Browser, browser));
    let Some(kind) = kind else {
        let message = format!("`{}` is one type more than {source} can have", event.event_type);
        return Err(refuse(Some(event.id.into_owned()), "type", message));
    };
    Ok(Event {
        id: event.id,
        occurred_at: event.timestamp,
        source,
        kind,
        is_revenue: event.is_revenue,
        columns: Columns {
            user_id: event.user.unwrap_or_default(),
            user_name: name,
            age,
            gender,
            followers,
            country,
            city,
            referrer,
            video_id: video,
            ad_id: ad,
            campaign_id: campaign,
            device,
            browser,
            amount: event.amount.map(Money),
            currency,
            ..Columns::default()
        },
        rest: Some(event.raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FunnelStage;

    #[test]
    fn a_canonical_event_becomes_a_row_with_numbers_and_the_whole_event_as_it_came() {
        let source = Source::declare("decoded", "").unwrap();
        let kind = source.learn_type(21_000, "purchase", FunnelStage::BOTTOM).unwrap();
        source.learn_word(WordColumn::Device, 21_001, "Pixel").unwrap();
        let bytes = br#"{"version":1,"id":"7","timestamp":5,"source":"decoded","type":"purchase","stage":"bottom","user":"u","campaign":"c","country":"DE","device":"Pixel","browser":"B","age":41,"followers":9,"amount":12500000,"currency":"EUR","revenue":true,"raw":{"x":[1.10]}}"#;
        let mut names = Names::new(source, false);
        let event = decode_canonical(source, bytes, &mut names).unwrap();
        assert_eq!((&*event.id, event.occurred_at, event.kind), ("7", 5, kind));
        assert_eq!((event.revenue(), event.rest.as_deref()), (Some(12_500_000), Some(r#"{"x":[1.10]}"#)));
        let columns = &event.columns;
        assert_eq!(columns.currency, Currency::parse("EUR"));
        assert_eq!((columns.device, columns.age, columns.followers), (Some(21_001), Some(41), Some(9)));
        assert_eq!((&*columns.user_id, columns.country.as_deref()), ("u", Some("DE")));
        assert_eq!(names.missing().len(), 1, "the browser");
        let text = std::str::from_utf8(bytes).unwrap();
        for (change, path) in [
            (text.replace(r#""source":"decoded""#, r#""source":"another""#), "source"),
            (text.replace(r#""type":"purchase""#, r#""type":"refund""#), "type"),
            (text.replace(r#""id":"7","#, ""), ""),
            (text.replace("EUR", "XXQ"), "currency"),
        ] {
            let refusal = decode_canonical(source, change.as_bytes(), &mut names).unwrap_err();
            assert_eq!(
                (refusal.errors[0].path.as_str(), refusal.source),
                (path, Some(source)),
                "{refusal:?}"
            );
        }
        assert_eq!(names.missing().len(), 2, "and the type");
        let free = text.replace(r#""revenue":true,"#, "");
        assert_eq!(decode_canonical(source, free.as_bytes(), &mut names).unwrap().revenue(), None);
    }
}
