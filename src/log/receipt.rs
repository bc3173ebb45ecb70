//! Receipts, which settle deliveries.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use super::LogError;

/// The outcome of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The frame is processed; the log may delete it.
    Ack,
    /// The log redelivers the frame after this delay.
    Retry(Duration),
}

/// The part of a receipt that each kind of log implements.
pub trait Token: Send + Sync {
    /// Settles the delivery, and waits for the log's confirmation.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>>;

    /// Extends the acknowledgement timeout, so that no other consumer gets the frame.
    fn progress(&self) -> BoxFuture<'static, Result<(), LogError>>;

    /// Requests redelivery without waiting for a confirmation.
    fn abandon(&self);
}

/// Settles a delivery; travels with its frame. Dropping an unsettled receipt requests redelivery.
#[must_use = "dropping a receipt requests redelivery"]
pub struct Receipt(Option<Box<dyn Token>>);

impl Receipt {
    /// A receipt that settles through `token`.
    pub fn new(token: Box<dyn Token>) -> Self {
        Self(Some(token))
    }

    /// Acknowledges the frame.
    ///
    /// # Errors
    ///
    /// If the log does not confirm it; it may then redeliver the frame.
    pub async fn ack(mut self) -> Result<(), LogError> {
        self.settle(Settlement::Ack).await
    }

    /// Requests redelivery after `delay`.
    ///
    /// # Errors
    ///
    /// If the log does not confirm it.
    pub async fn retry(mut self, delay: Duration) -> Result<(), LogError> {
        self.settle(Settlement::Retry(delay)).await
    }

    /// Reports that the frame is still being processed.
    pub fn progress(&self) -> BoxFuture<'static, Result<(), LogError>> {
        match &self.0 {
            Some(token) => token.progress(),
            None => Box::pin(async { Ok(()) }),
        }
    }

    async fn settle(&mut self, settlement: Settlement) -> Result<(), LogError> {
        let Some(token) = &self.0 else { return Ok(()) };
        token.settle(settlement).await?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(token) = self.0.take() {
            token.abandon();
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Receipt(open)" } else { "Receipt(settled)" })
    }
}
