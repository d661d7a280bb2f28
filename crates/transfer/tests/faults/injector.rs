//! Lets system calls of a thread, and of all that it starts, fail at will. The
//! kernel asks before each of them (seccomp's user notification), a thread of
//! this process answers: go on, or this error. Calls are counted over all
//! threads, in the order in which the kernel saw them.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_long};
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing; calls are only counted.
    Nothing,
    /// This one call, the first being 0.
    Once(usize),
    /// The disk is gone: this call and all behind it.
    FromThenOn(usize),
    /// The disk is full: this call and all behind it that take room. A write
    /// that is the first gets half of what it has onto the disk.
    Full(usize),
    /// The file system does not know this one call.
    Lacks(usize),
    /// It lets this user make no call of this name.
    Refuses(&'static str),
    /// Its names have at most so many bytes.
    ShortNames(usize),
    /// It has no hard links and replaces whatever has a name, as some drivers of
    /// FAT.
    Replaces,
}

/// One call on something in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    /// Where to, of a write.
    pub(crate) offset_bytes: u64,
    /// Whether the file is one that was opened to be written past the page cache.
    pub(crate) is_direct: bool,
    /// The longest name that it is given.
    pub(crate) name_bytes: usize,
    /// Whether it can fail because the disk is full.
    pub(crate) takes_room: bool,
}

impl Call {
    fn is_sync(&self) -> bool {
        matches!(self.name, "fsync" | "fdatasync" | "syncfs")
    }
}

/// A disk tries for a while before it says that it could not: much else comes to
/// its end meanwhile.
const SYNC_FAILS_AFTER: Duration = Duration::from_millis(50);

/// How the arguments name what a call is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    OpenFile,
    FolderAndName,
}
use About::{FolderAndName, OpenFile};

/// Every call with which a program could bring something onto a disk, or look
/// at it to decide.
const CALLS: &[(c_long, &str, About)] = &[
    (libc::SYS_pwrite64, "pwrite64", OpenFile),
    (libc::SYS_pwritev, "pwritev", OpenFile),
    (libc::SYS_pwritev2, "pwritev2", OpenFile),
    (libc::SYS_pread64, "pread64", OpenFile),
    (libc::SYS_ftruncate, "ftruncate", OpenFile),
    (libc::SYS_fallocate, "fallocate", OpenFile),
    (libc::SYS_fsync, "fsync", OpenFile),
    (libc::SYS_fdatasync, "fdatasync", OpenFile),
    (libc::SYS_syncfs, "syncfs", OpenFile),
    (libc::SYS_flock, "flock", OpenFile),
    (libc::SYS_fstatfs, "fstatfs", OpenFile),
    (libc::SYS_fchmod, "fchmod", OpenFile),
    (libc::SYS_getdents64, "getdents64", OpenFile),
    (libc::SYS_openat, "openat", FolderAndName),
    (libc::SYS_openat2, "openat2", FolderAndName),
    (libc::SYS_mkdirat, "mkdirat", FolderAndName),
    (libc::SYS_renameat2, "renameat2", FolderAndName),
    (libc::SYS_linkat, "linkat", FolderAndName),
    (libc::SYS_unlinkat, "unlinkat", FolderAndName),
    (libc::SYS_utimensat, "utimensat", FolderAndName),
    (libc::SYS_statx, "statx", FolderAndName),
    (libc::SYS_newfstatat, "newfstatat", FolderAndName),
];

/// Runs `work` while calls on things in `folder` fail by `plan`. Returns what
/// it returns, and the calls up to the end of the last thread it started.
///
/// # Errors
/// The kernel does not let itself be asked.
pub(crate) fn run<T: Send>(
    folder: &Path,
    plan: Plan,
    work: impl FnOnce() -> T + Send,
) -> io::Result<(T, Vec<Call>)> {
    let folder = &folder.canonicalize()?;
    std::thread::scope(|scope| {
        let (listener, told) = mpsc::channel();
        let watching = scope.spawn(move || match told.recv() {
            Ok(listener) => watch(&listener, folder, plan),
            Err(_) => Ok(Vec::new()),
        });
        let working = scope.spawn(move || -> io::Result<T> {
            let asked = ask_about_calls()?;
            let _ = listener.send(asked);
            drop(listener);
            Ok(work())
        });
        let result = working.join().unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic);
        })?;
        Ok((result, watching.join().unwrap()?))
    })
}

/// Has the kernel ask about [`CALLS`] of this thread and its children.
fn ask_about_calls() -> io::Result<OwnedFd> {
    let filter = |code: u32, jt: usize, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: u8::try_from(jt).unwrap(),
        jf: 0,
        k,
    };
    // The number of the call is the first thing in what is looked at.
    let mut program = vec![filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (place, (number, ..)) in CALLS.iter().enumerate() {
        let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let number = u32::try_from(*number).unwrap();
        program.push(filter(jump, CALLS.len() - place, number));
    }
    let end = libc::BPF_RET | libc::BPF_K;
    program.push(filter(end, 0, libc::SECCOMP_RET_ALLOW));
    program.push(filter(end, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the arguments are those of prctl(2) and seccomp(2); `program`
    // and what it points to live until the call returns, which copies them.
    let listener = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(listener).unwrap()) })
}

/// Answers until no asking thread is left.
fn watch(listener: &OwnedFd, folder: &Path, plan: Plan) -> io::Result<Vec<Call>> {
    let mut calls = Vec::new();
    while is_asked(listener)? {
        // SAFETY: zeroes are what the kernel wants to find in it.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let place = &raw mut question;
        // SAFETY: the kernel writes one `seccomp_notif` there.
        let asked =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, place) };
        if asked != 0 {
            // Whoever asked has ended meanwhile.
            continue;
        }
        let mut answer = libc::seccomp_notif_resp {
            id: question.id,
            val: 0,
            error: 0,
            flags: u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap(),
        };
        if let Some(call) = call(&question.data, folder) {
            if let Some(failure) = plan.failure(calls.len(), &call) {
                if call.is_sync() {
                    std::thread::sleep(SYNC_FAILS_AFTER);
                }
                answer.flags = 0;
                match failure {
                    Failure::Error(error) => answer.error = -error,
                    Failure::Half => answer.val = write_half(&question.data),
                }
            }
            calls.push(call);
        }
        // SAFETY: the kernel reads one `seccomp_notif_resp` there.
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const answer,
            );
        }
    }
    Ok(calls)
}

/// Waits for a question; false when nobody is left to ask one.
fn is_asked(listener: &OwnedFd) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one `pollfd`, alive during the call.
    if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok(poll.revents & libc::POLLIN != 0)
}

/// What is asked about; `None` when it is not about the folder.
fn call(data: &libc::seccomp_data, folder: &Path) -> Option<Call> {
    let number = c_long::from(data.nr);
    let (_, name, about) = CALLS.iter().find(|(other, ..)| *other == number)?;
    let opened = fs::read_link(format!("/proc/self/fd/{}", descriptor(data)));
    let path = match about {
        OpenFile => opened.ok()?,
        FolderAndName => followed(opened.unwrap_or_default().join(text(data.args[1]))),
    };
    let takes_room = match *name {
        "pwrite64" | "pwritev" | "pwritev2" | "fallocate" | "mkdirat" | "renameat2" | "linkat" => {
            true
        }
        "openat" => data.args[2] & creates() != 0,
        // SAFETY: the calling thread waits in openat2(2), which takes a pointer
        // to flags, in this address space.
        "openat2" => unsafe { *(data.args[2] as *const u64) & creates() != 0 },
        _ => false,
    };
    let mut given = vec![path.clone()];
    if matches!(*name, "renameat2" | "linkat") {
        given.push(text(data.args[3]));
    }
    let lengths = given
        .iter()
        .filter_map(|path| Some(path.file_name()?.len()));
    path.starts_with(folder).then(|| Call {
        name,
        name_bytes: lengths.max().unwrap_or_default(),
        path: path.components().collect(),
        offset_bytes: if *name == "pwrite64" { data.args[3] } else { 0 },
        is_direct: *about == OpenFile && is_direct(descriptor(data)),
        takes_room,
    })
}

/// What an open file is, where it is named by its number.
fn followed(path: PathBuf) -> PathBuf {
    match path.starts_with("/proc/self/fd") {
        true => fs::read_link(&path).unwrap_or(path),
        false => path,
    }
}

fn is_direct(file: RawFd) -> bool {
    // SAFETY: it only looks at the flags of a file, which its user waits for.
    let flags = unsafe { libc::fcntl(file, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_DIRECT != 0
}

fn creates() -> u64 {
    u64::try_from(libc::O_CREAT).unwrap()
}

fn descriptor(data: &libc::seccomp_data) -> RawFd {
    // The upper half of the register is not part of it.
    data.args[0] as RawFd
}

/// The text a call was given, if any.
fn text(address: u64) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    if address == 0 {
        return PathBuf::new();
    }
    // SAFETY: the calling thread waits in a call that takes a path there, in
    // this address space.
    let text = unsafe { CStr::from_ptr(address as *const c_char) };
    std::ffi::OsStr::from_bytes(text.to_bytes()).into()
}

enum Failure {
    Error(i32),
    Half,
}

impl Plan {
    /// The number of the first call that fails.
    pub(crate) const fn at(self) -> usize {
        match self {
            Self::Nothing | Self::Refuses(_) | Self::ShortNames(_) | Self::Replaces => usize::MAX,
            Self::Once(at) | Self::FromThenOn(at) | Self::Full(at) | Self::Lacks(at) => at,
        }
    }

    fn failure(self, number: usize, call: &Call) -> Option<Failure> {
        match self {
            Self::Once(at) if number == at => Some(Failure::Error(libc::EIO)),
            Self::Lacks(at) if number == at => Some(Failure::Error(libc::EOPNOTSUPP)),
            Self::Refuses(name) if call.name == name => Some(Failure::Error(libc::EPERM)),
            Self::ShortNames(most) if call.name_bytes > most => {
                Some(Failure::Error(libc::ENAMETOOLONG))
            }
            Self::Replaces if call.name == "renameat2" => Some(Failure::Error(libc::EINVAL)),
            Self::Replaces if call.name == "linkat" => Some(Failure::Error(libc::EPERM)),
            Self::FromThenOn(at) if number >= at => Some(Failure::Error(libc::EIO)),
            Self::Full(at) if number == at && call.name == "pwrite64" => Some(Failure::Half),
            Self::Full(at) if number >= at && call.takes_room => Some(Failure::Error(libc::ENOSPC)),
            _ => None,
        }
    }
}

/// Does half of a `pwrite64`. Returns what it returns.
fn write_half(data: &libc::seccomp_data) -> i64 {
    let [_, address, length, offset, ..] = data.args;
    // SAFETY: the calling thread waits in pwrite64(2), which reads from there,
    // in this address space.
    let written = unsafe {
        libc::pwrite64(
            descriptor(data),
            address as *const libc::c_void,
            usize::try_from(length).unwrap() / 2,
            i64::try_from(offset).unwrap(),
        )
    };
    i64::try_from(written).unwrap()
}
