//! How many files, sockets among them, this process may have open. The twin for other systems than
//! Unix knows no bound.

/// Raises the bound as far as the system lets it be raised without rights; many systems start
/// processes with 1,024, for programs that are older than this one.
pub fn raise_files_max() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // What cannot be raised stays as it is: it is a bound that holds, not a failure.
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
    }
}

/// Files that may be open now. An operator may change it while the process runs.
#[must_use]
pub fn files_max() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};

        let bound = getrlimit(Resource::Nofile).current;
        bound.and_then(|bound| usize::try_from(bound).ok()).unwrap_or(usize::MAX)
    }
    #[cfg(not(unix))]
    {
        usize::MAX
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_raised_bound_is_the_highest_that_the_system_allows() {
        raise_files_max();
        let highest = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let highest = highest.and_then(|highest| usize::try_from(highest).ok());
        assert_eq!(files_max(), highest.unwrap_or(usize::MAX));
    }
}
