//! The bytes of lines that wait for their outcome: bounded for the process, and for each project a
//! part of that, so that one noisy game is not everybody's `busy`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use observer_wire::{Code, Limits, Refusal};

use crate::documents::Project;

/// The bytes that wait in this process.
#[derive(Debug)]
pub(crate) struct Budget {
    waiting_bytes: AtomicUsize,
    waiting_bytes_max: usize,
    project_bytes_max: usize,
}

/// Bytes that are charged until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    project: Arc<Project>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limits.waiting_bytes_max`.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let waiting_bytes_max = limits.waiting_bytes_max;
        let project_bytes_max = waiting_bytes_max / 100 * limits.project_waiting_percent_max;
        Arc::new(Self { waiting_bytes: AtomicUsize::new(0), waiting_bytes_max, project_bytes_max })
    }

    /// Nothing yet, on the account of `project`.
    pub(crate) fn open(self: &Arc<Self>, project: &Arc<Project>) -> Charge {
        Charge { budget: Arc::clone(self), project: Arc::clone(project), bytes: 0 }
    }

    /// Whether `project` may have `bytes` more.
    ///
    /// Two workers that ask at the same moment may both get the last bytes: a line each, no more.
    pub(crate) fn check(&self, project: &Project, bytes: usize) -> Result<(), Refusal> {
        let words = if self.waiting_bytes_max < self.waiting_bytes() + bytes {
            "the gateway holds as many waiting lines as it may (limits.waiting_bytes_max)"
        } else if self.project_bytes_max
            < project.waiting_bytes.load(Ordering::Relaxed).saturating_add(bytes)
        {
            "your project has as many waiting lines as it may (limits.project_waiting_percent_max)"
        } else {
            return Ok(());
        };
        Err(Refusal::new(Code::Busy, words))
    }

    /// Bytes that are not lines yet: they are counted, never refused.
    pub(crate) fn add_unparsed(&self, bytes: usize) {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what [`Budget::add_unparsed`] counted.
    pub(crate) fn sub_unparsed(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// All bytes that wait now.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }
}

impl Charge {
    /// Charges `bytes` more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.project.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.project.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { waiting_bytes_max: 1000, project_waiting_percent_max: 25, ..Limits::default() }
    }

    #[test]
    fn a_project_may_have_its_part_and_not_a_byte_more() {
        let budget = Budget::new(&limits());
        let project = Arc::new(Project::new("0123456789ab".parse().unwrap()));
        let other = Arc::new(Project::new("0123456789ac".parse().unwrap()));
        let mut charge = budget.open(&project);
        charge.add(200);
        assert!(budget.check(&project, 50).is_ok());
        assert_eq!(budget.check(&project, 51).unwrap_err().code, Code::Busy);
        assert!(budget.check(&other, 250).is_ok(), "the others have their own part");
        drop(charge);
        assert!(budget.check(&project, 250).is_ok());
        assert_eq!(budget.waiting_bytes(), 0);
    }

    #[test]
    fn all_together_may_have_the_whole_and_not_a_byte_more() {
        let budget = Budget::new(&limits());
        let project = Arc::new(Project::new("0123456789ab".parse().unwrap()));
        budget.add_unparsed(900);
        assert!(budget.check(&project, 100).is_ok());
        assert!(budget.check(&project, 101).is_err());
        budget.sub_unparsed(900);
        assert!(budget.check(&project, 101).is_ok());
    }
}
