//! Personal data, hashed or dropped before an event is stored anywhere.
//!
//! Names, user names and user ids are replaced in the event's own bytes; all other bytes stay as they were sent. A
//! pseudonym is an HMAC-SHA256 under the operator's key: without the key nobody can compute it, and one user has one
//! pseudonym in every report. A pseudonym is never hashed again.

use hmac::{Hmac, Mac};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::config::{Pii, Secret};
use crate::json::walk::{Kind, Walk};
use crate::source::declared::Privacy;

/// Prefix of every pseudonym.
const PREFIX: &str = "anon-";
/// Bytes of the hash in a pseudonym, which has them as hexadecimal digits.
const BYTES: usize = 16;
/// Maximum depth of objects and arrays that are searched; deeper ones are replaced whole.
const MAX_DEPTH: usize = 64;

/// Kinds of personal data, by the key of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Personal {
    Id,
    Name,
    /// The user: an object if the event follows the contract.
    User,
}

impl Personal {
    /// The kind of a key's value; case and punctuation of the key do not matter.
    fn of(key: &str) -> Option<Self> {
        let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        match key.to_ascii_lowercase().as_str() {
            "userid" => Some(Self::Id),
            "name" | "username" => Some(Self::Name),
            "user" => Some(Self::User),
            _ => None,
        }
    }
}

/// Context of a value in an event, by the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    /// The event itself.
    Event,
    /// An object that is, or contains, the user. A value without a key may be any field of the user.
    Object,
    /// Any other value.
    Other,
}

/// Replacement of a value whose meaning is unknown.
const NULL: &str = "null";

/// Replaces personal data.
#[derive(Clone)]
pub struct Redactor {
    mac: Hmac<Sha256>,
    drops_names: bool,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("drops_names", &self.drops_names).finish_non_exhaustive()
    }
}

impl Redactor {
    /// The redactor of a configuration; `None` if personal data is kept.
    pub fn new(pii: &Pii) -> Option<Self> {
        let (key, drops_names): (&Secret, bool) = match pii {
            Pii::Keep => return None,
            Pii::Hash(key) => (key, false),
            Pii::Drop(key) => (key, true),
        };
        // HMAC takes keys of any length.
        let mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).ok()?;
        Some(Self { mac, drops_names })
    }

    /// The pseudonym of a user's id or name; a pseudonym is its own.
    pub fn pseudonym(&self, text: &str) -> String {
        if is_pseudonym(text) {
            return text.to_owned();
        }
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        format!("{PREFIX}{}", hex::encode(&mac.finalize().into_bytes()[..BYTES]))
    }

    /// Appends the JSON without personal data to `to`; appends nothing if it is not JSON.
    pub fn redact(&self, bytes: &[u8], to: &mut Vec<u8>) {
        let Ok(raw) = serde_json::from_slice::<&RawValue>(bytes) else { return };
        let mut edits = Edits::default();
        self.redact_value(&mut Walk::new(raw), Context::Event, 0, &mut edits);
        edits.apply(bytes, to);
    }

    /// The HMAC of a digest of personal data: without the key, guesses cannot be compared with it.
    pub fn keyed(&self, digest: &[u8]) -> Vec<u8> {
        let mut mac = self.mac.clone();
        mac.update(digest);
        mac.finalize().into_bytes().to_vec()
    }

    /// Redacts the next value and all values beneath it.
    fn redact_value(&self, walk: &mut Walk<'_>, context: Context, depth: usize, edits: &mut Edits) {
        match (walk.kind(), context) {
            (Kind::Object | Kind::Array, _) if depth > MAX_DEPTH => edits.replace(walk.value(), NULL),
            (Kind::Object, _) => {
                walk.enter();
                while walk.more() {
                    match walk.key() {
                        Ok(key) => self.redact_entry(&key, walk, context, depth + 1, edits),
                        // A key that is not Unicode text may stand for any key.
                        Err(()) => self.replace(Personal::Name, walk, edits),
                    }
                }
            }
            (Kind::Array, _) => {
                walk.enter();
                while walk.more() {
                    // An array in context of an object has no keys, so any item may be a field of the user.
                    let context = if context == Context::Event { Context::Object } else { context };
                    self.redact_value(walk, context, depth + 1, edits);
                }
            }
            (Kind::Text | Kind::Scalar, Context::Event | Context::Object) => {
                edits.replace(walk.value(), NULL)
            }
            (Kind::Text | Kind::Scalar, Context::Other) => drop(walk.value()),
        }
    }

    /// Redacts the value of a key.
    fn redact_entry(
        &self,
        key: &str,
        walk: &mut Walk<'_>,
        context: Context,
        depth: usize,
        edits: &mut Edits,
    ) {
        match Personal::of(key) {
            Some(Personal::User) => self.redact_value(walk, Context::Object, depth, edits),
            Some(personal) => self.replace(personal, walk, edits),
            None if context == Context::Event && key == "data" => {
                self.redact_value(walk, Context::Object, depth, edits)
            }
            None => self.redact_value(walk, Context::Other, depth, edits),
        }
    }

    /// Replaces the next value whole, of any type.
    fn replace(&self, personal: Personal, walk: &mut Walk<'_>, edits: &mut Edits) {
        let text = (walk.kind() == Kind::Text).then(|| walk.clone().string().ok()).flatten();
        let value = walk.value();
        if value == NULL {
            return;
        }
        if personal == Personal::Name && self.drops_names {
            return edits.replace(value, "\"\"");
        }
        let pseudonym = self.pseudonym(text.as_deref().unwrap_or(value));
        edits.replace(value, &format!("\"{pseudonym}\""));
    }
}

impl Privacy for Redactor {
    fn pseudonym(&self, text: &str) -> String {
        self.pseudonym(text)
    }

    fn drops(&self) -> bool {
        self.drops_names
    }
}

/// True if a text has the form of a pseudonym.
fn is_pseudonym(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|hash| {
        hash.len() == 2 * BYTES && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// True if the JSON has one of these user ids, at any depth.
pub fn names_user(json: &Value, ids: &[String]) -> bool {
    match json {
        Value::Array(items) => items.iter().any(|item| names_user(item, ids)),
        Value::Object(entries) => entries.iter().any(|(key, value)| match (Personal::of(key), value) {
            (Some(Personal::Id), Value::String(text)) => ids.contains(text),
            (Some(Personal::Id), Value::Number(number)) => ids.contains(&number.to_string()),
            (_, value) => names_user(value, ids),
        }),
        _ => false,
    }
}

/// Replacements in a text, in its order: address and length of each value, and the new text.
#[derive(Default)]
struct Edits(Vec<(usize, usize, String)>);

impl Edits {
    fn replace(&mut self, value: &str, with: &str) {
        self.0.push((value.as_ptr() as usize, value.len(), with.to_owned()));
    }

    fn apply(&self, bytes: &[u8], to: &mut Vec<u8>) {
        let start = bytes.as_ptr() as usize;
        let mut done = 0;
        for (at, length, with) in &self.0 {
            // Values are slices of these bytes, in ascending order.
            let at = at.saturating_sub(start);
            to.extend_from_slice(bytes.get(done..at).unwrap_or_default());
            to.extend_from_slice(with.as_bytes());
            done = at + length;
        }
        to.extend_from_slice(bytes.get(done..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::event::decode;

    const VALID: &str = include_str!("../../tests/samples/valid.jsonl");

    fn key() -> Secret {
        "0123456789abcdef".to_owned().into()
    }

    fn hashing() -> Redactor {
        Redactor::new(&Pii::Hash(key())).unwrap()
    }

    fn dropping() -> Redactor {
        Redactor::new(&Pii::Drop(key())).unwrap()
    }

    fn redacted(redactor: &Redactor, event: &str) -> String {
        let mut to = Vec::new();
        redactor.redact(event.as_bytes(), &mut to);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn a_pseudonym_is_an_hmac_under_the_key() {
        // Made with: printf u-1 | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "anon-9faa1b049c0fba732d92e9844d49635e";
        assert_eq!(hashing().pseudonym("u-1"), expected);
        assert_eq!(hashing().pseudonym(expected), expected, "once");
        assert_ne!(hashing().pseudonym("u-2"), expected);
        assert_ne!(hashing().pseudonym("anon-1"), "anon-1");
        let other = Redactor::new(&Pii::Hash("another key of 16".to_owned().into())).unwrap();
        assert_ne!(other.pseudonym("u-1"), expected);
    }

    #[test]
    fn a_redacted_event_is_valid_and_only_id_and_name_of_its_user_differ() {
        for line in VALID.lines() {
            for redactor in [hashing(), dropping()] {
                let after = redacted(&redactor, line);
                let (before, after) =
                    (decode(line.as_bytes(), None).unwrap(), decode(after.as_bytes(), None));
                let after = after.unwrap_or_else(|refusal| panic!("{line}: {refusal:?}"));
                assert_eq!(after.columns.user_id, redactor.pseudonym(&before.columns.user_id));
                let name = before.columns.user_name.as_deref().unwrap();
                let expected = if redactor.drops_names { String::new() } else { redactor.pseudonym(name) };
                assert_eq!(after.columns.user_name.as_deref(), Some(expected.as_str()));
                let mut same = after.columns.clone();
                same.user_id.clone_from(&before.columns.user_id);
                same.user_name.clone_from(&before.columns.user_name);
                assert_eq!(same, before.columns);
                assert_eq!((after.id.clone(), after.occurred_at), (before.id.clone(), before.occurred_at));
            }
        }
    }

    #[test]
    fn json_that_is_no_event_is_redacted_at_every_key_of_personal_data() {
        let letter = json!({
            "userId": 5, "data": {"user": "Ada", "User_ID": "u-1", "x": [{"name": ["Ada"]}, {"userName": "Ada"}]},
            "eventId": "e", "deep": null, "name": null,
        });
        let after = redacted(&dropping(), &letter.to_string());
        let after: Value = serde_json::from_str(&after).unwrap();
        let expected = json!({
            "userId": dropping().pseudonym("5"),
            "data": {"user": null, "User_ID": dropping().pseudonym("u-1"), "x": [{"name": ""}, {"userName": ""}]},
            "eventId": "e", "deep": null, "name": null,
        });
        assert_eq!(after, expected);
        assert_eq!(redacted(&hashing(), "{\"name\":\"Ada\""), "");
        assert_eq!(redacted(&hashing(), " \"Ada\" "), " null ");
        assert!(!redacted(&hashing(), r#"{"userId\ud800":"Ada"}"#).contains("Ada"));
        let says = |json: Value, id: &str| names_user(&json, &[id.to_owned()]);
        assert!(says(json!({"a": [{"user_id": "45"}]}), "45") && says(json!({"userId": 45}), "45"));
        assert!(!says(json!({"age": 45, "source": "facebook"}), "45"));
        assert!(!says(json!({"age": 45, "source": "facebook"}), "facebook"));
        let deep = format!("{}{{\"name\":\"Ada\"}}{}", "[".repeat(5_000), "]".repeat(5_000));
        let after = redacted(&hashing(), &deep);
        assert!(!after.contains("Ada"), "{after}");
    }

    #[test]
    fn an_event_of_any_shape_is_redacted_and_redacting_it_again_changes_nothing() {
        let row = r#"["a01","2026-01-31T12:00:00Z","facebook",[["u-Ada","Ada",36,["Kenya","Ada"]],{"userId":"Ada"}]]"#;
        let twice =
            r#"{"data":{"user":{"userId":"Ada","userId":{"of":"Ada"},"\u006eame":["Ada"],"NAME":77}}}"#;
        for event in [
            row,
            twice,
            r#"{"eventId":"e","data":["Ada",[["Ada"]],{"x":1}]}"#,
            r#"{"eventId":"e","data":"Ada"}"#,
            r#"{"eventId":"e","data":{"user":["Ada",["Ada"],{"name":"Ada"}]}}"#,
            r#"{"eventId":"e","data":{"user":"Ada","User":["Ada"],"user":{"user":["Ada"]}}}"#,
            r#"{"eventId":"e","users":[{"user_name":{"first":"Ada"}}],"user-id":["Ada"],"name\ud800":"Ada"}"#,
        ] {
            for redactor in [hashing(), dropping()] {
                let after = redacted(&redactor, event);
                assert!(!after.contains("Ada") && !after.contains(":77"), "{event}: {after}");
                assert!(serde_json::from_str::<&RawValue>(&after).is_ok(), "{after}");
                assert_eq!(redacted(&redactor, &after), after, "again");
            }
        }
        // Values that are not personal stay, in arrays too.
        let unknown = r#"{"eventId":"e","tags":["Ada",1],"x":{"data":[1,"y"]},"data":{"y":[1,["z"]]}}"#;
        assert_eq!(redacted(&hashing(), unknown), unknown);
    }

    proptest! {
        #[test]
        fn ids_and_names_of_any_characters_are_redacted(
            id in "[a-zA-Z0-9 \"\\\\é]{6,20}", name in "[A-Z][a-zé\\\\]{6,20}", line in 0_usize..20,
        ) {
            let line = VALID.lines().cycle().nth(line).unwrap();
            let mut event: Value = serde_json::from_str(line).unwrap();
            event["data"]["user"]["userId"] = json!(id);
            let key = if event["source"] == "facebook" { "name" } else { "username" };
            event["data"]["user"][key] = json!(name);
            let event = event.to_string();
            for redactor in [hashing(), dropping()] {
                let after = redacted(&redactor, &event);
                prop_assert!(!after.contains(&json!(id).to_string()), "{}", after);
                prop_assert!(!after.contains(&json!(name).to_string()), "{}", after);
                prop_assert_eq!(redacted(&redactor, &after), after, "again");
            }
        }
    }
}
