//! Returning freed memory to the system.

/// Returns freed memory to the system. glibc does that by itself only at the end of its
/// heap, where some longer-lived allocation usually remains, so the peak of a crowd would
/// stay. Takes milliseconds, and does nothing with other allocators.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "there is no safe way to ask")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
