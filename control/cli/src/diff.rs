//! What changed, line by line.

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// Beyond this many lines on both sides together the comparison is not worth its quadratic cost.
const LINES_MAX: usize = 8_000;

/// The lines of `before` that are gone (`-`), those of `after` that are new (`+`), and a few around them.
/// Empty when nothing changed.
pub fn lines(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    if old == new {
        return String::new();
    }
    let marked = if old.len() + new.len() > LINES_MAX { replaced(&old, &new) } else { compared(&old, &new) };
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        marked.iter().skip(from).take(at + CONTEXT + 1 - from).any(|(mark, _)| *mark != ' ')
    };
    let (mut text, mut skipped) = (String::new(), false);
    for (at, (mark, line)) in marked.iter().enumerate() {
        if near(at) {
            if skipped && !text.is_empty() {
                text.push_str("  ...\n");
            }
            skipped = false;
            text.push_str(&format!("{mark} {line}\n"));
        } else {
            skipped = true;
        }
    }
    text
}

fn replaced<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    old.iter().map(|&line| ('-', line)).chain(new.iter().map(|&line| ('+', line))).collect()
}

/// All lines of both sides, marked, by the longest common subsequence.
pub fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // common[i][j]: how many lines old[i..] and new[j..] have in common.
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut marked) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            marked.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if common[i + 1][j] >= common[i][j + 1] {
            marked.push(('-', old[i]));
            i += 1;
        } else {
            marked.push(('+', new[j]));
            j += 1;
        }
    }
    marked.extend(old[i..].iter().map(|&line| ('-', line)));
    marked.extend(new[j..].iter().map(|&line| ('+', line)));
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_shown_with_its_surroundings() {
        let before = (0..20).map(|n| format!("line {n}\n")).collect::<String>();
        let after = before.replace("line 10\n", "line ten\n").replace("line 1\n", "");
        let expected = "  line 0\n- line 1\n  line 2\n  line 3\n  line 4\n  ...\n  line 7\n  line 8\n  line 9\n\
                        - line 10\n+ line ten\n  line 11\n  line 12\n  line 13\n";
        assert_eq!(lines(&before, &after), expected);
        assert_eq!(lines("a\n", "a\n"), "");
        assert_eq!(lines("", "a\nb\n"), "+ a\n+ b\n");
    }

    #[test]
    fn marks_give_back_both_sides() {
        for (old, new) in [("a b c d", "b c x d"), ("a a b", "a b b"), ("", "x"), ("x y", ""), ("a b", "b a")]
        {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.split(' ').collect(), new.split(' ').collect());
            let marked = compared(&old, &new);
            let side = |drop: char| -> Vec<&str> {
                marked.iter().filter(|(mark, _)| *mark != drop).map(|(_, line)| *line).collect()
            };
            assert_eq!((side('+'), side('-')), (old, new));
        }
    }
}
