//! What the standard library does not do with folders and file systems, a
//! small function for each, with what other systems do instead.

use std::fs::{File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, Metadata, OpenOptions};

/// From this size on a file is not kept in memory behind the transfer.
#[cfg(target_os = "linux")]
const HUGE_BYTES: u64 = 8 << 30;

/// Room on a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    pub(crate) total_bytes: u64,
    /// What this user may still use.
    pub(crate) available_bytes: u64,
    /// It counts its files, and this user may make no more.
    pub(crate) is_out_of_files: bool,
}

/// The room on the file system of `dir`; `None` where it cannot be asked. One of no
/// size at all, as that of a program that does not say, has not answered.
#[cfg(unix)]
pub(crate) fn space(dir: &Dir) -> io::Result<Option<Space>> {
    let stat = rustix::fs::fstatvfs(dir)?;
    let space = Space {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        is_out_of_files: stat.f_files > 0 && stat.f_favail == 0,
    };
    Ok((space.total_bytes > 0).then_some(space))
}

/// The room on the file system of `dir`; `None` where it cannot be asked.
#[cfg(not(unix))]
pub(crate) fn space(_: &Dir) -> io::Result<Option<Space>> {
    Ok(None)
}

/// Renames from one folder and name to another, or fails with `AlreadyExists`
/// where that is taken.
pub(crate) fn rename_new(
    (from_dir, from): (&Dir, &str),
    (to_dir, to): (&Dir, &str),
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::RenameFlags;
        use rustix::io::Errno;
        match rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
            // The kernel or the file system does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            other => return other.map_err(Into::into),
        }
    }
    match from_dir.hard_link(from, to_dir, to) {
        Ok(()) => from_dir.remove_file(from),
        Err(error) if lacks_hard_links(&error) => rename_over_own((from_dir, from), (to_dir, to)),
        Err(error) => Err(error),
    }
}

/// As FAT does. Where it is this user who may not, nothing else works either.
fn lacks_hard_links(error: &io::Error) -> bool {
    #[cfg(windows)]
    const OTHERS: &[i32] = &[1, 50]; // ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED
    #[cfg(unix)]
    const OTHERS: &[i32] = &[rustix::io::Errno::NOTSUP.raw_os_error()];
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    ) || error
        .raw_os_error()
        .is_some_and(|code| OTHERS.contains(&code))
}

/// Takes the new name with an empty file, which is replaced then. After a crash
/// in between it is left.
fn rename_over_own((from_dir, from): (&Dir, &str), (to_dir, to): (&Dir, &str)) -> io::Result<()> {
    let mut options = OpenOptions::new();
    drop(to_dir.open_with(to, options.write(true).create_new(true))?);
    from_dir.rename(from, to_dir, to).inspect_err(|_| {
        let _ = to_dir.remove_file(to);
    })
}

#[cfg(unix)]
fn readable(dir: &Dir) -> io::Result<rustix::fd::OwnedFd> {
    use rustix::fs::{Mode, OFlags, openat};
    // The held handle only names the folder (`O_PATH`).
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(dir, ".", flags, Mode::empty())?)
}

/// Sets when a file was last modified, and that it was read now: file systems that
/// programs provide (FUSE) often take both times or none.
pub(crate) fn set_modified(file: &File, modified: SystemTime) -> io::Result<()> {
    let times = FileTimes::new().set_modified(modified);
    file.set_times(times.set_accessed(SystemTime::now()))
}

/// Sets when a folder was last modified.
#[cfg(unix)]
pub(crate) fn set_folder_time(dir: &Dir, modified: SystemTime) -> io::Result<()> {
    set_modified(&File::from(readable(dir)?), modified)
}

/// Sets when a folder was last modified. Windows opens no folder for that
/// without rights that the handle does not carry, so it is left.
#[cfg(not(unix))]
pub(crate) fn set_folder_time(_: &Dir, _: SystemTime) -> io::Result<()> {
    Ok(())
}

/// Makes the content of a file durable.
#[cfg(not(windows))]
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Makes the content of a file durable. Windows wants a handle for that which
/// may write; one that may not belongs to a file that was finished before.
#[cfg(windows)]
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Makes the names in a folder durable. Fails with `PermissionDenied` for one that
/// may not be read.
#[cfg(unix)]
pub(crate) fn sync_folder(dir: &Dir) -> io::Result<()> {
    let folder = readable(dir)?;
    match rustix::fs::fsync(folder) {
        // A file system that cannot says so; there is nothing better to do.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTSUP) => Ok(()),
        other => other.map_err(Into::into),
    }
}

/// Windows makes names durable by itself.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Dir) -> io::Result<()> {
    Ok(())
}

/// Asks for everything on every disk to be made durable.
#[cfg(unix)]
pub(crate) fn sync_everything() {
    rustix::fs::sync();
}

/// Asks for everything on every disk to be made durable: Windows lets no program.
#[cfg(not(unix))]
pub(crate) const fn sync_everything() {}

/// Makes everything on the file system of `file` durable.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// Makes everything on the file system of `file` durable: no other system can.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn sync_file_system(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether [`sync_file_system`] tells of what could not be written: Linux does
/// from 5.8 on.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn tells_of_errors() -> bool {
    static TELLS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *TELLS.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        release.is_ok_and(|release| is_release_from(&release, (5, 8)))
    })
}

/// Whether [`sync_file_system`] tells of what could not be written.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) const fn tells_of_errors() -> bool {
    false
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_release_from(release: &str, first: (u32, u32)) -> bool {
    let mut numbers = release.split(|sign: char| !sign.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    let version = number().zip(number());
    version.is_some_and(|version| version >= first)
}

/// On which file system a file is.
#[cfg(unix)]
pub(crate) fn device(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.dev())
}

/// On which file system a file is: not asked here, see [`sync_file_system`].
#[cfg(not(unix))]
pub(crate) fn device(_: &File) -> io::Result<u64> {
    Ok(0)
}

/// On which file system a folder is.
#[cfg(unix)]
pub(crate) fn folder_device(dir: &Dir) -> io::Result<u64> {
    use cap_std::fs::MetadataExt;
    Ok(dir.dir_metadata()?.dev())
}

/// On which file system a folder is; as [`device`].
#[cfg(not(unix))]
pub(crate) fn folder_device(_: &Dir) -> io::Result<u64> {
    Ok(0)
}

/// Whether the file system of `file` makes inode numbers up, and gives a file a new
/// one when it has forgotten the old: FAT, exFAT, what programs provide, and shares
/// of Windows.
#[cfg(target_os = "linux")]
pub(crate) fn numbers_files_anew(file: &File) -> bool {
    use rustix::fs::FsWord;
    const FAT: FsWord = 0x4d44;
    const EXFAT: FsWord = 0x2011_bab0;
    const FUSE: FsWord = 0x6573_5546;
    const CIFS: FsWord = 0xff53_4d42;
    const SMB2: FsWord = 0xfe53_4d42;
    let stat = rustix::fs::fstatfs(file);
    stat.is_ok_and(|stat| [FAT, EXFAT, FUSE, CIFS, SMB2].contains(&stat.f_type))
}

/// Whether the file system of `file` makes inode numbers up: not told apart here.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn numbers_files_anew(_: &File) -> bool {
    false
}

/// Whether `file` belongs to the user this runs as.
#[cfg(unix)]
pub(crate) fn is_ours(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.uid() == rustix::process::geteuid().as_raw())
}

/// Whether `file` belongs to the user this runs as. Windows lets nobody else
/// write where only this user may, so it is not asked.
#[cfg(not(unix))]
pub(crate) fn is_ours(_: &File) -> io::Result<bool> {
    Ok(true)
}

/// Whether both belong to the same user.
#[cfg(unix)]
pub(crate) fn have_same_owner(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(one.metadata()?.uid() == other.metadata()?.uid())
}

/// Whether both belong to the same user; as [`is_ours`].
#[cfg(not(unix))]
pub(crate) fn have_same_owner(_: &File, _: &File) -> io::Result<bool> {
    Ok(true)
}

/// Whether the disk has failed to answer, so that nothing is known.
#[cfg(unix)]
pub(crate) fn has_failed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether the disk has failed to answer: not told apart here.
#[cfg(not(unix))]
pub(crate) const fn has_failed(_: &io::Error) -> bool {
    false
}

/// Whether something cannot be read because another has locked it.
#[cfg(windows)]
pub(crate) fn is_in_use(error: &io::Error) -> bool {
    const ERROR_LOCK_VIOLATION: i32 = 33;
    error.raw_os_error() == Some(ERROR_LOCK_VIOLATION)
}

/// Whether something cannot be read because another has locked it: only Windows
/// keeps from reading.
#[cfg(not(windows))]
pub(crate) const fn is_in_use(_: &io::Error) -> bool {
    false
}

/// Lets the kernel forget what has been read, or made durable, of a huge file:
/// kept in memory it would push out what others use. A length of zero is
/// everything from `offset_bytes` on.
#[cfg(target_os = "linux")]
pub(crate) fn forget(file: &File, size_bytes: u64, offset_bytes: u64, length_bytes: u64) {
    if size_bytes >= HUGE_BYTES {
        let length = std::num::NonZeroU64::new(length_bytes);
        let advice = rustix::fs::Advice::DontNeed;
        // A file system that keeps it all the same does no harm.
        let _ = rustix::fs::fadvise(file, offset_bytes, length, advice);
    }
}

/// Lets the kernel forget what has been read, or made durable, of a huge file:
/// no other system is told here.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn forget(_: &File, _: u64, _: u64, _: u64) {}

/// Sets room aside for all of a file that is about to be written, whose length
/// stays as it is. Where the file system knows no such thing nothing happens.
#[cfg(target_os = "linux")]
pub(crate) fn reserve(file: &File, size_bytes: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    // Of memory the room would be filled with zeroes first.
    if rustix::fs::fstatfs(file)?.f_type == TMPFS {
        return Ok(());
    }
    let keep_size = FallocateFlags::KEEP_SIZE;
    let reserve = || rustix::fs::fallocate(file, keep_size, 0, size_bytes);
    match rustix::io::retry_on_intr(reserve) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(()),
        other => other.map_err(Into::into),
    }
}

/// Sets room aside for all of a file that is about to be written: on no other
/// system.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn reserve(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Gives back the room that was set aside behind the end of a file. Cut to the
/// length it has, ext4 and XFS let go of it; where it stays, the next attempt
/// finds it.
#[cfg(target_os = "linux")]
pub(crate) fn give_back(file: &File) -> io::Result<()> {
    file.set_len(file.metadata()?.len())
}

/// Gives back the room that was set aside behind the end of a file: there is
/// none.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn give_back(_: &File) -> io::Result<()> {
    Ok(())
}

/// The room that a file takes, or that is set aside for it.
#[cfg(unix)]
pub(crate) fn room_bytes(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    Ok(metadata.len().max(metadata.blocks().saturating_mul(512)))
}

/// The room that a file takes.
#[cfg(not(unix))]
pub(crate) fn room_bytes(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// The path by which a folder is reached now; `None` where there is none any more,
/// or the system does not tell. The one it was opened with may lead elsewhere by now.
pub(crate) fn current_path(dir: &Dir, opened: &Path) -> Option<PathBuf> {
    let leads_there = |path: &Path| {
        let found = Dir::open_ambient_dir(path, ambient_authority());
        found.is_ok_and(|found| is_same_folder(dir, &found))
    };
    if leads_there(opened) {
        return Some(opened.to_owned());
    }
    path_of(dir).filter(|path| leads_there(path))
}

#[cfg(target_os = "linux")]
fn path_of(dir: &Dir) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok()
}

#[cfg(target_vendor = "apple")]
fn path_of(dir: &Dir) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let path = rustix::fs::getpath(dir).ok()?;
    Some(std::ffi::OsString::from_vec(path.into_bytes()).into())
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
const fn path_of(_: &Dir) -> Option<PathBuf> {
    None
}

fn is_same_folder(one: &Dir, other: &Dir) -> bool {
    use cap_fs_ext::MetadataExt;
    let id = |dir: &Dir| dir.dir_metadata().map(|it| (it.dev(), it.ino()));
    id(one).is_ok_and(|one| id(other).is_ok_and(|other| one == other))
}

/// Makes a folder that others of its group do not write to, whatever the mask
/// of this user lets them.
pub(crate) fn create_folder(dir: &Dir, name: &str) -> io::Result<()> {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use cap_std::fs::DirBuilderExt;
        builder.mode(0o755);
    }
    dir.create_dir_with(name, &builder)
}

/// Gives `new` the mode and the group of the file that it is about to replace. Who
/// could not read that one cannot read the new one: where the group cannot be kept,
/// its members get what everybody has. What makes a program run as somebody else
/// does not pass to content of others.
#[cfg(unix)]
pub(crate) fn keep_mode(new: &File, old: &Metadata) -> io::Result<()> {
    use cap_std::fs::MetadataExt;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    let now = new.metadata()?;
    let mut mode = MetadataExt::mode(old) & 0o777;
    let group = MetadataExt::gid(old);
    if now.gid() != group && std::os::unix::fs::fchown(new, None, Some(group)).is_err() {
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    // A program that is wanted as one stays one.
    if now.mode() & 0o100 != 0 {
        mode |= (mode & 0o444) >> 2;
    }
    new.set_permissions(PermissionsExt::from_mode(mode))
}

/// Gives `new` the mode of the file that it is about to replace: Windows has none.
#[cfg(not(unix))]
pub(crate) fn keep_mode(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Whether the owner of a file may execute it.
#[cfg(unix)]
pub(crate) fn is_executable(metadata: &Metadata) -> bool {
    use cap_std::fs::MetadataExt;
    metadata.mode() & 0o100 != 0
}

/// Whether the owner of a file may execute it: Windows goes by names.
#[cfg(not(unix))]
pub(crate) fn is_executable(_: &Metadata) -> bool {
    false
}

/// Lets those who may read `file` execute it.
#[cfg(unix)]
pub(crate) fn set_executable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    permissions.set_mode(permissions.mode() | (permissions.mode() & 0o444) >> 2);
    file.set_permissions(permissions)
}

/// Lets those who may read `file` execute it: Windows goes by names.
#[cfg(not(unix))]
pub(crate) fn set_executable(_: &File) -> io::Result<()> {
    Ok(())
}

/// Marks a file as one that came from elsewhere, so that the system asks before
/// it is first opened.
#[cfg(target_vendor = "apple")]
pub(crate) fn mark_received(_: &Dir, _: &str, file: &File) -> io::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    // 0081: downloaded, and not opened yet.
    let mark = format!("0081;{seconds:08x};Pinhole;");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(file, "com.apple.quarantine", mark.as_bytes(), flags)?;
    Ok(())
}

/// Marks a file as one that came from elsewhere, so that the system asks before
/// it is first opened: zone 3 is the internet.
#[cfg(windows)]
pub(crate) fn mark_received(dir: &Dir, name: &str, _: &File) -> io::Result<()> {
    let mark = "[ZoneTransfer]\r\nZoneId=3\r\n";
    dir.write(format!("{name}:Zone.Identifier"), mark)
}

/// Marks a file as one that came from elsewhere: no other system asks.
#[cfg(not(any(target_vendor = "apple", windows)))]
pub(crate) const fn mark_received(_: &Dir, _: &str, _: &File) -> io::Result<()> {
    Ok(())
}

/// Whether nothing can be read from `offset_bytes` on.
pub(crate) fn is_end(file: &File, offset_bytes: u64) -> io::Result<bool> {
    match read_at(file, &mut [0], offset_bytes) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(error),
    }
}

/// Fills `room` from `offset_bytes` on.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, room: &mut [u8], offset_bytes: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, room, offset_bytes)
}

/// Fills `room` from `offset_bytes` on.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut room: &mut [u8], mut offset_bytes: u64) -> io::Result<()> {
    while !room.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, room, offset_bytes)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset_bytes += read as u64;
        room = room.split_at_mut(read).1;
    }
    Ok(())
}

/// Writes all of `data` from `offset_bytes` on.
#[cfg(unix)]
pub(crate) fn write_at(file: &File, data: &[u8], offset_bytes: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset_bytes)
}

/// Writes all of `data` from `offset_bytes` on.
#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut data: &[u8], mut offset_bytes: u64) -> io::Result<()> {
    while !data.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, data, offset_bytes)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset_bytes += written as u64;
        data = data.split_at(written).1;
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, is_from) in [
            ("5.8.0\n", true),
            ("5.10.0-28-amd64\n", true),
            ("6.1-rc3\n", true),
            ("5.8+\n", true),
            ("5.7.19\n", false),
            ("4.19.0-26-amd64\n", false),
            ("", false),
            ("linux\n", false),
        ] {
            assert_eq!(is_release_from(release, (5, 8)), is_from, "{release}");
        }
    }
}
