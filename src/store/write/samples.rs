//! Events for the unit tests of the write path.

use crate::event::decode;
use crate::log::Origin;
use crate::store::write::row::Row;

/// An event without revenue.
pub(super) fn view(id: &str, user: &str) -> String {
    format!(
        r#"{{"eventId":"{id}","timestamp":"2026-03-01T00:00:00Z","source":"facebook","funnelStage":"top",
        "eventType":"ad.view","data":{{"user":{{"userId":"{user}","name":"n","age":30,"gender":"female",
        "location":{{"country":"DE","city":"Berlin"}}}},"engagement":{{"actionTime":"2026-03-01T00:00:00Z",
        "referrer":"newsfeed","videoId":null}}}}}}"#
    )
}

/// An event with revenue, in a minute of 2026-03-01.
pub(super) fn sale(id: &str, minute: u32, amount: &str) -> String {
    let time = format!("2026-03-01T{:02}:{:02}:30Z", minute / 60, minute % 60);
    format!(
        r#"{{"eventId":"{id}","timestamp":"{time}","source":"facebook","funnelStage":"bottom",
        "eventType":"checkout.complete","data":{{"user":{{"userId":"u","name":"n","age":30,"gender":"female",
        "location":{{"country":"DE","city":"Berlin"}}}},"engagement":{{"adId":"a","campaignId":"c",
        "clickPosition":"center","device":"mobile","browser":"Safari","purchaseAmount":"{amount}"}}}}}}"#
    )
}

/// Origin of all rows.
pub(super) fn origin() -> Origin {
    Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 946_684_800_000_000 }
}

/// The row of an event.
pub(super) fn row<'a>(text: &'a str, origin: &'a Origin) -> Row<'a> {
    Row::new(decode(text.as_bytes(), None).unwrap(), text.as_bytes(), origin, 5, 6)
}
