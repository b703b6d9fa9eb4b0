//! stub
pub(crate) mod config;
use observer_chassis::ConfigArgs;
/// Starts everything.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Start simulated games as well
    #[arg(long)]
    demo: bool,
}
pub(crate) async fn run(_args: &ServeArgs) -> anyhow::Result<()> {
    Ok(())
}
