//! What the server said and what the device has, in words for people.

use crate::device::heard::Heard;
use crate::device::values::{Outcome, Variables};
use crate::terminal::clean;

/// What the server said; `None` when there is nothing to show.
pub(super) fn heard(heard: &Heard, outcomes: &[Outcome]) -> Option<String> {
    let words = match heard {
        Heard::Fine => "<- OK".to_owned(),
        Heard::Done { mid } => format!("<- OK {} (safe)", clean(mid)),
        Heard::Refused { code, words, .. } => {
            format!("<- refused: {} {}", clean(code), clean(words)).trim_end().to_owned()
        }
        Heard::Edits(_) => {
            let lines: Vec<_> = outcomes
                .iter()
                .map(|outcome| format!("<- edit: {}", clean(&outcome.describe())))
                .collect();
            lines.join("\n")
        }
        Heard::Other(line) => format!("<- {}", clean(line)),
    };
    (!words.is_empty()).then_some(words)
}

/// The variables, one a line.
pub(super) fn variables(variables: &Variables) -> String {
    let line = |name: &str, kind: &str, value: &str| {
        format!("{} = {}  ({})", clean(name), clean(value), clean(kind))
    };
    let lines: Vec<_> =
        variables.all().map(|known| line(&known.name, &known.kind, &known.value)).collect();
    if lines.is_empty() { "no variables yet: var gravity 9.8".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::heard::Edit;
    use crate::device::values::Variable;

    #[test]
    fn edits_are_told_by_what_they_did() {
        let mut variables = Variables::default();
        variables.declare(Variable::float("gravity", 9.8).range(0.0, 20.0));
        let outcomes =
            [variables.obey(&Edit::set("gravity", "99")), variables.obey(&Edit::set("wind", "1"))];
        let words = heard(&Heard::Edits(Vec::new()), &outcomes).unwrap();
        let lines: Vec<_> = words.lines().collect();
        assert_eq!(lines[0], "<- edit: gravity is 20 now, as near as its range allows to 99");
        assert_eq!(lines[1], "<- edit: wind is wanted as 1, but this device has no wind");
    }

    #[test]
    fn an_edit_of_nothing_shows_nothing() {
        assert_eq!(heard(&Heard::Edits(Vec::new()), &[]), None);
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        assert_eq!(heard(&Heard::Other("a\u{1b}[2J".into()), &[]).unwrap(), "<- a [2J");
    }
}
