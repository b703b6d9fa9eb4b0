//! The wanted document of each project that has sockets here, by revision: asked of var-store once,
//! kept up by edits, shared by all workers. Who is sent what is decided in [`crate::edits`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use observer_bus::{Bus, RequestError, Service};
use observer_wire::ProjectId;
use observer_wire::ask::{VarsAnswer, VarsAsk};
use observer_wire::edit::{Document, Edit};
use observer_wire::payload;

use crate::numbers::Numbers;
use crate::shed::Pressure;

/// Projects whose last socket went are forgotten when the list has grown this much since.
const SWEEP_EVERY: usize = 1024;

/// A revision, and the epoch in which it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) epoch: Arc<str>,
    pub(crate) rev: u64,
}

impl Stamp {
    /// Whether a document of this stamp is news to somebody who was sent `sent`.
    ///
    /// Epochs have no order: another one than the last is always news. Documents of an old epoch
    /// never replace one of a new epoch, see [`Project::adopt`].
    pub(crate) fn is_news_after(&self, sent: Option<&Self>) -> bool {
        sent.is_none_or(|sent| sent.epoch != self.epoch || sent.rev < self.rev)
    }

    /// Whether an edit of this stamp is the very next after `sent`.
    pub(crate) fn is_next_after(&self, sent: &Self) -> bool {
        // Before the first edit there is no epoch.
        sent.rev + 1 == self.rev && (sent.epoch == self.epoch || sent.rev == 0)
    }
}

/// A document as it is sent: its stamp, its JSON, and that in base64.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) stamp: Stamp,
    pub(crate) json: Bytes,
    pub(crate) payload: Bytes,
}

/// A project with at least one socket in this process.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) id: ProjectId,
    /// Bytes of its lines that wait for their outcome.
    pub(crate) waiting_bytes: AtomicUsize,
    /// How full the bus is for it, and what was shed.
    pub(crate) pressure: Pressure,
    /// A refresh is under way or about to be.
    pub(crate) refreshing: AtomicBool,
    state: Mutex<State>,
    /// Held while var-store is asked, so that it is asked once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// The newest edit that was heard and could not be applied.
    heard: Option<Stamp>,
}

#[derive(Debug)]
struct Known {
    document: Document,
    stamp: Stamp,
    /// JSON and base64, made when first needed after a change.
    payload: Option<(Bytes, Bytes)>,
}

/// What became of an edit that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The document has it now, or had it already.
    Yes,
    /// Something before it is missing: ask for the document.
    Gap,
}

impl Project {
    pub(crate) fn new(id: ProjectId) -> Self {
        Self {
            id,
            waiting_bytes: AtomicUsize::new(0),
            pressure: Pressure::default(),
            refreshing: AtomicBool::new(false),
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The document, when it is known.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let mut state = self.lock();
        let known = state.known.as_mut()?;
        let (json, payload) = known.payload.get_or_insert_with(|| {
            let json = known.document.device_json();
            let payload = encode(&json);
            (json.into(), payload)
        });
        let (json, payload) = (json.clone(), payload.clone());
        Some(Wanted { stamp: known.stamp.clone(), json, payload })
    }

    /// Applies an edit if it is the next one.
    pub(crate) fn apply(&self, edit: &Edit, stamp: &Stamp) -> Applied {
        let mut state = self.lock();
        let State { known, heard } = &mut *state;
        if let Some(known) = known {
            if stamp.is_next_after(&known.stamp) {
                known.document.apply(edit);
                known.stamp = stamp.clone();
                known.payload = None;
                heard.take_if(|heard| heard.epoch == stamp.epoch && heard.rev <= stamp.rev);
                return Applied::Yes;
            }
            if stamp.epoch == known.stamp.epoch && stamp.rev <= known.stamp.rev {
                return Applied::Yes;
            }
        }
        if stamp.is_news_after(heard.as_ref()) {
            *heard = Some(stamp.clone());
        }
        Applied::Gap
    }

    /// Takes a document that var-store answered, unless a newer one of its epoch is known. Returns
    /// whether an edit was heard that it does not have yet.
    fn adopt(&self, document: Document) -> Applied {
        let mut state = self.lock();
        let stamp = Stamp { epoch: document.epoch.as_str().into(), rev: document.revision };
        if stamp.is_news_after(state.known.as_ref().map(|known| &known.stamp)) {
            state.known = Some(Known { document, stamp: stamp.clone(), payload: None });
        }
        match state.heard.take() {
            // Of another epoch: either of them may be the old one, so ask again before believing.
            Some(heard) if heard.epoch != stamp.epoch || stamp.rev < heard.rev => {
                state.heard = Some(heard);
                Applied::Gap
            }
            _ => Applied::Yes,
        }
    }

    /// Whether an edit was heard that the document does not have.
    pub(crate) fn is_behind(&self) -> bool {
        self.lock().heard.is_some()
    }

    /// Gives up on an edit that was heard: it is of an epoch that is over, or the next
    /// reconciliation brings it.
    pub(crate) fn stop_waiting(&self) {
        self.lock().heard = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

/// JSON as frames carry it.
pub(crate) fn encode(json: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(json.len().div_ceil(3) * 4);
    payload::encode(json, &mut text);
    text.into()
}

/// The projects that have sockets here.
#[derive(Default)]
pub(crate) struct Projects {
    list: Mutex<ProjectList>,
}

#[derive(Default)]
struct ProjectList {
    projects: HashMap<ProjectId, Weak<Project>>,
    sweep_at: usize,
}

impl Projects {
    /// The project, made if nobody has it yet.
    pub(crate) fn enter(&self, id: ProjectId) -> Arc<Project> {
        let mut list = self.lock();
        if let Some(project) = list.projects.get(&id).and_then(Weak::upgrade) {
            return project;
        }
        if list.sweep_at <= list.projects.len() {
            list.projects.retain(|_, project| project.strong_count() > 0);
            list.sweep_at = list.projects.len() + SWEEP_EVERY;
        }
        let project = Arc::new(Project::new(id));
        list.projects.insert(id, Arc::downgrade(&project));
        project
    }

    /// The project, if it has sockets.
    pub(crate) fn get(&self, id: ProjectId) -> Option<Arc<Project>> {
        self.lock().projects.get(&id)?.upgrade()
    }

    /// All projects with sockets.
    pub(crate) fn all(&self) -> Vec<Arc<Project>> {
        self.lock().projects.values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, ProjectList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDocument {
    /// Var-store did not answer. Ask again later.
    #[error("var-store did not answer")]
    Request(#[from] RequestError),
    /// Var-store cannot tell now, or says something else. Ask again later.
    #[error("var-store gave no document")]
    Answer,
    /// The document lacks an edit that is committed already. Ask again soon.
    #[error("var-store has not applied an edit yet")]
    Behind,
}

/// Asks var-store for documents.
pub(crate) struct Documents {
    bus: Arc<dyn Bus>,
    numbers: Arc<Numbers>,
}

impl Documents {
    pub(crate) fn new(bus: Arc<dyn Bus>, numbers: Arc<Numbers>) -> Self {
        Self { bus, numbers }
    }

    /// Makes sure that the project's document is known, asking var-store only if it is not.
    ///
    /// # Errors
    ///
    /// [`NoDocument`]: nothing is known yet.
    pub(crate) async fn know(&self, project: &Project) -> Result<(), NoDocument> {
        let _asking = project.asking.lock().await;
        if project.lock().known.is_some() {
            return Ok(());
        }
        self.ask(project).await
    }

    /// Asks var-store, whatever is known.
    ///
    /// # Errors
    ///
    /// [`NoDocument`]: what was known stays.
    pub(crate) async fn refresh(&self, project: &Project) -> Result<(), NoDocument> {
        let _asking = project.asking.lock().await;
        self.ask(project).await
    }

    async fn ask(&self, project: &Project) -> Result<(), NoDocument> {
        self.numbers.documents_asked.increment(1);
        let ask = serde_json::to_vec(&VarsAsk::Document { project: project.id })
            .expect("a plain enum always serialises");
        let answer = self.bus.request(Service::Vars, Bytes::from(ask)).await?;
        let Ok(VarsAnswer::Document(document)) = serde_json::from_slice(&answer) else {
            return Err(NoDocument::Answer);
        };
        match project.adopt(document) {
            Applied::Yes => Ok(()),
            Applied::Gap => Err(NoDocument::Behind),
        }
    }
}

#[cfg(test)]
mod tests {
    use observer_wire::edit::{Change, EDIT_VERSION, Scope, TypedValue};

    use super::*;

    fn stamp(epoch: &str, rev: u64) -> Stamp {
        Stamp { epoch: epoch.into(), rev }
    }

    fn edit(rev: u64) -> Edit {
        Edit {
            v: EDIT_VERSION,
            project: "0123456789ab".parse().unwrap(),
            epoch: "e".into(),
            rev,
            edit_id: String::new(),
            actor: String::new(),
            at: 0,
            note: None,
            changes: vec![Change {
                name: "a".into(),
                scope: Scope::All,
                set: Some(TypedValue { kind: "string".into(), value: rev.to_string() }),
            }],
            raw: None,
        }
    }

    fn document(rev: u64) -> Document {
        Document { revision: rev, epoch: "e".into(), wanted: Vec::new() }
    }

    fn known_rev(project: &Project) -> Option<u64> {
        project.wanted().map(|wanted| wanted.stamp.rev)
    }

    #[test]
    fn the_next_edit_is_applied_and_a_later_one_is_a_gap() {
        let project = Project::new("0123456789ab".parse().unwrap());
        assert_eq!(project.apply(&edit(3), &stamp("e", 3)), Applied::Gap);
        assert_eq!(project.adopt(document(2)), Applied::Gap, "edit 3 was heard before");
        assert_eq!(known_rev(&project), Some(2));
        assert_eq!(project.adopt(document(3)), Applied::Yes);
        assert_eq!(project.apply(&edit(4), &stamp("e", 4)), Applied::Yes);
        assert_eq!(project.apply(&edit(4), &stamp("e", 4)), Applied::Yes, "once is enough");
        assert_eq!(project.apply(&edit(6), &stamp("e", 6)), Applied::Gap);
        assert_eq!(known_rev(&project), Some(4));
    }

    #[test]
    fn a_document_never_goes_back_within_its_epoch() {
        let project = Project::new("0123456789ab".parse().unwrap());
        project.adopt(document(5));
        project.adopt(document(4));
        assert_eq!(known_rev(&project), Some(5));
        project.adopt(Document { epoch: "f".into(), ..document(1) });
        assert_eq!(known_rev(&project), Some(1));
    }

    #[test]
    fn the_first_edit_of_all_follows_nothing() {
        assert!(stamp("e", 1).is_next_after(&stamp("", 0)));
        assert!(!stamp("e", 2).is_next_after(&stamp("", 0)));
        assert!(!stamp("f", 3).is_next_after(&stamp("e", 2)));
    }

    #[test]
    fn a_payload_follows_its_document() {
        let project = Project::new("0123456789ab".parse().unwrap());
        project.adopt(document(0));
        let empty = project.wanted().unwrap().payload;
        project.apply(&edit(1), &stamp("e", 1));
        assert_ne!(project.wanted().unwrap().payload, empty);
    }

    #[test]
    fn projects_without_sockets_are_forgotten() {
        let projects = Projects::default();
        let id = "0123456789ab".parse().unwrap();
        let project = projects.enter(id);
        assert!(Arc::ptr_eq(&project, &projects.enter(id)));
        drop(project);
        assert!(projects.get(id).is_none());
        assert!(projects.all().is_empty());
    }
}
