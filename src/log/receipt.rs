//! The duty to say what became of a delivery.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use super::LogError;

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is done with: the log may forget it.
    Ack,
    /// It comes again, after this time.
    Retry(Duration),
}

/// An adapter's side of a receipt.
pub trait Token: Send + Sync {
    /// Settles, and waits until the log has confirmed it.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>>;

    /// Says that the work goes on, so that the delivery is not given to another consumer.
    fn progress(&self) -> BoxFuture<'static, Result<(), LogError>>;

    /// Asks for another delivery, without waiting.
    fn abandon(&self);
}

/// Travels with the frame that it belongs to. Dropping it unsettled asks for another delivery.
#[must_use = "dropping a receipt asks for another delivery"]
pub struct Receipt(Option<Box<dyn Token>>);

impl Receipt {
    /// A receipt of an adapter.
    pub fn new(token: Box<dyn Token>) -> Self {
        Self(Some(token))
    }

    /// The frame is done with. On an error the log may deliver it again.
    pub async fn ack(mut self) -> Result<(), LogError> {
        self.settle(Settlement::Ack).await
    }

    /// The frame shall come again after `delay`.
    pub async fn retry(mut self, delay: Duration) -> Result<(), LogError> {
        self.settle(Settlement::Retry(delay)).await
    }

    /// The frame is still being worked on.
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
