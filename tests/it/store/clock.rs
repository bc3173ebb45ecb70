//! Rows are deleted by a clock that is trusted.

use std::time::Duration;

use ess::event::Source;
use ess::store::RetentionClock;

use crate::support::block_on;
use crate::support::stores::{number, open, stores};

#[test]
fn a_clock_that_is_far_ahead_is_trusted_after_an_hour() {
    const YEAR: i64 = 365 * 86_400 * 1_000_000;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let (now, moment) = (1_790_000_000_000_000_i64, std::time::Instant::now());
            let later = |seconds: u64| moment + Duration::from_secs(seconds);
            let mut clock = RetentionClock::default();
            let mut check =
                async |micros: i64, seconds: u64| clock.check(&store, micros, later(seconds)).await.unwrap();
            assert_eq!(check(now, 0).await, Some(now), "nothing is stored");
            assert_eq!(check(now + 60_000_000, 60).await, Some(now + 60_000_000));
            assert_eq!(check(now + 10 * YEAR, 120).await, None, "it jumped");
            assert_eq!(check(now + 10 * YEAR + 600_000_000, 720).await, None, "not for an hour");
            assert_eq!(check(now + 800_000_000, 800).await, Some(now + 800_000_000), "it came back");
            assert_eq!(check(now + YEAR, 900).await, None);
            assert_eq!(check(now + 2 * YEAR, 4_900).await, None, "uneven");
            let settled = now + 2 * YEAR + 3_700_000_000;
            assert_eq!(check(settled, 8_600).await, Some(settled), "for an hour");
            // By that clock rows have left; a right one takes that back.
            store.expire_rows(Source::FACEBOOK, settled).await.unwrap();
            let retained = "SELECT max(from_minute) FROM retained";
            assert!(number(&store, retained).await > (now + YEAR) / 60_000_000);
            assert_eq!(check(now + 9_000_000_000, 9_000).await, Some(now + 9_000_000_000));
            assert_eq!(number(&store, retained).await, (now + 9_000_000_000) / 60_000_000 + 1);
        });
    }
}
