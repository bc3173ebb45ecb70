//! Cached values of the server. Concurrent callers share one request, and no lock is held while it runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::StreamExt;
use futures::future::{BoxFuture, Shared};
use futures::stream::FuturesUnordered;

use super::request::unavailable;
use crate::log::LogError;

/// Time without an answer after which a request is repeated: servers drop requests about a stream without a leader.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Time limit of one lookup, with all its requests.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

type Answer<T> = Result<(T, Instant), LogError>;

/// A value of the server, requested once for each connection.
pub(super) struct Lookup<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Connection, value and time of the last answer.
    known: Option<(u64, T, Instant)>,
    /// Connection and future of the lookup in progress.
    running: Option<(u64, Shared<BoxFuture<'static, Answer<T>>>)>,
}

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { known: None, running: None }) }
    }
}

impl<T: Clone + Send + Sync + 'static> Lookup<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, read on this connection and not before `since`; `ask` requests it from the server. Concurrent callers
    /// wait for the same answer. A lookup continues if its caller gives up, for [`LOOKUP_TIMEOUT`] at most.
    pub async fn get<F>(
        &self,
        connection: u64,
        since: Option<Instant>,
        ask: impl FnOnce() -> F,
    ) -> Result<T, LogError>
    where
        F: Future<Output = Result<T, LogError>> + Send + 'static,
    {
        let running = {
            let mut state = self.state();
            if let Some((of, value, at)) = &state.known
                && *of == connection
                && since.is_none_or(|since| *at >= since)
            {
                return Ok(value.clone());
            }
            match &state.running {
                Some((of, running)) if *of == connection && running.peek().is_none() => running.clone(),
                _ => {
                    let began = Instant::now();
                    let work = tokio::spawn(tokio::time::timeout(LOOKUP_TIMEOUT, ask()));
                    let running = async move {
                        match work.await {
                            Ok(Ok(answer)) => answer.map(|value| (value, began)),
                            Ok(Err(_)) => Err(unavailable(format!("no answer within {LOOKUP_TIMEOUT:?}"))),
                            Err(error) => Err(unavailable(error)),
                        }
                    };
                    let running = running.boxed().shared();
                    state.running = Some((connection, running.clone()));
                    running
                }
            }
        };
        let (value, at) = running.await?;
        let mut state = self.state();
        if state.known.as_ref().is_none_or(|(of, _, known)| *of <= connection && *known <= at) {
            state.known = Some((connection, value.clone(), at));
        }
        Ok(value)
    }

    /// Drops the cached value, so that the next caller requests it again.
    pub fn forget(&self) {
        self.state().known = None;
    }
}

/// Repeats a request every [`RETRY_INTERVAL`] until one succeeds; returns the last error shortly before
/// [`LOOKUP_TIMEOUT`].
pub(super) async fn ask_until_answered<T, F>(mut ask: impl FnMut() -> F) -> Result<T, LogError>
where
    F: Future<Output = Result<T, LogError>>,
{
    let ends = tokio::time::sleep(LOOKUP_TIMEOUT - RETRY_INTERVAL);
    tokio::pin!(ends);
    let mut again = tokio::time::interval(RETRY_INTERVAL);
    let mut asked = FuturesUnordered::new();
    let mut last = format!("no answer within {LOOKUP_TIMEOUT:?}");
    loop {
        tokio::select! {
            _ = again.tick() => asked.push(ask()),
            Some(answer) = asked.next() => match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error.to_string(),
            },
            () = &mut ends => return Err(unavailable(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;

    use super::*;

    /// Answers after a while with the number of requests up to now.
    fn slow(asked: &Arc<AtomicU64>) -> impl FnOnce() -> BoxFuture<'static, Result<u64, LogError>> + use<> {
        let asked = asked.clone();
        move || {
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(number)
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn callers_share_one_lookup_and_its_value_is_valid_for_the_connection() {
        let (lookup, asked) = (Lookup::default(), Arc::new(AtomicU64::new(0)));
        // A caller that gives up does not end the lookup of the others.
        let hasty = tokio::time::timeout(Duration::from_millis(5), lookup.get(1, None, slow(&asked))).await;
        assert!(hasty.is_err());
        let all = join_all((0..100).map(|_| lookup.get(1, None, slow(&asked)))).await;
        assert!(all.iter().all(|answer| *answer == Ok(1)), "{all:?}");
        assert_eq!(lookup.get(1, None, slow(&asked)).await, Ok(1));
        assert_eq!(lookup.get(2, None, slow(&asked)).await, Ok(2), "another connection asks again");
        assert_eq!(
            lookup.get(2, Some(Instant::now()), slow(&asked)).await,
            Ok(3),
            "the cached value is too old"
        );
        lookup.forget();
        assert_eq!(lookup.get(2, None, slow(&asked)).await, Ok(4));
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_failed_lookup_is_not_cached() {
        let lookup = Lookup::default();
        let failed = lookup.get(1, None, || async { Err::<u64, _>(unavailable("gone")) }).await;
        assert!(failed.is_err());
        assert_eq!(lookup.get(1, None, || async { Ok(7) }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_request_without_an_answer_is_repeated() {
        let asked = AtomicU64::new(0);
        let answer = ask_until_answered(|| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        assert_eq!(answer.await, Ok(()));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
