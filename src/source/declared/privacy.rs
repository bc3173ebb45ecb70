//! Personal data of declared events, which the pointers of a file name: replaced before an event is kept anywhere.

use std::collections::HashSet;

use super::file::Declared;
use super::pointer::Pointer;
use super::reason::{MISSING, NOT_OBJECT, TOO_LARGE};
use super::value::Value;
use crate::json::FieldError;
use crate::source::CanonicalEvent;

/// Treatment of personal data.
pub trait Privacy {
    /// The pseudonym of a text. A pseudonym is its own.
    fn pseudonym(&self, text: &str) -> String;
    /// True if names and other personal data are dropped, and ids alone have pseudonyms.
    fn drops(&self) -> bool;
}

/// Message of an error that could quote personal data.
const HIDDEN: &str = "is not what the source's file asks for";

/// Minimum bytes of a personal text that is hidden at other places too: shorter ones, such as an age, mean other things
/// there.
const MIN_EQUAL: usize = 6;

/// Messages that quote nothing.
const PLAIN: [&str; 3] = [MISSING, NOT_OBJECT, TOO_LARGE];

impl Declared {
    /// Replaces the personal data of an event, and of what was made of it.
    pub(super) fn hide(
        &self,
        value: &mut Value,
        event: Option<&mut CanonicalEvent<'_>>,
        privacy: &dyn Privacy,
    ) {
        let mut hidden = HashSet::new();
        for pointer in self.map.user_pointers() {
            pointer.replace_through(value, |user| Some(with_pseudonyms(user, privacy, &mut hidden)));
        }
        for pointer in self.map.name_pointers().chain(&self.personal) {
            pointer.replace_through(value, |personal| {
                let shown = with_pseudonyms(personal, privacy, &mut hidden);
                Some(if privacy.drops() { emptied(personal) } else { shown })
            });
        }
        *value = with_equals_hidden(value, &hidden, privacy);
        for pointer in self.map.id_pointers() {
            pointer.replace(value, |id| {
                let text = text_of(id).filter(|text| hidden.contains(text));
                Some(text.map_or_else(|| id.clone(), |text| Value::text(&privacy.pseudonym(&text))))
            });
        }
        let Some(event) = event else { return };
        event.user = event.user.take().map(|user| privacy.pseudonym(&user).into());
        let columns = &mut event.columns;
        columns.name = columns.name.take().filter(|_| !privacy.drops());
        columns.name = columns.name.take().map(|name| privacy.pseudonym(&name).into());
        let is_hidden = |text: &str| hidden.contains(text);
        if is_hidden(&event.id) {
            event.id = privacy.pseudonym(&event.id).into();
        }
        let texts = [
            &mut columns.campaign,
            &mut columns.ad,
            &mut columns.country,
            &mut columns.city,
            &mut columns.device,
            &mut columns.browser,
            &mut columns.gender,
            &mut columns.referrer,
            &mut columns.video,
        ];
        for column in texts {
            if let Some(text) = column.take() {
                *column = match is_hidden(&text) {
                    false => Some(text),
                    true if privacy.drops() => None,
                    true => Some(privacy.pseudonym(&text).into()),
                };
            }
        }
        columns.age = columns.age.take().filter(|age| !is_hidden(&age.to_string()));
        columns.followers = columns.followers.take().filter(|number| !is_hidden(&number.to_string()));
    }

    /// Replaces the messages of errors that could quote personal data: at, above and beneath its places.
    pub(super) fn hide_errors(&self, errors: &mut [FieldError]) {
        let places: Vec<String> = self.personal().map(Pointer::to_string).collect();
        let is_beneath = |path: &str, above: &str| {
            path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for error in errors {
            let near = |place: &String| {
                error.path.is_empty() || is_beneath(&error.path, place) || is_beneath(place, &error.path)
            };
            if !PLAIN.contains(&error.message.as_str()) && places.iter().any(near) {
                HIDDEN.clone_into(&mut error.message);
            }
        }
    }

    /// An event's id, where it is personal data too: its pseudonym.
    pub(super) fn hide_id(&self, id: String, value: &Value, privacy: &dyn Privacy) -> String {
        let mut texts = HashSet::new();
        for pointer in self.personal() {
            if let Some(found) = pointer.find(value) {
                with_pseudonyms(found, privacy, &mut texts);
            }
        }
        if texts.contains(&id) { privacy.pseudonym(&id) } else { id }
    }
}

/// The text of a text or a number.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.to_string()),
        Value::Int(_) | Value::Float(_) | Value::Number(_) => Some(value.to_json()),
        _ => None,
    }
}

/// The value with a pseudonym wherever a hidden text stands once more.
fn with_equals_hidden(value: &Value, hidden: &HashSet<String>, privacy: &dyn Privacy) -> Value {
    match value {
        Value::Array(array) => {
            Value::array(array.items.iter().map(|item| with_equals_hidden(item, hidden, privacy)).collect())
        }
        Value::Object(object) => {
            let members = object.members.iter();
            let hide = |member| with_equals_hidden(member, hidden, privacy);
            Value::object(members.map(|(key, member)| (key.clone(), hide(member))).collect())
        }
        _ => match text_of(value).filter(|text| text.len() >= MIN_EQUAL && hidden.contains(text)) {
            Some(text) => Value::text(&privacy.pseudonym(&text)),
            None => value.clone(),
        },
    }
}

/// The value with a pseudonym for each text and number in it, whose texts are added to `hidden`.
fn with_pseudonyms(value: &Value, privacy: &dyn Privacy, hidden: &mut HashSet<String>) -> Value {
    let text = match value {
        Value::Null | Value::Bool(_) => return value.clone(),
        Value::Text(text) if text.is_empty() => return value.clone(),
        Value::Text(text) => text.to_string(),
        Value::Int(_) | Value::Float(_) | Value::Number(_) => value.to_json(),
        Value::Array(array) => {
            return Value::array(
                array.items.iter().map(|item| with_pseudonyms(item, privacy, hidden)).collect(),
            );
        }
        Value::Object(object) => {
            let members = object.members.iter();
            return Value::object(
                members
                    .map(|(key, member)| (key.clone(), with_pseudonyms(member, privacy, hidden)))
                    .collect(),
            );
        }
    };
    let pseudonym = Value::text(&privacy.pseudonym(&text));
    hidden.insert(text);
    pseudonym
}

/// The value with nothing in it: empty texts, null for numbers.
fn emptied(value: &Value) -> Value {
    match value {
        Value::Text(_) => Value::text(""),
        Value::Array(array) => Value::array(array.items.iter().map(emptied).collect()),
        Value::Object(object) => {
            Value::object(object.members.iter().map(|(key, member)| (key.clone(), emptied(member))).collect())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Method, Outcome, Request};
    use super::*;

    struct Marks(bool);

    impl Privacy for Marks {
        fn pseudonym(&self, text: &str) -> String {
            if text.starts_with("anon-") { text.to_owned() } else { format!("anon-{}", text.len()) }
        }
        fn drops(&self) -> bool {
            self.0
        }
    }

    const LEADS: &str = r#"
source: leads
title: Leads
schema: {type: object, properties: {answers: {type: object}, mail: {type: string}}}
map:
  id: /lead
  timestamp: {value: received}
  type: {value: lead}
  stage: {value: bottom}
  user: /lead
  name: /name
  city: /answers/city
  campaign: /campaign
personal: [/answers, /mail, /inner/mail]
"#;

    fn judged(body: &str, privacy: Option<&dyn Privacy>) -> Vec<String> {
        let source = Declared::parse("leads.yaml", LEADS).unwrap();
        let request =
            Request { method: Method::Post, headers: &[], query: "", body: body.as_bytes(), received: 1 };
        let outcomes = source.events_with(&request, privacy).unwrap().into_iter();
        outcomes
            .map(|outcome| match outcome {
                Outcome::Event(event) => {
                    let mut bytes = Vec::new();
                    event.write(&mut bytes);
                    String::from_utf8(bytes).unwrap()
                }
                Outcome::Refused(refused) => format!("{:?} {:?} {}", refused.id, refused.errors, refused.raw),
            })
            .collect()
    }

    const BODY: &str = r#"{"lead":77001,"name":"Ada","answers":{"city":"Nairobi","more":["x-secret",3]},
        "mail":"ada@example.org","inner":"{\"mail\":\"ada@example.org\"}","campaign":"c-1"}"#;

    #[test]
    fn personal_data_is_hidden_in_columns_and_in_the_event_itself() {
        let kept = judged(BODY, None).remove(0);
        assert!(kept.contains("Ada") && kept.contains("77001"), "{kept}");
        for drops in [false, true] {
            let hidden = judged(BODY, Some(&Marks(drops))).remove(0);
            for personal in ["77001", "Ada", "Nairobi", "x-secret", "example.org"] {
                assert!(!hidden.contains(personal), "{personal}: {hidden}");
            }
            assert!(hidden.contains(r#""id":"anon-5""#) && hidden.contains(r#""user":"anon-5""#), "{hidden}");
            assert!(hidden.contains(r#""campaign":"c-1""#), "{hidden}");
            assert_eq!(hidden.contains(r#""city":"anon-7""#), !drops, "{hidden}");
            let raw = &hidden[hidden.find(r#""raw":"#).unwrap() + 6..hidden.len() - 1];
            assert_eq!(judged(raw, Some(&Marks(drops))).remove(0), hidden, "once is enough");
        }
    }

    #[test]
    fn a_refused_event_and_its_errors_show_no_personal_data() {
        let body = r#"[{"lead":77001,"answers":"Nairobi","mail":5},"Ada"]"#;
        assert!(judged(body, None)[0].contains("Nairobi"));
        for drops in [false, true] {
            for hidden in judged(body, Some(&Marks(drops))) {
                for personal in ["77001", "Ada", "Nairobi"] {
                    assert!(!hidden.contains(personal), "{personal}: {hidden}");
                }
            }
        }
    }
}
