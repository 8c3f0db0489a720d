//! Gives memory back that a running proxy does not need.
//!
//! A proxy that idles holds two things it will not use again soon. First, pages of its own program: what reads files, builds
//! descriptors and checks a configuration is executed once, but the kernel keeps it mapped, sixteen pages around each that was
//! touched, and counts it as resident. Second, what building a configuration left free in the allocator.
//!
//! [`give_back`] returns both. Pages of the program that are needed after all come back from the page cache with a minor fault
//! per sixteen pages (about a hundred in all, less than a millisecond together, spread over the next requests).
//!
//! This is the one crate of the data plane with `unsafe` in it (docs/adr/0023): [`unmap_clean_pages`] and [`collect_heap`].

use rustix::mm::{Advice, madvise};
use std::io;
use std::ops::Range;

mod mappings;

use mappings::droppable;

/// What [`give_back`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// Bytes of program and libraries that were resident and are not any more.
    pub program_bytes: usize,
}

/// Returns free memory of the allocator and unused pages of the program to the system. Takes a millisecond or two: for a
/// control thread, after a configuration was built, not for a data worker.
///
/// # Errors
/// When `/proc/self/smaps` cannot be read or the kernel refuses; nothing is lost by that.
pub fn give_back() -> io::Result<GivenBack> {
    collect_heap();
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let mut given = GivenBack::default();
    for mapping in droppable(&text) {
        unmap_clean_pages(mapping.range)?;
        given.program_bytes += mapping.resident;
    }
    Ok(given)
}

/// Drops the pages of one mapping, which must be of a file, private, not writable and without a page that differs from
/// the file.
#[allow(unsafe_code, reason = "ADR 0023: there is no safe call that gives pages of the program back")]
fn unmap_clean_pages(range: Range<usize>) -> io::Result<()> {
    let length = range.end.saturating_sub(range.start);
    // SAFETY: the range is a whole mapping that the kernel has just named as private, of a file, not writable and with no
    // anonymous page (`mappings::droppable`). Each dropped page is read from the same file again when it is touched, with
    // the same bytes: nothing that Rust can observe changes. No thread can write to the range in between, as it is
    // not writable; mappings of a program's and its libraries' segments are not unmapped while it runs.
    unsafe { madvise(range.start as *mut _, length, Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Has mimalloc return what is free. A program with another allocator loses nothing by it.
#[allow(unsafe_code, reason = "ADR 0023: the allocator offers this in C only")]
fn collect_heap() {
    // SAFETY: `mi_collect` takes no pointer, may be called by any thread at any time, and frees only what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn give_back_program_still_runs_and_less_is_resident() {
        let resident = || -> usize {
            let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
            droppable(&text).map(|mapping| mapping.resident).sum()
        };
        let before = resident();
        let given = give_back().unwrap();
        assert!(given.program_bytes > 0, "{given:?}");
        let after = resident();
        assert!(after < before, "{before} bytes before, {after} after");
        // What was dropped comes back with the same content: everything here runs on it.
        let text: String = (0..1000).map(|n| format!("{n:x},")).collect();
        assert_eq!(text.split(',').filter_map(|t| usize::from_str_radix(t, 16).ok()).sum::<usize>(), 499_500);
    }

    #[test]
    fn give_back_beside_threads_that_compute_changes_no_result() {
        let work = || {
            (0..200_000_u64).fold(7_u64, |a, n| a.wrapping_mul(6_364_136_223_846_793_005) ^ n.rotate_left(9))
        };
        let expected = work();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..50).map(|_| work()).collect::<Vec<_>>())).collect();
            for _ in 0..20 {
                give_back().unwrap();
            }
            for thread in threads {
                assert!(thread.join().unwrap().iter().all(|result| *result == expected));
            }
        });
    }
}
