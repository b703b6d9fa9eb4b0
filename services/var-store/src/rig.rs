//! What tests of this crate share: the service over the bus in process and SQLite.

use std::sync::Arc;
use std::time::Duration;

use observer_bus::{Bus, BusConfig, Durable};
use observer_chassis::{BoxError, Shutdown};
use observer_store::{StoreConfig, VarStore};
use observer_wire::Limits;
use observer_wire::ask::{EditAsk, EditInput, VarsAnswer};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{Context, applier, commit};

/// The project of every test.
pub(crate) const PROJECT: &str = "0123456789ab";

/// A var-store that applies edits, with its files.
pub(crate) struct Rig {
    pub(crate) context: Arc<Context>,
    shutdown: Shutdown,
    applier: JoinHandle<Result<(), BoxError>>,
    _folder: TempDir,
}

impl Rig {
    pub(crate) async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
        let store: Arc<dyn VarStore> = observer_store::connect_vars(&config).await.unwrap();
        let bus = observer_bus::connect(&BusConfig::default(), folder.path()).await.unwrap();
        Self::over(bus, store, limits, folder).await
    }

    async fn over(
        bus: Arc<dyn Bus>,
        store: Arc<dyn VarStore>,
        limits: Limits,
        folder: TempDir,
    ) -> Self {
        let edits = bus.consume(Durable::EditApplier).await.unwrap();
        let context = Arc::new(Context::new(limits, bus, store));
        let shutdown = Shutdown::new(Duration::from_secs(5));
        #[expect(clippy::disallowed_methods, reason = "it is joined at the end of the test")]
        let applier = tokio::spawn(applier::apply(Arc::clone(&context), edits, shutdown.clone()));
        Self { context, shutdown, applier, _folder: folder }
    }

    pub(crate) async fn edit(&self, ask: EditAsk) -> VarsAnswer {
        commit::edit(&self.context, ask).await
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.applier.await.unwrap().unwrap();
    }
}

/// An edit as an operator asks for it.
pub(crate) fn ask(edits: Vec<EditInput>) -> EditAsk {
    EditAsk {
        project: PROJECT.parse().unwrap(),
        edit_id: format!("{:?}", std::time::Instant::now()),
        actor: "anna".into(),
        note: None,
        if_revision: None,
        edits,
        raw: None,
    }
}

/// One change.
pub(crate) fn set(name: &str, kind: Option<&str>, value: &str) -> EditInput {
    EditInput {
        name: name.into(),
        kind: kind.map(Into::into),
        value: Some(value.into()),
        scope: observer_wire::edit::Scope::All,
        unset: false,
    }
}
