//! Looks at the server that callers share: one request at a time for each thing, none of them under a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::StreamExt;
use futures::future::{BoxFuture, Shared};
use futures::stream::FuturesUnordered;

use super::away;
use crate::log::LogError;

/// Time until a question is put again while its first answer is outstanding: a server that has no leader for a
/// stream drops what it is asked about it.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Longest duration of one look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

type Answer<T> = Result<(T, Instant), LogError>;

/// A value that the server knows, asked for once for each connection.
pub(super) struct Look<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The last answer, and the connection and the time at which it came.
    known: Option<(u64, T, Instant)>,
    /// The look that runs, and its connection.
    running: Option<(u64, Shared<BoxFuture<'static, Answer<T>>>)>,
}

impl<T> Default for Look<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { known: None, running: None }) }
    }
}

impl<T: Clone + Send + Sync + 'static> Look<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value as of this connection, and not older than `since`; `ask` asks the server for it. Callers that come
    /// meanwhile wait for the same answer. It runs on when its caller gives up, for [`LOOK_TIMEOUT`] at most.
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
                    let work = tokio::spawn(tokio::time::timeout(LOOK_TIMEOUT, ask()));
                    let running = async move {
                        match work.await {
                            Ok(Ok(answer)) => answer.map(|value| (value, began)),
                            Ok(Err(_)) => Err(away(format!("no answer within {LOOK_TIMEOUT:?}"))),
                            Err(error) => Err(away(error)),
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

    /// Drops the last answer, so that the next caller asks anew.
    pub fn forget(&self) {
        self.state().known = None;
    }
}

/// Puts a question every [`ASK_AGAIN`] until one of the answers says something definite. The caller bounds the
/// time; `T` is the answer, an error may pass.
pub(super) async fn persist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, LogError>
where
    F: Future<Output = Result<T, LogError>>,
{
    let ends = tokio::time::sleep(LOOK_TIMEOUT - ASK_AGAIN);
    tokio::pin!(ends);
    let mut again = tokio::time::interval(ASK_AGAIN);
    let mut asked = FuturesUnordered::new();
    let mut last = format!("no answer within {LOOK_TIMEOUT:?}");
    loop {
        tokio::select! {
            _ = again.tick() => asked.push(ask()),
            Some(answer) = asked.next() => match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error.to_string(),
            },
            () = &mut ends => return Err(away(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;

    use super::*;

    /// Answers after a while; counts how often it is asked.
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
    async fn callers_share_one_look_and_its_answer_counts_for_the_connection() {
        let (look, asked) = (Look::default(), Arc::new(AtomicU64::new(0)));
        // One that gives up at once leaves the look to the others.
        let hasty = tokio::time::timeout(Duration::from_millis(5), look.get(1, None, slow(&asked))).await;
        assert!(hasty.is_err());
        let all = join_all((0..100).map(|_| look.get(1, None, slow(&asked)))).await;
        assert!(all.iter().all(|answer| *answer == Ok(1)), "{all:?}");
        assert_eq!(look.get(1, None, slow(&asked)).await, Ok(1));
        assert_eq!(look.get(2, None, slow(&asked)).await, Ok(2), "another connection looks anew");
        assert_eq!(look.get(2, Some(Instant::now()), slow(&asked)).await, Ok(3), "what is known is too old");
        look.forget();
        assert_eq!(look.get(2, None, slow(&asked)).await, Ok(4));
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_failed_look_is_not_remembered() {
        let look = Look::default();
        let failed = look.get(1, None, || async { Err::<u64, _>(away("gone")) }).await;
        assert!(failed.is_err());
        assert_eq!(look.get(1, None, || async { Ok(7) }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_question_that_is_not_answered_is_put_again() {
        let asked = AtomicU64::new(0);
        let answer = persist(|| {
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
