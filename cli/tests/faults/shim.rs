//! Loaded into a server by `clock.rs`, in front of the C library: its `clock_gettime` adds so many seconds to
//! the wall clock as the file that `SHIM_OFFSET` names says. Not part of any crate, and without the standard
//! library, which would itself ask for the time.
#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};

#[repr(C)]
pub struct Timespec {
    seconds: c_long,
    nanos: c_long,
}

#[link(name = "c")]
unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int) -> c_int;
    fn read(file: c_int, bytes: *mut u8, count: usize) -> isize;
    fn close(file: c_int) -> c_int;
    fn abort() -> !;
}

/// "Behind this library".
const NEXT: *mut c_void = -1_isize as *mut c_void;
const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it takes nothing and does not return.
    unsafe { abort() }
}

/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the C library has this function, with this signature.
    let real: unsafe extern "C" fn(c_int, *mut Timespec) -> c_int =
        unsafe { core::mem::transmute(dlsym(NEXT, c"clock_gettime".as_ptr())) };
    // SAFETY: the caller's own arguments.
    let result = unsafe { real(clock, time) };
    if matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) && result == 0 {
        // SAFETY: it has just been filled in.
        unsafe { (*time).seconds += offset() };
    }
    result
}

/// What the file says; 0 where there is none.
fn offset() -> c_long {
    let mut bytes = [0_u8; 24];
    // SAFETY: C strings, a buffer of this size, and a descriptor that was just opened for reading.
    let count = unsafe {
        let path = getenv(c"SHIM_OFFSET".as_ptr());
        if path.is_null() {
            return 0;
        }
        let file = open(path, 0);
        if file < 0 {
            return 0;
        }
        let count = read(file, bytes.as_mut_ptr(), bytes.len());
        close(file);
        count
    };
    let text = bytes.get(..count.max(0) as usize).unwrap_or_default();
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    sign * digits.fold(0, |number, digit| number * 10 + c_long::from(digit - b'0'))
}
