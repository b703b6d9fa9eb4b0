//! The demo: simulated games that log, let their variables be edited, and come back when the
//! connection is lost. They speak to the game port over TCP like any game.
//!
//! [`game`] makes up what happens, [`random`] decides when; [`crate::device`] does the talking.

pub(crate) mod command;
mod game;
mod player;
mod random;

use std::num::NonZeroUsize;

use observer_chassis::{BoxError, Shutdown, Tasks};
use observer_wire::ApiKey;
use serde::{Deserialize, Serialize};

use crate::device::socket::Target;
use player::GamePlayer;
pub(crate) use player::RATE_MAX;

/// Key that `observer serve --demo` registers and prints: the same in every folder, so that the
/// lines of the documentation can be pasted as they are.
pub(crate) const DEMO_KEY: &str = "demo00000000";

/// Most simulated games of one process: each holds a socket, and the server allows 200 an address.
pub(crate) const DEVICES_MAX: usize = 200;

/// Settings of the demo: section `[demo]`, or `OBSERVER_DEMO__*` in the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DemoConfig {
    /// Games of `serve --demo`, at most 200.
    pub(crate) devices: NonZeroUsize,
    /// Log records of each, per second.
    pub(crate) rate: f64,
}

impl Default for DemoConfig {
    fn default() -> Self {
        // Enough to see that there are many, few enough to read along.
        Self { devices: NonZeroUsize::new(3).expect("three is not zero"), rate: 2.0 }
    }
}

/// The demo's key.
pub(crate) fn key() -> ApiKey {
    DEMO_KEY.parse().expect("the constant has twelve characters of the alphabet")
}

/// Who is told what happens to the games.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The person who started them.
    Terminal,
    /// The log of the process.
    Log,
}

/// Plays `config.devices` games until shutdown is requested.
///
/// # Errors
///
/// When a game ends of anything but a lost connection.
pub(crate) async fn run(
    config: &DemoConfig,
    target: &Target,
    audience: Audience,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let tasks = Tasks::new(shutdown.clone());
    for number in 1..=config.devices.get() {
        let mut player = GamePlayer::new(number, config.rate, target.key, audience)?;
        let (target, shutdown) = (target.clone(), shutdown.clone());
        tasks.spawn("demo", async move {
            crate::device::play::play(&mut player, &target, &shutdown).await
        });
    }
    tasks.finish().await?;
    Ok(())
}
