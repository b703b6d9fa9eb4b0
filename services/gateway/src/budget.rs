//! The bytes of lines that wait for their outcome, and of those that are not whole yet: bounded for the
//! process, and for each project a part of that, so that one noisy game is not everybody's `busy`.
//!
//! Nothing is kept that was not reserved before. What a line asks for and does not get is `busy`; a
//! socket that gets none is not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use observer_wire::{Code, Limits, Refusal};

use crate::documents::Project;

/// Part of a bound below which there is room again for those who were refused, in percent. Some way
/// below the bound, or they would come back only to be refused.
const ROOM_BELOW_PERCENT: usize = 75;

/// The bytes that wait in this process.
#[derive(Debug)]
pub(crate) struct Budget {
    waiting_bytes: AtomicUsize,
    /// Of sockets that have not signed in: together they have what a project has.
    stranger_bytes: AtomicUsize,
    waiting_bytes_max: usize,
    project_bytes_max: usize,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of the process.
    Gateway,
    /// That of the project, or of those without one.
    Project,
}

/// Bytes of a message that are charged until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    project: Arc<Project>,
    bytes: usize,
}

/// Bytes that are charged for what a socket keeps of lines that are not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Whose they are; `None` of a socket that had not signed in.
    project: Option<Arc<Project>>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limits.waiting_bytes_max`.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let waiting_bytes_max = limits.waiting_bytes_max;
        Arc::new(Self {
            waiting_bytes: AtomicUsize::new(0),
            stranger_bytes: AtomicUsize::new(0),
            waiting_bytes_max,
            project_bytes_max: limits.project_waiting_bytes_max(),
        })
    }

    /// Nothing yet, on the account of `project`.
    pub(crate) fn open(self: &Arc<Self>, project: &Arc<Project>) -> Charge {
        Charge { budget: Arc::clone(self), project: Arc::clone(project), bytes: 0 }
    }

    /// Takes `bytes` for a line of `project`, which are to be kept with [`Charge::keep`].
    ///
    /// # Errors
    ///
    /// [`Code::Busy`]: nothing was taken.
    pub(crate) fn take(&self, project: &Project, bytes: usize) -> Result<(), Refusal> {
        self.reserve(&project.waiting_bytes, bytes).map_err(|full| {
            let words = match full {
                Full::Gateway => {
                    "the gateway holds as many waiting lines as it may (limits.waiting_bytes_max)"
                }
                Full::Project => {
                    "your project has as many waiting lines as it may \
                     (limits.project_waiting_percent_max)"
                }
            };
            Refusal::new(Code::Busy, words)
        })
    }

    /// Whether there is room again for `project`, or for those without one.
    pub(crate) fn has_room(&self, project: Option<&Project>) -> bool {
        let below = |bytes: &AtomicUsize, max: usize| {
            bytes.load(Ordering::Relaxed) < max / 100 * ROOM_BELOW_PERCENT
        };
        below(&self.waiting_bytes, self.waiting_bytes_max)
            && below(self.account(project), self.project_bytes_max)
    }

    /// Whether `bytes` more could be had now.
    pub(crate) fn fits(&self, project: Option<&Project>, bytes: usize) -> bool {
        let fits = |sum: &AtomicUsize, max: usize| sum.load(Ordering::Relaxed) + bytes <= max;
        fits(&self.waiting_bytes, self.waiting_bytes_max)
            && fits(self.account(project), self.project_bytes_max)
    }

    /// All bytes that wait now.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    fn account<'b>(&'b self, project: Option<&'b Project>) -> &'b AtomicUsize {
        project.map_or(&self.stranger_bytes, |project| &project.waiting_bytes)
    }

    fn reserve(&self, account: &AtomicUsize, bytes: usize) -> Result<(), Full> {
        if !add_within(&self.waiting_bytes, bytes, self.waiting_bytes_max) {
            return Err(Full::Gateway);
        }
        if !add_within(account, bytes, self.project_bytes_max) {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Full::Project);
        }
        Ok(())
    }

    fn give_back(&self, account: &AtomicUsize, bytes: usize) {
        account.fetch_sub(bytes, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds, unless the sum would pass `max`. Whoever does so at the same moment cannot pass it either.
fn add_within(sum: &AtomicUsize, bytes: usize, max: usize) -> bool {
    let within = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= max);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
}

impl Charge {
    /// Who pays.
    pub(crate) fn project(&self) -> &Project {
        &self.project
    }

    /// Keeps `bytes` that were taken from the budget.
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Charges `bytes` more, whatever the bounds: what the gateway itself has to tell. There is a line
    /// of it for each sign-in and end of a socket, no more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.project.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(&self.project.waiting_bytes, self.bytes);
    }
}

impl Kept {
    /// Bytes that are charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sees to it that at least `bytes` are charged, to `project` if nothing is charged yet: bytes stay
    /// with whom they were charged to.
    ///
    /// # Errors
    ///
    /// [`Full`]: as much is charged as was.
    pub(crate) fn charge(
        &mut self,
        budget: &Budget,
        project: Option<&Arc<Project>>,
        bytes: usize,
    ) -> Result<(), Full> {
        let Some(more @ 1..) = bytes.checked_sub(self.bytes) else { return Ok(()) };
        if self.bytes == 0
            && self.project.as_deref().map(|project| project.id)
                != project.map(|project| project.id)
        {
            self.project = project.cloned();
        }
        budget.reserve(budget.account(self.project.as_deref()), more)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back what is charged past `bytes`.
    pub(crate) fn shrink_to(&mut self, budget: &Budget, bytes: usize) {
        if let Some(less @ 1..) = self.bytes.checked_sub(bytes) {
            budget.give_back(budget.account(self.project.as_deref()), less);
            self.bytes = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn limits() -> Limits {
        Limits { waiting_bytes_max: 1000, project_waiting_percent_max: 25, ..Limits::default() }
    }

    fn project(id: &str) -> Arc<Project> {
        Arc::new(Project::new(id.parse().unwrap()))
    }

    /// Takes and gives back at once: whether it could be had.
    fn may_have(budget: &Arc<Budget>, project: &Arc<Project>, bytes: usize) -> bool {
        let taken = budget.take(project, bytes);
        if taken.is_ok() {
            budget.open(project).keep(bytes);
        }
        taken.is_ok()
    }

    #[test]
    fn a_project_may_have_its_part_and_not_a_byte_more() {
        let budget = Budget::new(&limits());
        let (project, other) = (project("0123456789ab"), project("0123456789ac"));
        let mut charge = budget.open(&project);
        budget.take(&project, 200).unwrap();
        charge.keep(200);
        assert!(may_have(&budget, &project, 50));
        assert_eq!(budget.take(&project, 51).unwrap_err().code, Code::Busy);
        assert!(may_have(&budget, &other, 250), "the others have their own part");
        drop(charge);
        assert!(may_have(&budget, &project, 250));
        assert_eq!(budget.waiting_bytes(), 0);
    }

    #[test]
    fn all_together_may_have_the_whole_and_not_a_byte_more() {
        let budget = Budget::new(&limits());
        let project = project("0123456789ab");
        let mut others: Vec<_> = ["a", "b", "c"].map(|end| format!("0123456789a{end}")).into();
        others.push("ba9876543210".into());
        let mut kept: Vec<_> = others.iter().map(|_| Kept::default()).collect();
        for (kept, id) in kept.iter_mut().zip(&others) {
            let owner = self::project(id);
            kept.charge(&budget, Some(&owner), 225).unwrap();
        }
        assert!(may_have(&budget, &project, 100));
        assert!(budget.take(&project, 101).is_err());
        assert_eq!(project.waiting_bytes.load(Ordering::Relaxed), 0, "it was given back");
        for kept in &mut kept {
            kept.shrink_to(&budget, 0);
        }
        assert!(may_have(&budget, &project, 101));
    }

    #[test]
    fn who_has_not_signed_in_shares_one_part_and_takes_none_of_a_project() {
        let budget = Budget::new(&limits());
        let (mut one, mut other) = (Kept::default(), Kept::default());
        assert_eq!(one.charge(&budget, None, 200), Ok(()));
        assert_eq!(other.charge(&budget, None, 50), Ok(()));
        assert_eq!(other.charge(&budget, None, 51), Err(Full::Project));
        assert_eq!(other.bytes(), 50);
        let project = project("0123456789ab");
        assert!(may_have(&budget, &project, 250));
        // It signed in meanwhile; what it has stays where it was charged.
        assert_eq!(one.charge(&budget, Some(&project), 201), Err(Full::Project));
        one.shrink_to(&budget, 0);
        assert_eq!(one.charge(&budget, Some(&project), 250), Ok(()));
        assert!(!may_have(&budget, &project, 1));
        one.shrink_to(&budget, 0);
        other.shrink_to(&budget, 0);
        assert_eq!(budget.waiting_bytes(), 0);
    }

    #[test]
    fn there_is_room_again_below_three_quarters() {
        let budget = Budget::new(&Limits { waiting_bytes_max: 4000, ..limits() });
        let project = project("0123456789ab");
        let mut kept = Kept::default();
        kept.charge(&budget, Some(&project), 750).unwrap();
        assert!(!budget.has_room(Some(&project)) && budget.has_room(None));
        kept.shrink_to(&budget, 749);
        assert!(budget.has_room(Some(&project)));
        kept.shrink_to(&budget, 0);
    }

    #[test]
    fn workers_that_take_at_the_same_moment_never_pass_the_bound() {
        let budget = Budget::new(&limits());
        let project = project("0123456789ab");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if budget.take(&project, 7).is_ok() {
                            assert!(project.waiting_bytes.load(Ordering::Relaxed) <= 250);
                            budget.open(&project).keep(7);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.waiting_bytes(), 0);
    }
}
