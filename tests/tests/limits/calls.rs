//! System calls that neither the standard library nor nix has, and being somebody else.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use nix::libc;

/// Runs `work` on a thread of another user, without root's capabilities.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    let changed = || {
        // SAFETY: no pointers. The system call itself, not libc's function: that would change all
        // threads of the process.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        work()
    };
    std::thread::scope(|scope| scope.spawn(changed).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Adds a key to the thread's keyring, which ends with the thread.
pub fn add_key(name: &str, payload: &[u8]) -> Result<(), io::Error> {
    const KEY_SPEC_THREAD_KEYRING: libc::c_int = -1;
    let name = CString::new(name).unwrap();
    // SAFETY: two strings that end in 0, and a buffer with its length.
    let result = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            name.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            KEY_SPEC_THREAD_KEYRING,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A context of asynchronous I/O, destroyed when dropped.
pub struct AioContext(libc::c_ulong);

impl AioContext {
    pub fn new(events: libc::c_long) -> Result<Self, io::Error> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context's number to where the pointer points.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, events, &raw mut context) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(context)) }
    }
}

impl Drop for AioContext {
    fn drop(&mut self) {
        // SAFETY: no pointers that are followed here; the kernel knows its contexts.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
