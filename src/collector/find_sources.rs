//! The task that adds sources for which the log has a topic.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Collector, Selection};
use crate::event::Source;
use crate::runtime::Node;

/// Interval at which the log is asked for its topics.
const INTERVAL: Duration = Duration::from_secs(3);

/// Asks the log for topics again and again, and starts sources that are new.
pub(super) async fn find_sources(collector: Weak<Collector>, selection: Selection, node: Arc<Node>) {
    let mut is_refused = false;
    loop {
        // The collector lives as long as its service.
        let Some(collector) = collector.upgrade() else { return std::future::pending().await };
        if collector.drain.draining() {
            return collector.drain.started().await;
        }
        match collector.log.topics().await {
            Ok(names) => {
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
            Err(error) => tracing::debug!(%error, "the log's topics are not known now"),
        }
        drop(collector);
        node.count_handled();
        tokio::time::sleep(INTERVAL).await;
    }
}
