//! What the services work with: the bus, and the stores. Which adapters they are, only settings say.

use std::future::Future;
use std::sync::Arc;

use observer_bus::Bus;
use observer_bus::config::BusType;
use observer_chassis::{Check, Readiness, Shutdown, connect_patiently};
use observer_store::config::{AccountsType, LogsType, VarsType};
use observer_store::{AccountStore, LogStore, VarStore};

use super::config::ServeConfig;

/// Bus and stores.
pub(super) struct Ports {
    /// The bus.
    pub(super) bus: Arc<dyn Bus>,
    /// Log records.
    pub(super) logs: Arc<dyn LogStore>,
    /// Variables.
    pub(super) vars: Arc<dyn VarStore>,
    /// Accounts and keys.
    pub(super) accounts: Arc<dyn AccountStore>,
}

/// Where a port leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Files of this process: they open now, or never will.
    Here,
    /// A server, which may come up later.
    Server,
}

/// Opens what is here and waits for servers; `None` when shutdown is requested first.
pub(super) async fn connect(
    config: &ServeConfig,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Ports>> {
    let store = &config.store;
    let here = |here| if here { Place::Here } else { Place::Server };
    let connecting = Connecting { readiness, shutdown };

    let place = here(config.bus.kind == BusType::InProcess);
    let open = || observer_bus::connect(&config.bus, &store.data_dir);
    let Some(bus) = connecting.open("bus", place, open).await? else { return Ok(None) };

    let place = here(store.logs.kind == LogsType::Sqlite);
    let open = || observer_store::connect_logs(store);
    let Some(logs) = connecting.open("log_store", place, open).await? else { return Ok(None) };

    let place = here(store.vars.kind == VarsType::Sqlite);
    let open = || observer_store::connect_vars(store);
    let Some(vars) = connecting.open("var_store", place, open).await? else { return Ok(None) };

    let place = here(store.accounts.kind == AccountsType::Sqlite);
    let open = || observer_store::connect_accounts(store);
    let Some(accounts) = connecting.open("account_store", place, open).await? else {
        return Ok(None);
    };
    Ok(Some(Ports { bus, logs, vars, accounts }))
}

struct Connecting<'a> {
    readiness: &'a Readiness,
    shutdown: &'a Shutdown,
}

impl Connecting<'_> {
    async fn open<T, E, F>(
        &self,
        name: &'static str,
        place: Place,
        mut open: impl FnMut() -> F,
    ) -> Result<Option<T>, E>
    where
        F: Future<Output = Result<T, E>>,
        E: std::error::Error,
    {
        // From here on its service says whether it works; until then the process is not ready.
        let check: Check = self.readiness.check(name);
        match place {
            Place::Here => open().await.map(Some),
            Place::Server => Ok(connect_patiently(&check, self.shutdown, open).await),
        }
    }
}
