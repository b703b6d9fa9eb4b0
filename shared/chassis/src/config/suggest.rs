//! "Did you mean": the nearest of the names that exist.

/// Longest name that is compared, in bytes: comparing takes time by the product of both lengths.
const COMPARED_BYTES_MAX: usize = 64;

/// The nearest of `names`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if COMPARED_BYTES_MAX < wrong.len() {
        return None;
    }
    let edits_max = 1 + wrong.len() / 4;
    let near = names.into_iter().map(|name| (edits(wrong.as_bytes(), name.as_bytes()), name));
    near.filter(|(edits, _)| *edits <= edits_max).min().map(|(_, name)| name)
}

/// How many bytes must be put in, taken out or changed to turn `a` into `b`.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte_a) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, byte_b) in b.iter().enumerate() {
            let change = diagonal + usize::from(byte_a != byte_b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["listen", "sessions_max", "idle_timeout_secs"];

    #[test]
    fn typing_error_is_understood() {
        assert_eq!(nearest("listn", NAMES), Some("listen"));
        assert_eq!(nearest("session_max", NAMES), Some("sessions_max"));
        assert_eq!(nearest("idle_timeout", NAMES), None);
    }

    #[test]
    fn something_else_is_not_guessed() {
        assert_eq!(nearest("colour", NAMES), None);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits(b"", b"abc"), 3);
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"same", b"same"), 0);
    }
}
