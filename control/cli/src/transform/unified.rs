//! Differences of two texts in the unified format, as `diff -u` and `patch` know it.

use crate::diff::compared;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// The difference; empty when there is none. Source: POSIX, utility `diff`, "Diff -u output format".
pub fn lines(name: &str, before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let marked = compared(&old, &new);
    let changed: Vec<usize> =
        marked.iter().enumerate().filter(|(_, (mark, _))| *mark != ' ').map(|(at, _)| at).collect();
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for at in changed {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(marked.len()));
        match hunks.last_mut() {
            Some(last) if last.1 >= from => last.1 = to,
            _ => hunks.push((from, to)),
        }
    }
    if hunks.is_empty() {
        return String::new();
    }
    let mut text = format!("--- {name}\n+++ {name}\n");
    for (from, to) in hunks {
        let count =
            |range: &[(char, &str)], other: char| range.iter().filter(|(mark, _)| *mark != other).count();
        let side = |other: char| {
            let (before, here) = (count(&marked[..from], other), count(&marked[from..to], other));
            // An empty side is named by the line before it.
            if here == 0 { format!("{before},0") } else { format!("{},{here}", before + 1) }
        };
        text.push_str(&format!("@@ -{} +{} @@\n", side('+'), side('-')));
        for (mark, line) in &marked[from..to] {
            text.push_str(&format!("{mark}{line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn hunks_have_their_places_and_lengths() {
        let before = (1..=20).map(|n| format!("{n}\n")).collect::<String>();
        let after = before.replace("10\n", "ten\n").replace("\n20\n", "\n20\n21\n");
        let expected = "--- f\n+++ f\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n@@ -18,3 +18,4 @@\n 18\n 19\n 20\n+21\n";
        assert_eq!(lines("f", &before, &after), expected);
        assert_eq!(lines("f", "a\n", "a\n"), "");
        assert_eq!(lines("f", "", "a\n"), "--- f\n+++ f\n@@ -0,0 +1,1 @@\n+a\n");
    }
}
