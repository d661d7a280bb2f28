//! The limit of open files.

/// Raises the limit of open files, because each client holds a handful of connections and
/// the usual soft limit of 1024 would be reached with 200 of them. Returns the limit in
/// force.
#[cfg(unix)]
pub(crate) fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            let current = limit.current;
            tracing::warn!("the limit of open files stays at {current:?}: {error}");
            current
        }
    }
}

#[cfg(not(unix))]
pub(crate) fn raise_limit() -> Option<u64> {
    None
}
