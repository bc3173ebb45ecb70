//! A corrupt summary or delta fails the reports that need it, and nothing else, until it is rebuilt.

use serde_json::{Value, json};

use crate::support::events::{Chance, event, simple};
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually, http};

#[test]
fn a_corrupt_summary_fails_its_reports_alone_and_is_rebuilt() {
    both(&[], |system| {
        let mut chance = Chance(17);
        let batch: Vec<Value> = (0..300).map(|n| event(&format!("d-{n}"), &mut chance)).collect();
        assert_eq!(system.post(&Value::from(batch).to_string()).status, 202);
        system.settle();
        eventually("everything is folded", MINUTE, || {
            (system.database.query("SELECT count(*) FROM summary_deltas")[0] == "0").then_some(())
        });
        let body = match system.database {
            crate::support::system::Database::Postgres(_) => "'\\x0209'::bytea",
            crate::support::system::Database::Sqlite(_) => "x'0209'",
        };
        // One hour, and no wider span that is read instead.
        system.damage("UPDATE summaries SET stale = true, body = NULL WHERE source = 1 AND level > 0");
        system.damage(&format!(
            "UPDATE summaries SET version = version + 1, touched_at = 4102444800000000, body = {body}
             WHERE source = 1 AND level = 0
             AND at = (SELECT max(at) FROM summaries WHERE source = 1 AND level = 0 AND NOT stale)"
        ));
        let asked = http::get(&system.reporter_url("/reports/demographics?source=facebook")).unwrap();
        assert_eq!(asked.status, 503, "{}", asked.text);
        assert!(asked.text.contains("is corrupt") && !asked.text.contains("unavailable"), "{}", asked.text);
        let tiktok = system.report("/reports/demographics?source=tiktok");
        assert_eq!(system.report("/reports/events")["totalEvents"], 300);
        assert_eq!(system.ess(&["rollups", "verify"]).status.code(), Some(1));
        let rebuilt = system.ess(&["rollups", "rebuild"]);
        assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
        let verified = system.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let facebook = system.report("/reports/demographics?source=facebook");
        let sum =
            facebook["facebook"]["events"].as_u64().unwrap() + tiktok["tiktok"]["events"].as_u64().unwrap();
        assert_eq!(sum, 300, "{facebook}");
    });
}

#[test]
fn folding_goes_on_beside_corrupt_hours_and_deltas_and_all_are_rebuilt() {
    both(&[], |system| {
        // A version that no program ever wrote.
        let is_postgres = matches!(system.database, crate::support::system::Database::Postgres(_));
        let body = if is_postgres { "'\\x0909'::bytea" } else { "x'0909'" };
        let mut sent = 0;
        let mut send = |system: &System, source: &str, time: &str, count: u64| {
            let events: Vec<Value> = (0..count)
                .map(|n| {
                    let mut made = simple(&format!("m-{}", sent + n), source);
                    made["timestamp"] = json!(format!("{time}:00:01Z"));
                    made
                })
                .collect();
            sent += count;
            assert_eq!(system.post(&Value::from(events).to_string()).status, 202);
            system.settle();
        };
        let waiting = |system: &System, deltas: &str| {
            eventually("all but damaged deltas are folded", MINUTE, || {
                let left = system.database.query("SELECT count(*) FROM summary_deltas WHERE source = 1");
                (left[0] == deltas).then_some(())
            });
        };
        let gauge = |system: &System, wanted: f64| {
            let at = system.environment.iter().find(|(name, _)| name == "ESS_FACEBOOK_COLLECTOR_PORT");
            let port = at.map(|(_, port)| port.clone());
            let port = port.unwrap_or_else(|| system.services[1].port.to_string());
            eventually("damaged summaries are counted", MINUTE, || {
                let url = format!("http://127.0.0.1:{port}/metrics");
                let series = "ess_collector_damaged_summaries{source=\"facebook\"}";
                let declared = http::get(&url).unwrap().text.contains(series);
                (declared && (http::metric(&url, series) - wanted).abs() < 0.5).then_some(())
            });
        };
        let path = |source: &str, day: &str, next: &str| {
            format!("/reports/demographics?source={source}&from={day}T00:00:00Z&to={next}T00:00:00Z")
        };
        let events = |system: &System, source: &str, (day, next): (&str, &str)| {
            system.report(&path(source, day, next))[source]["events"].as_u64().unwrap()
        };
        let refused = |system: &System, (day, next): (&str, &str), table: &str| {
            let asked = http::get(&system.reporter_url(&path("facebook", day, next))).unwrap();
            assert_eq!(asked.status, 503, "{}", asked.text);
            assert!(asked.text.contains("is corrupt") && asked.text.contains(table), "{}", asked.text);
        };
        let [first, second, third] =
            [("2026-01-05", "2026-01-06"), ("2026-03-05", "2026-03-06"), ("2026-05-05", "2026-05-06")];

        send(system, "facebook", "2026-01-05T10", 5);
        send(system, "facebook", "2026-03-05T10", 7);
        send(system, "tiktok", "2026-01-05T10", 3);
        waiting(system, "0");
        // An hour that folding and refreshing read.
        system.damage(&format!(
            "UPDATE summaries SET version = version + 1, body = {body} WHERE source = 1 AND level = 0
             AND at = (SELECT min(at) FROM summaries WHERE source = 1 AND level = 0)"
        ));
        system.damage(
            "UPDATE summaries SET stale = true, body = NULL, touched_at = 0 WHERE source = 1 AND level > 0",
        );
        send(system, "facebook", "2026-01-05T10", 1);
        send(system, "facebook", "2026-03-05T10", 1);
        waiting(system, "0");
        gauge(system, 1.0);
        refused(system, first, "summaries, source facebook, level 0");
        assert_eq!(events(system, "facebook", second), 8);
        assert_eq!(events(system, "tiktok", first), 3);

        // The delta of the next transaction.
        let (damage, mended) = if is_postgres {
            let damage = "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql
                    AS $$ BEGIN IF NEW.source = 1 THEN NEW.body = '\\x0909'; END IF; RETURN NEW; END $$;
                CREATE TRIGGER damage BEFORE INSERT ON summary_deltas FOR EACH ROW EXECUTE FUNCTION damage()";
            (damage, "DROP TRIGGER damage ON summary_deltas")
        } else {
            let damage = "CREATE TRIGGER damage AFTER INSERT ON summary_deltas WHEN NEW.source = 1
                BEGIN UPDATE summary_deltas SET body = x'0909' WHERE id = NEW.id; END";
            (damage, "DROP TRIGGER damage")
        };
        system.damage(damage);
        send(system, "facebook", "2026-05-05T10", 4);
        system.damage(mended);
        gauge(system, 2.0);
        send(system, "facebook", "2026-03-05T10", 2);
        waiting(system, "1");
        // The hours of a corrupt delta are unknown: all reports of its source fail.
        refused(system, first, "corrupt");
        refused(system, second, "summary_deltas, source facebook");
        assert_eq!(events(system, "tiktok", first), 3);
        assert_eq!(system.report("/reports/events")["totalEvents"], 23);

        let said = |done: &std::process::Output| String::from_utf8_lossy(&done.stdout).into_owned();
        let some = system.ess(&["rollups", "rebuild", "--from", "2026-01-05", "--to", "2026-01-06"]);
        assert_eq!(some.status.code(), Some(1), "{}", said(&some));
        assert!(said(&some).contains("1 damaged summaries remain"), "{}", said(&some));
        gauge(system, 1.0);
        assert_eq!(system.ess(&["rollups", "verify"]).status.code(), Some(1));
        let all = system.ess(&["rollups", "rebuild"]);
        assert_eq!(all.status.code(), Some(0), "{}", said(&all));
        assert!(!said(&all).contains("remain"), "{}", said(&all));
        let verified = system.ess(&["rollups", "verify"]);
        assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
        gauge(system, 0.0);
        waiting(system, "0");
        for (range, count) in [(first, 6), (second, 10), (third, 4)] {
            assert_eq!(events(system, "facebook", range), count, "{range:?}");
        }
        // Each was logged once.
        let lines: Vec<Value> = system
            .services
            .iter()
            .flat_map(|service| service.lines("\"target\":\"ess::store::summary::damaged\""))
            .collect();
        let errors = lines.iter().filter(|line| line["level"] == "ERROR").count();
        assert_eq!((lines.len(), errors), (2, 2), "{lines:?}");
    });
}
