//! Loaded into a server by `faults.rs`, in front of the C library: a thread gives back to the system what is free,
//! so that what is resident is what is held. Left to itself, glibc keeps more or less of it, as the last block of a
//! heap happens to be in use or not. Not part of any crate, and without the standard library.
#![no_std]

use core::ffi::{c_int, c_uint, c_ulong, c_void};
use core::ptr::{null, null_mut};

#[link(name = "c")]
unsafe extern "C" {
    fn pthread_create(
        thread: *mut c_ulong,
        attributes: *const c_void,
        run: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn malloc_trim(pad: usize) -> c_int;
    fn usleep(micros: c_uint) -> c_int;
    fn abort() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it takes nothing and does not return.
    unsafe { abort() }
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    let mut thread = 0;
    // SAFETY: room for the thread's number, no attributes, and a function that needs no argument.
    if unsafe { pthread_create(&mut thread, null(), run, null_mut()) } != 0 {
        // SAFETY: as above.
        unsafe { abort() };
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: any thread may call these, at any time.
        unsafe {
            malloc_trim(0);
            usleep(20_000);
        }
    }
}
