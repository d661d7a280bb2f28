//! Network namespaces, by the tools of iproute2.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::thread;

/// Does something inside the namespace, on a thread of its own. Sockets made
/// there stay there, wherever they are used.
#[allow(unsafe_code)]
pub(super) fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new("/run/netns").join(namespace)).expect("a namespace");
    let act = move || {
        // SAFETY: the descriptor is open; only this thread changes its namespace.
        let entered = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "entering {namespace}");
        act()
    };
    let done = thread::scope(|scope| scope.spawn(act).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Removes the laboratories of tests that were killed.
pub(super) fn remove_orphans() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("pinhole-")
            .and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            remove(&name);
        }
    }
}

/// Removes a namespace and what still runs in it. Failures leave nothing to
/// do: another test may have removed the same orphan.
pub(super) fn remove(namespace: &str) {
    let pids = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    for pid in pids
        .iter()
        .flat_map(|out| out.stdout.split(|byte| *byte == b'\n'))
    {
        if let Ok(pid) = str::from_utf8(pid).unwrap_or_default().parse::<u32>() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
    let _ = Command::new("ip")
        .args(["netns", "del", namespace])
        .output();
}

pub(super) fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_whitespace()));
}

/// What it printed.
pub(super) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
