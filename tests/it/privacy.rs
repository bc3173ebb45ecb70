//! Personal data: hashed or dropped before anything is stored, and deleted on request.

use serde_json::{Value, json};

use crate::support::events::{Chance, event};
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually};

const KEY: &str = "a key that only the operator knows";

/// An event of a user, with the name in its own field and in an unknown one.
fn of_user(id: &str, user: &str, name: &str) -> Value {
    let mut made = event(id, &mut Chance(id.bytes().map(u64::from).sum()));
    made["data"]["user"]["userId"] = json!(user);
    let key = if made["source"] == "facebook" { "name" } else { "username" };
    made["data"]["user"][key] = json!(name);
    made["data"]["user"]["profile"] = json!({"name": name, "since": 2019});
    // And where nobody looks for it.
    made["userId"] = json!(user);
    made["data"]["engagement"]["seenBy"] = json!([{"user_name": name}]);
    made
}

/// Asserts that no file of the folder and no table of the database contains these words.
fn assert_nowhere(system: &System, words: &[&str]) {
    let mut texts: Vec<String> = Vec::new();
    for table in ["event_rows", "dead_letters", "summary_deltas", "summaries"] {
        let rows = match &system.database {
            crate::support::system::Database::Postgres(postgres) => {
                postgres.query(&format!("SELECT t::text FROM {table} t"))
            }
            crate::support::system::Database::Sqlite(_) => continue,
        };
        texts.extend(rows);
    }
    // PostgreSQL shows bytes as hexadecimal digits.
    for word in words {
        let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
        for text in &texts {
            assert!(!text.contains(word) && !text.contains(&hex), "{word}: {text}");
        }
    }
    for service in &system.services {
        let output = service.process.output();
        words.iter().for_each(|word| assert!(!output.contains(word), "{word} in a line"));
    }
    files(system.folder.path(), &mut |path, bytes| {
        for word in words {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} in {}", path.display());
        }
    });
}

fn files(folder: &std::path::Path, look: &mut impl FnMut(&std::path::Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, look);
        } else if let Ok(bytes) = std::fs::read(&path) {
            look(&path, &bytes);
        }
    }
}

fn is_never_stored(mode: &str) {
    both(&[("ESS_PII", mode), ("ESS_PII_KEY", KEY), ("LOG_LEVEL", "debug")], |system| {
        let events: Vec<Value> =
            (0..40).map(|n| of_user(&format!("e-{n}"), &format!("Zoë-{}", n % 5), "Ada Quixote")).collect();
        let mut broken = of_user("broken", "Zoë-1", "Ada Quixote");
        broken["eventType"] = json!("ad.nothing");
        let mut misplaced = of_user("misplaced", "Zoë-1", "Ada Quixote");
        misplaced["data"]["user"] = json!("Ada Quixote");
        let mut all = events;
        all.extend([broken, misplaced, json!("Ada Quixote")]);
        let answer = system.post(&Value::from(all).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(3)), "{}", answer.text);
        assert_eq!(system.post(r#"{"name": "Ada Quixote", "userId": "Zoë-1""#).status, 400);
        assert_eq!(system.post("\"Ada Quixote\"").status, 400);
        system.settle();
        assert_eq!(system.count_rows(), 40);
        let people = system.report("/reports/demographics");
        let users =
            people["facebook"]["users"].as_u64().unwrap() + people["tiktok"]["users"].as_u64().unwrap();
        let told = "SELECT count(DISTINCT source || user_id) FROM events";
        assert_eq!(system.database.query(told), [users.to_string()], "users are told apart");
        let ids = system.database.query("SELECT DISTINCT user_id FROM events");
        assert_eq!(ids.len(), 5);
        assert!(ids.iter().all(|id| id.starts_with("anon-")), "{ids:?}");
        let names = system.database.query("SELECT DISTINCT user_name FROM events");
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].is_empty(), mode == "drop", "{names:?}");
        let letters = || system.report("/dead-letters")["deadLetters"].as_array().unwrap().len();
        eventually("all letters are there", MINUTE, || (letters() == 5).then_some(()));
        // Nor can it be tried out from a digest.
        use sha2::Digest;
        let digest = sha2::Sha256::digest("\"Ada Quixote\"");
        let digests = system.database.query("SELECT payload_sha256 FROM dead_letters");
        assert!(digests.iter().all(|kept| !kept.contains(&hex::encode(digest))), "{digests:?}");
        assert_nowhere(system, &["Ada Quixote", "Zoë-1", "Zo\\u00eb"]);
    });
}

#[test]
fn personal_data_is_hashed_before_anything_is_stored() {
    is_never_stored("hash");
}

#[test]
fn names_are_dropped_before_anything_is_stored() {
    is_never_stored("drop");
}

#[test]
pub fn a_person_is_forgotten_and_everything_else_stays_counted() {
    both(&[], |system| {
        let mut events: Vec<Value> = (0..60)
            .map(|n| of_user(&format!("e-{n}"), &format!("user-{}", n % 6), &format!("Name {}", n % 6)))
            .collect();
        for n in [3, 9] {
            let mut broken = of_user(&format!("broken-{n}"), &format!("user-{n}"), "Name 3");
            broken["timestamp"] = json!("never");
            events.push(broken);
        }
        let body = Value::from(events).to_string();
        assert_eq!(system.post(&body).status, 202);
        system.settle();
        let letters = || system.report("/dead-letters")["deadLetters"].as_array().unwrap().clone();
        eventually("both letters are there", MINUTE, || (letters().len() == 2).then_some(()));
        let before = (system.report("/reports/events?interval=day"), system.report("/reports/revenue"));
        let people = system.report("/reports/demographics?limit=1000");
        let mut told = String::new();
        for source in ["facebook", "tiktok"] {
            let done = system.ess(&["forget", "--source", source, "--user", "user-3"]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            told += &String::from_utf8_lossy(&done.stdout);
        }
        assert!(told.contains("rows have no user any more"), "{told}");
        assert_eq!(system.count_rows(), 60);
        let theirs = "SELECT count(*) FROM events WHERE user_id = 'user-3' OR user_name = 'Name 3'";
        assert_eq!(system.database.query(theirs), ["0"]);
        let unknown = "SELECT count(*) FROM events WHERE user_id LIKE 'forgotten-%' AND unknown IS NULL";
        assert_eq!(system.database.query(unknown), ["10"]);
        let left: Vec<Value> = letters().iter().map(|letter| letter["eventId"].clone()).collect();
        assert_eq!(left, ["broken-9"], "letters of others stay");
        assert_eq!(
            (system.report("/reports/events?interval=day"), system.report("/reports/revenue")),
            before
        );
        assert_eq!(system.report("/reports/demographics?limit=1000"), people, "one user less and one more");
        // An event that is sent again is still a duplicate.
        assert_eq!(system.post(&body).status, 202);
        system.settle();
        assert_eq!(system.count_rows(), 60);
        eventually("hours are made anew", MINUTE, || {
            let stale = "SELECT count(*) FROM summaries WHERE stale AND level = 0";
            (system.database.query(stale) == ["0"]).then_some(())
        });
        let verified = system.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        assert_eq!(system.report("/reports/demographics?limit=1000"), people);
        let again = system.ess(&["forget", "--source", "facebook", "--user", "user-3"]);
        assert!(String::from_utf8_lossy(&again.stdout).contains("0 rows"), "nothing is left of them");
    });
}

#[test]
fn a_person_is_forgotten_by_user_id_or_pseudonym() {
    let system = System::embedded(&[("ESS_PII", "hash"), ("ESS_PII_KEY", KEY)]);
    assert_eq!(system.post(&of_user("e-1", "user-1", "Name").to_string()).status, 202);
    system.settle();
    let source = system.database.query("SELECT source FROM events").swap_remove(0);
    let done = system.ess(&["forget", "--source", &source, "--user", "user-1"]);
    assert!(
        String::from_utf8_lossy(&done.stdout).contains("1 rows"),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
}
