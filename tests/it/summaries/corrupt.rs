//! A corrupt summary or delta fails the reports that need it, and nothing else, until it is rebuilt.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::support::events::{Chance, event, simple};
use crate::support::system::{Database, System, both};
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
            Database::Postgres(_) => "'\\x0209'::bytea",
            Database::Sqlite(_) => "x'0209'",
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

/// Days of events, and the ends of them.
const JANUARY: (&str, &str) = ("2026-01-05", "2026-01-06");
const MARCH: (&str, &str) = ("2026-03-05", "2026-03-06");
const MAY: (&str, &str) = ("2026-05-05", "2026-05-06");

/// A system whose summaries are damaged: 5 Facebook events in January, 7 in March, and 3 TikTok events in January.
struct Damaged<'a> {
    system: &'a System,
    sent: Cell<u64>,
}

impl<'a> Damaged<'a> {
    fn start(system: &'a System) -> Self {
        let damaged = Self { system, sent: Cell::new(0) };
        damaged.send("facebook", JANUARY, 5);
        damaged.send("facebook", MARCH, 7);
        damaged.send("tiktok", JANUARY, 3);
        damaged.wait_until_only("0");
        damaged
    }

    fn send(&self, source: &str, (day, _): (&str, &str), count: u64) {
        let first = self.sent.replace(self.sent.get() + count);
        let events: Vec<Value> = (first..first + count)
            .map(|n| {
                let mut made = simple(&format!("m-{n}"), source);
                made["timestamp"] = json!(format!("{day}T10:00:01Z"));
                made
            })
            .collect();
        assert_eq!(self.system.post(&Value::from(events).to_string()).status, 202);
        self.system.settle();
    }

    /// A body of a version that no program ever wrote, as SQL.
    fn body(&self) -> &'static str {
        match self.system.database {
            Database::Postgres(_) => "'\\x0909'::bytea",
            Database::Sqlite(_) => "x'0909'",
        }
    }

    /// Damages the hour of January, which folding and refreshing read next.
    fn damage_hour(&self) {
        self.system.damage(&format!(
            "UPDATE summaries SET version = version + 1, body = {} WHERE source = 1 AND level = 0
             AND at = (SELECT min(at) FROM summaries WHERE source = 1 AND level = 0)",
            self.body()
        ));
        self.system.damage(
            "UPDATE summaries SET stale = true, body = NULL, touched_at = 0 WHERE source = 1 AND level > 0",
        );
        self.send("facebook", JANUARY, 1);
        self.send("facebook", MARCH, 1);
    }

    /// Damages a delta of 4 events in May before it is folded.
    fn damage_delta(&self) {
        let body = self.body();
        let (damage, mended) = match self.system.database {
            Database::Postgres(_) => (
                format!(
                    "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql
                        AS $$ BEGIN IF NEW.source = 1 THEN NEW.body = {body}; END IF; RETURN NEW; END $$;
                    CREATE TRIGGER damage BEFORE INSERT ON summary_deltas FOR EACH ROW EXECUTE FUNCTION damage()"
                ),
                "DROP TRIGGER damage ON summary_deltas",
            ),
            Database::Sqlite(_) => (
                format!(
                    "CREATE TRIGGER damage AFTER INSERT ON summary_deltas WHEN NEW.source = 1
                        BEGIN UPDATE summary_deltas SET body = {body} WHERE id = NEW.id; END"
                ),
                "DROP TRIGGER damage",
            ),
        };
        self.system.damage(&damage);
        self.send("facebook", MAY, 4);
        self.system.damage(mended);
    }

    /// Waits until so many Facebook deltas are left.
    fn wait_until_only(&self, deltas: &str) {
        eventually("all but damaged deltas are folded", MINUTE, || {
            let left = self.system.database.query("SELECT count(*) FROM summary_deltas WHERE source = 1");
            (left[0] == deltas).then_some(())
        });
    }

    /// Waits until the collector counts so many damaged summaries and deltas.
    fn wait_counted(&self, wanted: f64) {
        let at = self.system.environment.iter().find(|(name, _)| name == "ESS_FACEBOOK_COLLECTOR_PORT");
        let port = at.map(|(_, port)| port.clone());
        let port = port.unwrap_or_else(|| self.system.services[1].port.to_string());
        eventually("damaged summaries are counted", MINUTE, || {
            let url = format!("http://127.0.0.1:{port}/metrics");
            let series = "ess_collector_damaged_summaries{source=\"facebook\"}";
            let declared = http::get(&url).unwrap().text.contains(series);
            (declared && (http::metric(&url, series) - wanted).abs() < 0.5).then_some(())
        });
    }

    fn path(source: &str, (day, next): (&str, &str)) -> String {
        format!("/reports/demographics?source={source}&from={day}T00:00:00Z&to={next}T00:00:00Z")
    }

    fn events(&self, source: &str, day: (&str, &str)) -> u64 {
        self.system.report(&Self::path(source, day))[source]["events"].as_u64().unwrap()
    }

    /// Asserts that a report is refused with the table that is damaged.
    fn assert_refused(&self, day: (&str, &str), table: &str) {
        let asked = http::get(&self.system.reporter_url(&Self::path("facebook", day))).unwrap();
        assert_eq!(asked.status, 503, "{}", asked.text);
        assert!(asked.text.contains("is corrupt") && asked.text.contains(table), "{}", asked.text);
    }

    /// Runs `ess rollups` and asserts its exit code; what it printed.
    fn rollups(&self, arguments: &[&str], code: i32) -> String {
        let done = self.system.ess(&[&["rollups"][..], arguments].concat());
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.code(), Some(code), "{said}");
        said
    }

    /// Rebuilds all, and asserts that nothing is damaged then.
    fn rebuild(&self) {
        assert!(!self.rollups(&["rebuild"], 0).contains("remain"));
        self.rollups(&["verify"], 0);
        self.wait_counted(0.0);
        self.wait_until_only("0");
    }

    /// Lines and errors of the log about damaged summaries.
    fn logged(&self) -> (usize, usize) {
        let target = "\"target\":\"ess::store::summary::damaged\"";
        let lines: Vec<Value> =
            self.system.services.iter().flat_map(|service| service.lines(target)).collect();
        (lines.len(), lines.iter().filter(|line| line["level"] == "ERROR").count())
    }
}

#[test]
fn folding_goes_on_beside_a_corrupt_hour_until_it_is_rebuilt() {
    both(&[], |system| {
        let damaged = Damaged::start(system);
        damaged.damage_hour();
        damaged.wait_until_only("0");
        damaged.wait_counted(1.0);
        damaged.assert_refused(JANUARY, "summaries, source facebook, level 0");
        assert_eq!(damaged.events("facebook", MARCH), 8);
        assert_eq!(damaged.events("tiktok", JANUARY), 3);
        damaged.rebuild();
        assert_eq!((damaged.events("facebook", JANUARY), damaged.events("facebook", MARCH)), (6, 8));
        assert_eq!(damaged.logged(), (1, 1), "once");
    });
}

#[test]
fn folding_goes_on_beside_a_corrupt_delta_until_it_is_rebuilt() {
    both(&[], |system| {
        let damaged = Damaged::start(system);
        damaged.damage_delta();
        damaged.wait_counted(1.0);
        damaged.send("facebook", MARCH, 2);
        damaged.wait_until_only("1");
        // The hours of a corrupt delta are unknown: all reports of its source fail.
        damaged.assert_refused(JANUARY, "corrupt");
        damaged.assert_refused(MARCH, "summary_deltas, source facebook");
        assert_eq!(damaged.events("tiktok", JANUARY), 3);
        assert_eq!(system.report("/reports/events")["totalEvents"], 21);
        damaged.rebuild();
        for (day, count) in [(JANUARY, 5), (MARCH, 9), (MAY, 4)] {
            assert_eq!(damaged.events("facebook", day), count, "{day:?}");
        }
        assert_eq!(damaged.logged(), (1, 1), "once");
    });
}

#[test]
fn a_rebuild_of_some_days_says_what_remains_damaged() {
    both(&[], |system| {
        let damaged = Damaged::start(system);
        damaged.damage_hour();
        damaged.damage_delta();
        damaged.wait_counted(2.0);
        let said = damaged.rollups(&["rebuild", "--from", "2026-01-05", "--to", "2026-01-06"], 1);
        assert!(said.contains("1 damaged summaries remain"), "{said}");
        damaged.wait_counted(1.0);
        damaged.rollups(&["verify"], 1);
        damaged.rebuild();
        assert_eq!(damaged.events("facebook", JANUARY), 6);
    });
}
