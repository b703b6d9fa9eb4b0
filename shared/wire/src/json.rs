//! What all payloads share: how deep JSON nests, found without parsing when it cannot be deep.

use crate::answer::{Code, Refusal};
use crate::limits::Limits;

/// Checks how deep `json` nests, its outermost array or object counted as one.
///
/// Text that is no JSON may get any verdict; the parser refuses it anyway.
///
/// # Errors
///
/// [`Code::TooDeep`].
pub(crate) fn check_depth(json: &str, elements: usize, limits: &Limits) -> Result<(), Refusal> {
    let max = limits.json_depth_max as usize;
    let brackets = memchr::memchr2_iter(b'[', b'{', json.as_bytes()).count();
    // Each element but one opens at least one bracket that does not deepen the deepest.
    if brackets.saturating_sub(elements.saturating_sub(1)) <= max || depth(json) <= max {
        return Ok(());
    }
    Err(Refusal::new(Code::TooDeep, format!("JSON may nest {max} levels deep")))
}

fn depth(json: &str) -> usize {
    let bytes = json.as_bytes();
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at + 1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Position of the quote that ends the string whose text begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        if bytes[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    bytes.len()
}

/// Turns a parser's complaint into a refusal.
pub(crate) fn bad_json(error: &serde_json::Error) -> Refusal {
    let code = if error.is_data() { Code::BadShape } else { Code::BadJson };
    Refusal::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn depth_is_allowed_up_to_the_limit_and_not_one_past_it() {
        let limits = Limits::default();
        assert_eq!(check_depth(&nested(32), 1, &limits), Ok(()));
        assert_eq!(check_depth(&nested(33), 1, &limits).unwrap_err().code, Code::TooDeep);
    }

    #[test]
    fn brackets_in_strings_are_no_depth() {
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(40), "{".repeat(40));
        assert_eq!(depth(&text), 1);
        assert_eq!(depth("[\"never ends"), 1);
        assert_eq!(depth("[\"\\"), 1);
    }
}
