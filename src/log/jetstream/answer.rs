//! JetStream's answers to a published frame.

use async_nats::jetstream::ErrorCode;
use serde::Deserialize;
use uuid::Uuid;

use super::request::not_appended;
use crate::log::{AppendError, Appended};

/// Errors that are permanent for a message. Others are temporary, and the frame is sent again with its id.
const NEVER_STORED: [ErrorCode; 3] = [
    ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
    ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
    ErrorCode::STREAM_SEALED,
];

/// A publish acknowledgement or an error, as the server writes it.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Fault {
    fn is(&self, code: ErrorCode) -> bool {
        self.err_code == code.0
    }

    fn is_full(&self) -> bool {
        self.is(ErrorCode::STREAM_STORE_FAILED) && self.description.contains("exceeded")
    }
}

/// Reads the answer to a frame that was published to `stream`.
///
/// Only an answer that names the stream and a sequence over 0 acknowledges the frame. A cluster of NATS 2.10 answers
/// a repeated message that is still being stored with `"seq":0` and no error; 2.11 and later with error 10158.
pub(super) fn read(payload: &[u8], stream: &str, log_id: Uuid) -> Result<Appended, AppendError> {
    let answer: Answer = serde_json::from_slice(payload).map_err(not_appended)?;
    match answer.error {
        Some(error) if error.is_full() => Err(AppendError::Full(error.description)),
        Some(error) if NEVER_STORED.iter().any(|code| error.is(*code)) => {
            Err(AppendError::Refused(error.description.into()))
        }
        Some(error) => Err(not_appended(format!("{} (error {})", error.description, error.err_code))),
        None if answer.stream == stream && answer.seq > 0 => {
            Ok(Appended { sequence: answer.seq, duplicate: answer.duplicate, log_id })
        }
        None => Err(not_appended(format!(
            "an acknowledgement without a sequence in {stream}: {}",
            String::from_utf8_lossy(payload.get(..payload.len().min(200)).unwrap_or_default())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Appended, AppendError> {
        read(text.as_bytes(), "ESS_FACEBOOK", Uuid::nil())
    }

    #[test]
    fn only_an_answer_with_the_stream_and_a_sequence_acknowledges() {
        let appended = answer(r#"{"stream":"ESS_FACEBOOK","seq":7,"duplicate":true}"#).unwrap();
        assert_eq!((appended.sequence, appended.duplicate), (7, true));
        for text in [
            "{}",
            "",
            r#"{"stream":"ESS_FACEBOOK","seq":0,"duplicate":true}"#,
            r#"{"seq":3}"#,
            r#"{"stream":"OTHER","seq":3}"#,
        ] {
            assert!(matches!(answer(text), Err(AppendError::Unavailable(_))), "{text}");
        }
    }

    #[test]
    fn temporary_full_and_permanent_errors_are_distinguished() {
        let error = |code: u64, err_code: u64, text: &str| {
            answer(&format!(
                r#"{{"stream":"ESS_FACEBOOK","seq":0,"error":{{"code":{code},"err_code":{err_code},"description":"{text}"}}}}"#
            ))
        };
        for (code, err_code) in [(409, 10158), (429, 10167), (400, 10039), (503, 10077), (503, 10008)] {
            let answer = error(code, err_code, "for the moment");
            assert!(matches!(answer, Err(AppendError::Unavailable(_))), "{err_code}: {answer:?}");
        }
        assert!(matches!(error(503, 10077, "maximum bytes exceeded"), Err(AppendError::Full(_))));
        assert!(matches!(
            error(400, 10054, "message size exceeds maximum allowed"),
            Err(AppendError::Refused(_))
        ));
    }
}
