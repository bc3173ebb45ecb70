//! Removal of rows by age.

use serde_json::json;

use super::demographics;
use crate::support::events::simple;
use crate::support::system::both;
use crate::support::{MINUTE, eventually};

#[test]
pub fn rows_are_removed_by_age_and_stay_counted() {
    both(&[("ESS_RETENTION", "6s")], |system| {
        let now = chrono::Utc::now();
        let mut old = simple("old", "facebook");
        old["timestamp"] = json!((now - chrono::Duration::days(3)).to_rfc3339());
        let mut ahead = simple("ahead", "facebook");
        ahead["timestamp"] = json!((now + chrono::Duration::days(3)).to_rfc3339());
        let body = json!([old, ahead]).to_string();
        assert_eq!(system.post(&body).status, 202);
        system.settle();
        assert_eq!(system.count_rows(), 2);
        // A duplicate is recognised while the row is there.
        assert_eq!(system.post(&body).status, 202);
        let ledger = system.settle();
        assert_eq!(ledger["sources"][0]["duplicates"], 2, "{ledger}");
        let before = demographics(system);
        eventually("the old row is removed", MINUTE, || (system.count_rows() == 1).then_some(()));
        let left = system.database.query("SELECT event_id FROM events");
        assert_eq!(left, ["ahead"], "the event of the future stays");
        assert_eq!(system.report("/reports/events")["totalEvents"], 2);
        assert_eq!(demographics(system), before);
        let verified = system.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    });
}
