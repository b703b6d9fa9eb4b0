//! What search means, in every store alike: one function normalises stored text and queries, because
//! the stores' own tokenizers differ (`player.spawn` is one word to one, two to the other).

/// Longest query, in bytes. Longer ones are refused by the api.
pub const QUERY_BYTES_MAX: usize = 1024;

/// Most terms of a query. What comes after them is refused by the api.
pub const QUERY_TERMS_MAX: usize = 32;

/// Lower-cases `text` and turns every run of characters that are neither letters nor digits into one
/// space, appended to `out`.
pub fn normalise_into(text: &str, out: &mut String) {
    if text.is_ascii() {
        for byte in text.bytes() {
            push(
                out,
                if byte.is_ascii_alphanumeric() {
                    char::from(byte.to_ascii_lowercase())
                } else {
                    ' '
                },
            );
        }
        return;
    }
    for char in text.chars() {
        if char.is_alphanumeric() {
            // A letter can become a letter and a mark, which is no letter and would cut the word when it
            // is normalised again: as a query, or by a store's own tokenizer.
            out.extend(char.to_lowercase().filter(|lower| lower.is_alphanumeric()));
        } else {
            push(out, ' ');
        }
    }
}

fn push(out: &mut String, char: char) {
    if char != ' ' || !(out.is_empty() || out.ends_with(' ')) {
        out.push(char);
    }
}

/// The words of a text, normalised.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut normalised = String::with_capacity(text.len());
    normalise_into(text, &mut normalised);
    normalised.split_whitespace().map(str::to_owned).collect()
}

/// The longest prefix of `text` of at most `bytes_max` bytes that ends between characters.
#[must_use]
pub fn prefix(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One condition of a query. All must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// These words stand next to each other, in this order. One word is a phrase of one.
    Phrase(Vec<String>),
    /// Like [`Term::Phrase`], but the last word may go on: the word being typed.
    Prefix(Vec<String>),
    /// The game's top-level field `name` has exactly this text, number or truth value.
    Field {
        /// Name of the field, as the game writes it.
        name: String,
        /// Its value as text.
        value: String,
    },
}

/// Reads a query: words, `"a phrase"`, `name:value`, `name:"a value"`.
///
/// Nothing is an error: what is no field and no phrase is words, and a term without a letter or
/// digit says nothing.
#[must_use]
pub fn parse_query(query: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut rest = query.trim_start();
    while !rest.is_empty() {
        let (term, tail) = next_term(rest);
        rest = tail.trim_start();
        // A space behind the last word says that it is whole.
        let typing = rest.is_empty() && !query.ends_with(char::is_whitespace);
        match term {
            Raw::Field { name, value } => terms.push(Term::Field { name, value }),
            Raw::Word(text) if typing => push_words(&mut terms, words(text), Term::Prefix),
            Raw::Word(text) | Raw::Quoted(text) => {
                push_words(&mut terms, words(text), Term::Phrase);
            }
        }
    }
    terms
}

enum Raw<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Field { name: String, value: String },
}

fn push_words(terms: &mut Vec<Term>, words: Vec<String>, make: fn(Vec<String>) -> Term) {
    if !words.is_empty() {
        terms.push(make(words));
    }
}

/// Takes the first term off `rest`, which is not empty and begins with no space.
fn next_term(rest: &str) -> (Raw<'_>, &str) {
    if let Some(quoted) = rest.strip_prefix('"') {
        let (text, tail) = quoted.split_once('"').unwrap_or((quoted, ""));
        return (Raw::Quoted(text), tail);
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (word, tail) = rest.split_at(end);
    let Some((name, value)) = word.split_once(':') else {
        return (Raw::Word(word), tail);
    };
    if name.is_empty() || value.is_empty() {
        return (Raw::Word(word), tail);
    }
    let name = name.to_owned();
    if value.starts_with('"') {
        let quoted = &rest[name.len() + 2..];
        let (value, tail) = quoted.split_once('"').unwrap_or((quoted, ""));
        return (Raw::Field { name, value: value.to_owned() }, tail);
    }
    (Raw::Field { name, value: value.to_owned() }, tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn phrase(words: &[&str]) -> Term {
        Term::Phrase(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn text_and_query_are_cut_into_the_same_words() {
        assert_eq!(words("Player.Spawn(x=-1) ÄÖ"), ["player", "spawn", "x", "1", "äö"]);
    }

    #[test]
    fn a_query_is_words_phrases_and_fields() {
        assert_eq!(
            parse_query("time \"Out now\" hp:10 player.spa"),
            [
                phrase(&["time"]),
                phrase(&["out", "now"]),
                Term::Field { name: "hp".into(), value: "10".into() },
                Term::Prefix(vec!["player".into(), "spa".into()]),
            ]
        );
        assert_eq!(
            parse_query("name:\"a b\" x "),
            [Term::Field { name: "name".into(), value: "a b".into() }, phrase(&["x"]),]
        );
    }

    #[test]
    fn an_odd_query_is_read_as_words() {
        assert_eq!(parse_query(" :: \"\" -- "), []);
        assert_eq!(parse_query("\"never ends"), [phrase(&["never", "ends"])]);
        assert_eq!(parse_query("a: :b "), [phrase(&["a"]), phrase(&["b"])]);
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,32}") {
            let once = words(&text);
            prop_assert_eq!(words(&once.join(" ")).len() >= once.len(), true);
            for word in &once {
                prop_assert!(!word.contains([' ', '"', '*']));
            }
        }

        #[test]
        fn any_query_is_read(query in "\\PC{0,64}") {
            prop_assert!(parse_query(&query).len() <= query.len());
        }
    }
}
