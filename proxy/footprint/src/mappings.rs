//! Which mappings of the process may lose their pages, as `/proc/self/smaps` tells (proc(5)).

use std::ops::Range;

/// A mapping whose pages are all those of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Addresses.
    pub(crate) range: Range<usize>,
    /// Bytes in memory.
    pub(crate) resident: usize,
}

/// Private mappings of files that are readable or executable, not writable, have resident pages and no anonymous one.
///
/// A segment that the dynamic linker relocated and then protected (RELRO) is not writable either, but has anonymous pages:
/// its content is not that of the file, and it is left alone.
pub(crate) fn droppable(smaps: &str) -> impl Iterator<Item = Mapping> {
    let mut lines = smaps.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let candidate = header(lines.next()?);
            let (mut resident, mut anonymous, mut locked) = (0, None, false);
            while let Some((key, value)) = lines.peek().and_then(|line| field(line)) {
                match key {
                    "Rss" => resident = kilobytes(value).unwrap_or(0),
                    "Anonymous" => anonymous = kilobytes(value),
                    "VmFlags" => locked = value.split_ascii_whitespace().any(|flag| flag == "lo"),
                    _ => {}
                }
                lines.next();
            }
            if let (Some(range), Some(0), false, true) = (candidate, anonymous, locked, resident > 0) {
                return Some(Mapping { range, resident });
            }
        }
    })
}

/// `7f00-7f10 r-xp 00000000 fe:00 123 /path`: the addresses, where permissions and name fit.
fn header(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (addresses, permissions) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    let fits = matches!(permissions, "r-xp" | "r--p" | "--xp") && path.starts_with('/');
    let (start, end) = addresses.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    fits.then_some(range)
}

/// `Rss:   12 kB`: a line below a header, which has no colon at the end of its first word.
fn field(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    (!key.contains([' ', '-'])).then_some((key, value))
}

fn kilobytes(value: &str) -> Option<usize> {
    value.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Vec<(usize, usize, usize)> {
        droppable(text).map(|m| (m.range.start, m.range.end, m.resident)).collect()
    }

    #[test]
    fn droppable_clean_private_file_mappings_only() {
        let text = "\
1000-3000 r-xp 00000000 fe:00 11 /usr/bin/program
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
3000-4000 r--p 00002000 fe:00 11 /usr/bin/program
Rss:                   4 kB
Anonymous:             4 kB
VmFlags: rd mr mw me ac
4000-5000 rw-p 00003000 fe:00 11 /usr/bin/program
Rss:                   4 kB
Anonymous:             0 kB
5000-6000 r--s 00000000 fe:00 12 /shared/file
Rss:                   4 kB
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0 [vdso]
Rss:                   4 kB
Anonymous:             0 kB
7000-8000 r--p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             0 kB
8000-9000 r--p 00000000 fe:00 13 /usr/lib/with a space.so (deleted)
Rss:                   4 kB
Anonymous:             0 kB
";
        assert_eq!(ranges(text), [(0x1000, 0x3000, 8192), (0x8000, 0x9000, 4096)]);
    }

    #[test]
    fn droppable_locked_not_resident_or_unknown_content_is_left_alone() {
        let text = "\
1000-3000 r-xp 00000000 fe:00 11 /a
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex lo
3000-4000 r-xp 00000000 fe:00 11 /b
Rss:                   0 kB
Anonymous:             0 kB
4000-5000 r-xp 00000000 fe:00 11 /c
Rss:                   4 kB
";
        assert_eq!(ranges(text), []);
        assert_eq!(ranges(""), []);
        assert_eq!(ranges("nonsense\n\n:::\nx-y r-xp 0 0 0 /p\nRss: 4 kB\nAnonymous: 0 kB\n"), []);
    }
}
