//! Memory that nobody holds any more.

/// Gives memory back to the system that is free. glibc does so by itself only at the
/// end of what it has, where something always is that lives longer: what a crowd has
/// taken would stay. Takes milliseconds, and does nothing with other allocators.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "there is no safe way to ask")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
