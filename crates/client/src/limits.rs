//! What the system lets one process have.

/// Lets this process open as many files as it may: a transfer of many files holds
/// hundreds, several at once more than the 1,024 (on macOS 256) that are usual.
#[cfg(unix)]
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else {
        return;
    };
    // More than `OPEN_MAX` macOS gives nobody, whatever it says.
    let most = match cfg!(target_vendor = "apple") {
        true => Some(limit.maximum.unwrap_or(u64::MAX).min(10_240)),
        false => limit.maximum,
    };
    if most.is_some_and(|most| most <= current) {
        return;
    }
    let raised = Rlimit {
        current: most,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current, "the limit of open files stays");
    }
}

/// Lets this process open as many files as it may: any number.
#[cfg(not(unix))]
pub(crate) const fn raise_open_files() {}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn as_many_files_can_be_open_as_may_be() {
        let limit = getrlimit(Resource::Nofile);
        // Little less, which the tests beside this one do not notice.
        let less = limit.maximum.map_or(10_000, |most| most.min(10_240) - 1);
        let lowered = Rlimit {
            current: Some(less),
            ..limit
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        raise_open_files();
        let raised = getrlimit(Resource::Nofile).current;
        assert!(raised.is_none_or(|raised| raised > less));
    }
}
