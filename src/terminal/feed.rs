//! Messages of a reporter's live feed, read from Server-Sent Events.

use serde::Deserialize;

use crate::fleet::{Flow, Sample};

/// Largest message that is kept, in bytes; a larger one is skipped. A sample carries at most 8 KiB of its event.
const MAX_MESSAGE: usize = 256 * 1_024;

/// A message of the feed.
#[derive(Debug)]
pub enum FeedMessage {
    /// Rates of each source, once a second.
    Flow(Flow),
    /// An event as it was validated.
    Sample(Box<Sample>),
    /// Number of samples that were left out for this viewer.
    Missed(u64),
}

#[derive(Deserialize)]
struct Missed {
    samples: u64,
}

impl FeedMessage {
    /// The message with this name; `None` if the name is unknown or the text cannot be read: a newer reporter may say
    /// more.
    fn read(name: &str, data: &str) -> Option<Self> {
        let read = match name {
            "flow" => serde_json::from_str(data).map(Self::Flow),
            "sample" => serde_json::from_str(data).map(|sample| Self::Sample(Box::new(sample))),
            "missed" => serde_json::from_str(data).map(|Missed { samples }| Self::Missed(samples)),
            _ => return None,
        };
        read.inspect_err(|error| tracing::debug!(%error, name, "a message of the feed was not readable")).ok()
    }
}

/// Reader of Server-Sent Events (WHATWG HTML, 9.2.6), whose lines may arrive in pieces.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
    /// True while the rest of a message that is too large is skipped.
    skips: bool,
}

impl Parser {
    /// Reads bytes; returns the messages that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<FeedMessage> {
        let mut messages = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + piece.len() > MAX_MESSAGE {
                self.line.clear();
                self.data.clear();
                self.skips = true;
            }
            self.line.extend_from_slice(&piece[..piece.len().min(MAX_MESSAGE)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                messages.extend(self.line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r'])));
            }
        }
        messages
    }

    fn line(&mut self, line: &str) -> Option<FeedMessage> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let skipped = std::mem::take(&mut self.skips);
            return if skipped { None } else { FeedMessage::read(&name, &data) };
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" if !self.skips => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(messages: &[FeedMessage]) -> Vec<u64> {
        let number = |message: &FeedMessage| match message {
            FeedMessage::Missed(samples) => *samples,
            other => panic!("{other:?}"),
        };
        messages.iter().map(number).collect()
    }

    #[test]
    fn messages_arrive_in_pieces_of_any_size() {
        let text = b": comment\r\nevent: missed\r\ndata: {\"samples\":\ndata:1}\r\n\r\nevent: other\ndata: 7\n\nevent: missed\ndata: {\"samples\":2}\n\n";
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let messages: Vec<_> = text.chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(missed(&messages), [1, 2], "pieces of {size}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_skipped_without_being_kept() {
        let mut parser = Parser::default();
        assert!(parser.push(b"event: missed\ndata: ").is_empty());
        for _ in 0..100 {
            assert!(parser.push(&[b' '; 10_000]).is_empty());
            assert!(parser.line.len() + parser.data.len() <= MAX_MESSAGE);
        }
        assert!(parser.push(b"{\"samples\":1}\n\n").is_empty());
        assert_eq!(missed(&parser.push(b"event: missed\ndata: {\"samples\":2}\n\n")), [2]);
    }

    #[test]
    fn a_flow_of_a_newer_reporter_is_read_as_far_as_it_is_known() {
        let flow = br#"event: flow
data: {"at":"2026-01-31T12:00:00Z","sources":[{"source":"x","received":2.5,"accepted":2.5,"refused":0,"logged":2,"stored":2,"duplicates":0,"inFlight":null,"later":1}],"postToRow":null,"more":[]}

"#;
        let messages = Parser::default().push(flow);
        let [FeedMessage::Flow(flow)] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((flow.sources[0].received, flow.sources[0].in_flight), (2.5, None));
    }
}
