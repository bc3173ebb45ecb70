//! Snapshots of streams through JetStream's API, as `nats stream backup` and `nats stream restore` make them.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A stream with its messages and consumers.
pub struct Snapshot {
    stream: String,
    /// Configuration and state of the stream, as the server describes them.
    described: Value,
    chunks: Vec<Bytes>,
}

impl Snapshot {
    /// Bytes of the snapshot, which is compressed.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

async fn ask(client: &async_nats::Client, subject: String, request: &Value) -> Value {
    let request = async_nats::Request::new().payload(request.to_string().into()).timeout(Some(TIMEOUT));
    let answer = client.send_request(subject, request).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_null(), "{answer}");
    answer
}

/// Takes a snapshot of a stream while it is in use.
pub async fn take(url: &str, stream: &str) -> Snapshot {
    let client = async_nats::connect(url).await.unwrap();
    let inbox = client.new_inbox();
    let mut arriving = client.subscribe(inbox.clone()).await.unwrap();
    let request = json!({"deliver_subject": inbox, "chunk_size": 128 << 10});
    let described = ask(&client, format!("$JS.API.STREAM.SNAPSHOT.{stream}"), &request).await;
    let mut chunks = Vec::new();
    loop {
        let chunk = tokio::time::timeout(TIMEOUT, arriving.next()).await.unwrap().unwrap();
        // The last message is empty.
        if chunk.payload.is_empty() {
            break;
        }
        chunks.push(chunk.payload);
        if let Some(reply) = chunk.reply {
            client.publish(reply, Bytes::new()).await.unwrap();
        }
    }
    Snapshot { stream: stream.to_owned(), described, chunks }
}

/// Restores a snapshot on a server that has no such stream.
pub async fn restore(url: &str, snapshot: &Snapshot) {
    let client = async_nats::connect(url).await.unwrap();
    let Snapshot { stream, described, chunks } = snapshot;
    let request = json!({"config": described["config"], "state": described["state"]});
    let answer = ask(&client, format!("$JS.API.STREAM.RESTORE.{stream}"), &request).await;
    let to = answer["deliver_subject"].as_str().unwrap().to_owned();
    for chunk in chunks {
        let request = async_nats::Request::new().payload(chunk.clone()).timeout(Some(TIMEOUT));
        client.send_request(to.clone(), request).await.unwrap();
    }
    let request = async_nats::Request::new().payload(Bytes::new()).timeout(Some(TIMEOUT));
    let done = client.send_request(to, request).await.unwrap();
    let done: Value = serde_json::from_slice(&done.payload).unwrap();
    assert!(done["error"].is_null(), "{done}");
}
