//! Restarts of actors in other processes, asked for by an operator who has shown the admin token.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::status::INSTANCE;
use crate::config::Secret;
use crate::log::{Bus, Subject};
use crate::runtime::{Command, Tree};

/// Seconds for which a request is valid: clocks of two machines may differ by less.
const VALID_FOR: u64 = 60;

/// A request to restart an actor. The proof is HMAC-SHA256 under `ESS_ADMIN_TOKEN`: who may send on the bus may not
/// thereby restart actors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restart {
    /// Host name and process id.
    instance: String,
    /// Name of the actor.
    actor: String,
    /// Time of the request, in seconds since 1970.
    at: u64,
    /// Proof, as hex.
    proof: String,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Key and message of a proof, before it is made or checked.
fn proof(token: &Secret, instance: &str, actor: &str, at: u64) -> Option<Hmac<Sha256>> {
    let mut proof = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
    proof.update(format!("ess restart\n{instance}\n{actor}\n{at}").as_bytes());
    Some(proof)
}

impl Restart {
    /// A request with its proof.
    pub fn new(token: &Secret, instance: String, actor: String) -> Option<Self> {
        let at = now();
        let proof = hex::encode(proof(token, &instance, &actor, at)?.finalize().into_bytes());
        Some(Self { instance, actor, at, proof })
    }

    fn is_valid(&self, token: &Secret, now: u64) -> bool {
        let Ok(shown) = hex::decode(&self.proof) else { return false };
        let proof = proof(token, &self.instance, &self.actor, self.at);
        now.abs_diff(self.at) <= VALID_FOR && proof.is_some_and(|proof| proof.verify_slice(&shown).is_ok())
    }
}

/// Carries out requests for this process's actors; `counted` is called for each.
pub async fn obey(bus: Bus, tree: Arc<Tree>, token: Option<Secret>, counted: impl Fn()) {
    let Some(token) = token else {
        // No request can be proven.
        return std::future::pending().await;
    };
    let mut requests = bus.subscribe(Subject::Restart).await;
    while let Some(request) = requests.next().await {
        let Ok(request) = serde_json::from_slice::<Restart>(&request) else { continue };
        if request.instance != *INSTANCE || !is_within(&request.actor, &tree.view().name) {
            continue;
        }
        counted();
        if !request.is_valid(&token, now()) {
            tracing::warn!(
                actor = request.actor,
                "a request to restart an actor was refused: its proof is wrong or old"
            );
        } else if tree.command(&request.actor, Command::Restart) {
            tracing::info!(actor = request.actor, "restart was asked for by the console");
        }
    }
}

/// True if an actor may be one of a service: its name begins with the service's.
fn is_within(actor: &str, service: &str) -> bool {
    actor.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_valid_with_its_own_proof_for_a_minute() {
        let token = Secret::from("an-admin-token".to_owned());
        let request = Restart::new(&token, "host-1".to_owned(), "gateway.ingest".to_owned()).unwrap();
        assert!(request.is_valid(&token, request.at) && request.is_valid(&token, request.at + VALID_FOR));
        assert!(!request.is_valid(&token, request.at + VALID_FOR + 1), "too old");
        assert!(!request.is_valid(&Secret::from("another".to_owned()), request.at));
        let other = Restart { actor: "gateway.publish.facebook".to_owned(), ..request.clone() };
        assert!(!other.is_valid(&token, request.at), "for another actor");
        let forged = Restart { proof: "00".repeat(32), ..request.clone() };
        assert!(!forged.is_valid(&token, request.at));
    }

    #[test]
    fn an_actors_service_is_told_by_its_name() {
        assert!(is_within("gateway.publish.facebook", "gateway"));
        assert!(is_within("collector.meta_leads.consume", "collector.meta_leads"));
        assert!(is_within("collector.meta_leads.consume", "collector"));
        assert!(!is_within("collector.meta_leads.consume", "collector.meta"));
        assert!(!is_within("gateway", "gateway.publish"));
    }
}
