//! The task that adds sources for which the log has a topic, and thereby finds out whether the log is there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Selection;
use super::shared::LOG;
use super::sources::Sources;
use crate::event::Source;
use crate::ops::Away;
use crate::runtime::Node;

/// Interval at which the log is asked for its topics.
const INTERVAL: Duration = Duration::from_secs(3);

/// Asks the log for topics again and again, and starts sources that are new.
pub(super) async fn find_sources(collector: Weak<Sources>, selection: Selection, node: Arc<Node>) {
    let mut is_refused = false;
    loop {
        // The collector lives as long as its service.
        let Some(collector) = collector.upgrade() else { return std::future::pending().await };
        let shared = &collector.shared;
        if shared.drain.draining() {
            return shared.drain.started().await;
        }
        match shared.log.topics().await {
            Ok(names) => {
                shared.readiness.report(LOG, Ok(()));
                for name in names {
                    match Source::declare(&name, "") {
                        Ok(source) if selection.wants(source) => collector.add(source),
                        Ok(_) => {}
                        Err(error) if is_refused => tracing::debug!(name, %error, "a topic is not collected"),
                        Err(error) => {
                            is_refused = true;
                            tracing::error!(name, %error, "a topic of the log is not collected");
                        }
                    }
                }
            }
            Err(error) => shared.readiness.report(LOG, Err(Away::because(error))),
        }
        drop(collector);
        node.count_handled();
        tokio::time::sleep(INTERVAL).await;
    }
}
