//! Which sockets a worker has, and which of them belong to a project. Coming and going cost the same
//! however many there are.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use observer_wire::ProjectId;

use crate::documents::Project;
use crate::socket::Socket;

/// Which place of a socket a list keeps.
const OF_WORKER: usize = 0;
const OF_PROJECT: usize = 1;

/// The sockets of one worker.
#[derive(Default)]
pub(crate) struct Registry {
    all: Vec<Rc<Socket>>,
    projects: HashMap<ProjectId, ProjectSockets>,
}

/// The sockets of one project, on one worker.
pub(crate) struct ProjectSockets {
    /// Its document.
    pub(crate) project: Arc<Project>,
    /// Never empty.
    pub(crate) sockets: Vec<Rc<Socket>>,
}

impl Registry {
    /// A socket connected.
    pub(crate) fn add(&mut self, socket: &Rc<Socket>) {
        push(&mut self.all, socket, OF_WORKER);
    }

    /// A socket signed in.
    pub(crate) fn sign_in(&mut self, socket: &Rc<Socket>, project: &Arc<Project>) {
        let of_project = self.projects.entry(project.id).or_insert_with(|| ProjectSockets {
            project: Arc::clone(project),
            sockets: Vec::new(),
        });
        push(&mut of_project.sockets, socket, OF_PROJECT);
    }

    /// A socket ended.
    pub(crate) fn remove(&mut self, socket: &Socket) {
        swap_out(&mut self.all, socket, OF_WORKER);
        let Some(signed_in) = socket.signed_in() else { return };
        if let Entry::Occupied(mut entry) = self.projects.entry(signed_in.project.id) {
            swap_out(&mut entry.get_mut().sockets, socket, OF_PROJECT);
            if entry.get().sockets.is_empty() {
                entry.remove();
            }
        }
    }

    /// All sockets.
    pub(crate) fn all(&self) -> &[Rc<Socket>] {
        &self.all
    }

    /// The sockets that signed in with a key of `project`.
    pub(crate) fn of(&self, project: ProjectId) -> Option<&ProjectSockets> {
        self.projects.get(&project)
    }

    /// Every project with a socket.
    pub(crate) fn projects(&self) -> impl Iterator<Item = &ProjectSockets> {
        self.projects.values()
    }
}

fn push(list: &mut Vec<Rc<Socket>>, socket: &Rc<Socket>, which: usize) {
    socket.places[which].set(list.len());
    list.push(Rc::clone(socket));
}

fn swap_out(list: &mut Vec<Rc<Socket>>, socket: &Socket, which: usize) {
    let place: &Cell<usize> = &socket.places[which];
    let at = place.get();
    if !list.get(at).is_some_and(|listed| std::ptr::eq(Rc::as_ptr(listed), socket)) {
        return; // Never listed.
    }
    list.swap_remove(at);
    if let Some(moved) = list.get(at) {
        moved.places[which].set(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Numbers;
    use crate::slots::Slots;
    use crate::socket::SignedIn;

    #[test]
    fn a_socket_that_ends_takes_nobody_with_it() {
        let mut registry = Registry::default();
        let project = Arc::new(Project::new("0123456789ab".parse().unwrap()));
        let numbers = Arc::new(Numbers::new());
        let slots = Slots::new(10);
        let sockets: Vec<_> =
            (0..4).map(|random| Rc::new(Socket::new(random, 10, Arc::clone(&numbers)))).collect();
        for socket in &sockets {
            registry.add(socket);
        }
        for socket in &sockets[1..] {
            let key = "0123456789ab".parse().unwrap();
            let project = Arc::clone(&project);
            let slot = slots.take(key).unwrap();
            let (epoch, rates) = (Cell::new(1), Arc::default());
            socket.sign_in(SignedIn { key, project, epoch, rates, _slot: slot });
            registry.sign_in(socket, &socket.signed_in().unwrap().project);
        }
        for at in [1, 0, 3, 2] {
            registry.remove(&sockets[at]);
            registry.remove(&sockets[at]);
            assert!(registry.all().iter().all(|left| left.random != sockets[at].random));
        }
        assert!(registry.all().is_empty());
        assert!(registry.of(project.id).is_none());
    }
}
