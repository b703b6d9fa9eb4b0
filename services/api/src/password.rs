//! Passwords become hashes: argon2id, two at once, as each takes 19 MiB and a processor.

use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::problem::ApiError;

/// Memory of a hash in KiB, its passes, and its lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Hashes computed at once.
const AT_ONCE: usize = 2;

/// Requests that wait for their turn, beside those in work. Each takes some 50 ms.
const WAITING_MAX: usize = 32;

/// Computes hashes, a few at once.
pub(crate) struct Hasher {
    room: Semaphore,
    turns: Semaphore,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self { room: Semaphore::new(AT_ONCE + WAITING_MAX), turns: Semaphore::new(AT_ONCE) }
    }

    /// The hash of a password, as a PHC string with a fresh salt.
    ///
    /// # Errors
    ///
    /// [`ApiError::Busy`] when too many wait already.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        let _room = self
            .room
            .try_acquire()
            .map_err(|_| ApiError::Busy("too many accounts are being made".into()))?;
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let hashed = tokio::task::spawn_blocking(move || hash(&password)).await;
        hashed.unwrap_or(Err(ApiError::Internal("a password could not be hashed")))
    }
}

fn hash(password: &str) -> Result<String, ApiError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).expect("the cost is within its bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| ApiError::Internal("a password could not be hashed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_hashed_with_argon2id_and_a_salt_of_its_own() {
        let hasher = Hasher::new();
        let first = hasher.hash("secret".into()).await.unwrap();
        let second = hasher.hash("secret".into()).await.unwrap();
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_told_at_once() {
        let hasher = Hasher::new();
        let all = u32::try_from(AT_ONCE + WAITING_MAX).unwrap();
        let _others = hasher.room.acquire_many(all).await.unwrap();
        assert!(matches!(hasher.hash("x".into()).await, Err(ApiError::Busy(_))));
    }
}
