//! The bus between processes: messages that may be lost.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Messages that wait for a slow receiver within one process; older ones are dropped.
const LOCAL_BOUND: usize = 1_024;
/// Longest wait until the client of NATS takes a message; a client that is not connected fills up.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(200);

/// Subject of messages on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A process tells of itself.
    Status,
    /// A reporter asks for samples.
    Lease,
    /// An event as a gateway validated it.
    Sample,
    /// A reporter asks a process to restart an actor.
    Restart,
}

impl Subject {
    /// The subject's name in NATS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "ess.fleet.status",
            Self::Lease => "ess.fleet.lease",
            Self::Sample => "ess.fleet.sample",
            Self::Restart => "ess.fleet.restart",
        }
    }
}

/// The channel of services that share a process.
#[derive(Debug, Clone)]
pub struct LocalBus(broadcast::Sender<(Subject, Bytes)>);

impl Default for LocalBus {
    fn default() -> Self {
        Self(broadcast::channel(LOCAL_BOUND).0)
    }
}

/// Carries messages between the processes of a system, or between the services of one process.
#[derive(Clone)]
pub enum Bus {
    /// Services of one process.
    Local(Arc<LocalBus>),
    /// Plain subjects of NATS.
    Nats(Client),
}

impl Bus {
    /// A bus of this process alone.
    pub fn local() -> Self {
        Self::Local(Arc::default())
    }

    /// Sends a message to all who listen at this moment. A message that cannot be sent is lost.
    pub async fn publish(&self, subject: Subject, message: Bytes) {
        match self {
            // The error says that nobody listens.
            Self::Local(bus) => drop(bus.0.send((subject, message))),
            Self::Nats(client) => {
                let sent =
                    tokio::time::timeout(PUBLISH_TIMEOUT, client.publish(subject.as_str(), message)).await;
                match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, subject = subject.as_str(), "a message was not sent")
                    }
                    Err(_) => {
                        tracing::debug!(subject = subject.as_str(), "a message was not sent: NATS is away")
                    }
                }
            }
        }
    }

    /// Messages of a subject from now on. The stream ends if the subscription does.
    pub async fn subscribe(&self, subject: Subject) -> BoxStream<'static, Bytes> {
        match self {
            Self::Local(bus) => {
                let receiver = bus.0.subscribe();
                Box::pin(futures::stream::unfold(receiver, move |mut receiver| async move {
                    loop {
                        match receiver.recv().await {
                            Ok((of, message)) if of == subject => return Some((message, receiver)),
                            // A slow receiver goes on with the oldest message that is left.
                            Ok(_) | Err(RecvError::Lagged(_)) => {}
                            Err(RecvError::Closed) => return None,
                        }
                    }
                }))
            }
            Self::Nats(client) => match client.subscribe(subject.as_str()).await {
                Ok(messages) => Box::pin(messages.map(|message| message.payload)),
                Err(error) => {
                    tracing::debug!(%error, subject = subject.as_str(), "not subscribed");
                    Box::pin(futures::stream::empty())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_message_reaches_each_listener_of_its_subject_and_no_other() {
        let bus = Bus::local();
        let mut first = bus.subscribe(Subject::Status).await;
        let mut second = bus.subscribe(Subject::Status).await;
        let mut other = bus.subscribe(Subject::Lease).await;
        bus.publish(Subject::Status, Bytes::from_static(b"one")).await;
        bus.publish(Subject::Lease, Bytes::from_static(b"two")).await;
        assert_eq!(first.next().await.unwrap(), "one");
        assert_eq!(second.next().await.unwrap(), "one");
        assert_eq!(other.next().await.unwrap(), "two");
    }

    #[actix::test]
    async fn a_slow_listener_loses_the_oldest_messages_and_goes_on() {
        let bus = Bus::local();
        let mut slow = bus.subscribe(Subject::Sample).await;
        for number in 0..LOCAL_BOUND * 2 {
            bus.publish(Subject::Sample, Bytes::from(number.to_string())).await;
        }
        assert_eq!(slow.next().await.unwrap(), LOCAL_BOUND.to_string());
    }
}
