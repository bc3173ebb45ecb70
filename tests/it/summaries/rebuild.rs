//! `ess rollups verify` and `rebuild`.

use super::{demographics, send};
use crate::support::system::both;
use crate::support::{MINUTE, eventually};

#[test]
pub fn wrong_rollups_and_summaries_are_found_and_rebuilt_while_events_come() {
    both(&[], |system| {
        send(system, 1, 3_000);
        system.settle();
        let verified = system.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let before = (
            system.report("/reports/events?interval=hour"),
            system.report("/reports/revenue"),
            demographics(system),
        );

        let damage = [
            "UPDATE rollups SET events = events + 3 WHERE minutes = 60 AND at % 7 = 0",
            "DELETE FROM rollups WHERE minutes = 1440 AND at % 2 = 0",
            "UPDATE rollups SET revenue_micros = revenue_micros + 1 WHERE minutes = 1 AND transactions > 0 AND at % 3 = 0",
        ];
        eventually("everything is folded", MINUTE, || {
            (system.database.query("SELECT count(*) FROM summary_deltas")[0] == "0").then_some(())
        });
        for sql in damage {
            system.damage(sql);
        }
        system.damage("UPDATE campaigns SET units = units + 5");
        system.damage(
            "UPDATE summaries SET version = version + 1, body = (SELECT o.body FROM summaries o
             WHERE o.source = summaries.source AND o.level = 0 AND o.body IS NOT NULL ORDER BY o.at LIMIT 1)
             WHERE level = 0 AND at % 5 = 0",
        );
        assert_ne!(system.report("/reports/events?interval=hour"), before.0);
        let verified = system.ess(&["rollups", "verify"]);
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(1), "{told}");
        for word in [
            "rollup of 1440 min from 2026-03-",
            "rollup of 60 min from 2026-03-",
            "hour 2026-03-",
            "events -3",
            "the summary differs",
            "campaigns of facebook",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }

        // Events come meanwhile.
        let sent = std::thread::scope(|scope| {
            let feeder = scope.spawn(|| (0..10).map(|round| send(system, 100 + round, 200)).sum::<usize>());
            let rebuilt = system.ess(&["rollups", "rebuild"]);
            assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
            feeder.join().unwrap()
        });
        system.settle();
        let verified = system.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        assert_eq!(system.report("/reports/events")["totalEvents"], 3_000 + sent);
        assert_eq!(
            demographics(system)["facebook"]["events"].as_u64().unwrap()
                + demographics(system)["tiktok"]["events"].as_u64().unwrap(),
            3_000 + sent as u64
        );
        assert_eq!(system.database.query("SELECT count(*) FROM progress"), ["0"]);
    });
}
