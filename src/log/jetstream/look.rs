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
