//! The limit of open files, against which connections are held.

/// Files that a process opens beside its connections: logs, databases, and what the runtime needs.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard one, and warns if `listeners` times `connections` do not fit in.
pub fn raise_open_files(listeners: usize, connections: usize) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => {
            if let Some(warning) = warning(limit, listeners as u64, connections as u64) {
                tracing::warn!("{warning}");
            }
        }
        Err(error) => tracing::warn!(%error, "the limit of open files was not raised"),
    }
}

fn warning(limit: u64, listeners: u64, connections: u64) -> Option<String> {
    let needed = listeners.saturating_mul(connections).saturating_add(RESERVE);
    (needed > limit).then(|| {
        format!(
            "{listeners} listeners with ESS_MAX_CONNECTIONS={connections} need {needed} open files, and this process \
             may open {limit}: raise its limit (ulimit -n, LimitNOFILE=, ulimits:) or lower ESS_MAX_CONNECTIONS"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_do_not_fit_are_warned_of() {
        assert_eq!(warning(20_000, 1, 10_000), None);
        assert!(warning(20_000, 4, 10_000).is_some_and(|text| text.contains("40256")));
    }
}
