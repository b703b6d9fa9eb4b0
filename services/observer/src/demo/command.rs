//! `observer demo`: simulated games on the command line, against any game port.

use std::num::NonZeroUsize;

use observer_chassis::{Shutdown, WrongUsage};
use observer_wire::ApiKey;

use super::{Audience, DEVICES_MAX, DemoConfig, RATE_MAX};
use crate::device::socket::Target;
use crate::ready::Ready;
use crate::terminal;

/// Plays simulated games.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Games to play at once
    #[arg(long, value_name = "N", default_value = "3")]
    devices: NonZeroUsize,
    /// Game port [default: that of the `observer serve` that runs here]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Key to sign in with [default: that of the `observer serve` that runs here]
    #[arg(long)]
    key: Option<ApiKey>,
    /// Log records of each game, per second
    #[arg(long, value_name = "RECORDS", default_value_t = 1.0)]
    rate: f64,
}

/// Plays until shutdown is requested.
pub(crate) async fn run(args: &DemoArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    if DEVICES_MAX < args.devices.get() {
        return Err(WrongUsage(format!("--devices: at most {DEVICES_MAX}")).into());
    }
    if !(0.0 < args.rate && args.rate <= RATE_MAX) {
        return Err(WrongUsage(format!("--rate: above 0, at most {RATE_MAX}")).into());
    }
    let target = target(args.address.as_deref(), args.key)?;
    let (count, address, key) = (args.devices, &target.address, target.key.as_str());
    terminal::line(&format!("{count} games play at {address} with key {key}; Ctrl-C ends them"))?;
    let config = DemoConfig { devices: args.devices, rate: args.rate };
    super::run(&config, &target, Audience::Terminal, shutdown)
        .await
        .map_err(anyhow::Error::from_boxed)
}

/// Where to connect: what was given, the rest from the `observer serve` that runs here.
pub(crate) fn target(address: Option<&str>, key: Option<ApiKey>) -> anyhow::Result<Target> {
    if let (Some(address), Some(key)) = (address, key) {
        return Ok(Target { address: address.to_owned(), key });
    }
    let ready = Ready::expect(if key.is_none() { "key" } else { "address" })?;
    let address = address.map_or(ready.game, str::to_owned);
    Ok(Target { address, key: key.map_or_else(|| ready.key.parse(), Ok)? })
}
