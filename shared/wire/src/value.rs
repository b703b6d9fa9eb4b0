//! Values of variables: what a text of a type means, its one canonical form, and when two are equal.
//!
//! "Applied" is decided here and nowhere else: by what values mean, never by comparing their text.

use std::borrow::Cow;

use serde_json::Value as Json;

/// The type of a variable, as its declaration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VarType {
    /// Any text.
    String,
    /// 64 bit decimal.
    Integer,
    /// Finite, binary.
    Float,
    /// `true` or `false`.
    Boolean,
    /// One of the declaration's options.
    Enum,
    /// `#rrggbbaa`.
    Color,
    /// Two to four numbers.
    Vector,
    /// Any JSON.
    Json,
    /// A type of a later release, or the game's own: kept as text.
    Unknown,
}

impl VarType {
    /// Reads the name of a type.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "string" => Self::String,
            "integer" => Self::Integer,
            "float" => Self::Float,
            "boolean" => Self::Boolean,
            "enum" => Self::Enum,
            "color" => Self::Color,
            "vector" => Self::Vector,
            "json" => Self::Json,
            _ => Self::Unknown,
        }
    }
}

/// A text is no value of its type. The words say what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub Cow<'static, str>);

/// Brings `text` into the one form that a value of `kind` has, independent of locale.
///
/// # Errors
///
/// [`InvalidValue`] says what would be a value of the type.
pub fn canonical(kind: VarType, text: &str) -> Result<String, InvalidValue> {
    match kind {
        VarType::String | VarType::Enum | VarType::Unknown => Ok(text.to_owned()),
        VarType::Integer => integer(text).map(|number| number.to_string()),
        VarType::Float => float(text).map(|number| number.to_string()),
        VarType::Boolean => boolean(text).map(|truth| truth.to_string()),
        VarType::Color => color(text),
        VarType::Vector => vector(text).map(|numbers| {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            format!("[{}]", numbers.join(","))
        }),
        VarType::Json => json(text).map(|_| without_spaces(text)),
    }
}

/// Whether two texts mean the same value of `kind`; floats of `bits` 32 are compared after rounding
/// to that. Texts that are no values of the type are equal only letter by letter.
#[must_use]
pub fn equal(kind: VarType, bits: u32, left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    let same_float = |left: f64, right: f64| same_number(bits, left, right);
    match kind {
        VarType::String | VarType::Enum | VarType::Unknown => false,
        VarType::Integer => both(integer(left), integer(right), |l, r| l == r),
        VarType::Float => both(float(left), float(right), same_float),
        VarType::Boolean => both(boolean(left), boolean(right), |l, r| l == r),
        VarType::Color => both(color(left), color(right), |l, r| l == r),
        VarType::Vector => both(vector(left), vector(right), |l, r| {
            l.len() == r.len() && l.iter().zip(&r).all(|(l, r)| same_float(*l, *r))
        }),
        VarType::Json => both(json(left), json(right), |l, r| same_json(&l, &r)),
    }
}

fn both<T>(
    left: Result<T, InvalidValue>,
    right: Result<T, InvalidValue>,
    same: impl Fn(T, T) -> bool,
) -> bool {
    match (left, right) {
        (Ok(left), Ok(right)) => same(left, right),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn same_number(bits: u32, left: f64, right: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is what is asked for")]
    let (left32, right32) = (left as f32, right as f32);
    #[expect(clippy::float_cmp, reason = "equal means the same number, not a near one")]
    if bits == 32 { left32 == right32 } else { left == right }
}

fn integer(text: &str) -> Result<i64, InvalidValue> {
    text.trim().parse().map_err(|_| InvalidValue("expected a whole number of 64 bits".into()))
}

fn float(text: &str) -> Result<f64, InvalidValue> {
    let number: f64 = text.trim().parse().map_err(|_| not_a_number())?;
    // -0 and 0 are one number; it has one text.
    if number.is_finite() { Ok(number + 0.0) } else { Err(not_a_number()) }
}

fn not_a_number() -> InvalidValue {
    InvalidValue("expected a number with a decimal point, neither infinite nor NaN".into())
}

fn boolean(text: &str) -> Result<bool, InvalidValue> {
    match text.trim() {
        "true" | "True" | "TRUE" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "0" => Ok(false),
        _ => Err(InvalidValue("expected true or false".into())),
    }
}

fn color(text: &str) -> Result<String, InvalidValue> {
    let digits = text.trim().strip_prefix('#').unwrap_or_default().to_ascii_lowercase();
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match digits.len() {
        6 if hex => Ok(format!("#{digits}ff")),
        8 if hex => Ok(format!("#{digits}")),
        _ => Err(InvalidValue("expected a colour as #rrggbb or #rrggbbaa".into())),
    }
}

fn vector(text: &str) -> Result<Vec<f64>, InvalidValue> {
    let wrong = || InvalidValue("expected two to four numbers, as [x,y]".into());
    let numbers: Vec<f64> = serde_json::from_str(text).map_err(|_| wrong())?;
    if (2..=4).contains(&numbers.len()) {
        Ok(numbers.into_iter().map(|number| number + 0.0).collect())
    } else {
        Err(wrong())
    }
}

/// JSON without white space outside of strings. Numbers stay as they are written: reading them would
/// round large ones.
fn without_spaces(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |char: &char| {
        let keep = in_string || !char.is_ascii_whitespace();
        if *char == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && *char == '\\' && !escaped;
        keep
    };
    text.chars().filter(keep).collect()
}

/// Whether two JSON values are the same, 1 and 1.0 being one number.
fn same_json(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same_json(l, r))
        }
        (Json::Object(left), Json::Object(right)) => {
            let same = |(name, value): (&String, &Json)| {
                right.get(name).is_some_and(|other| same_json(value, other))
            };
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}

fn json(text: &str) -> Result<Json, InvalidValue> {
    serde_json::from_str(text).map_err(|error| InvalidValue(format!("no JSON: {error}").into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_value_has_one_text() {
        for (kind, text, expected) in [
            (VarType::Integer, " -01 ", "-1"),
            (VarType::Float, "3.0", "3"),
            (VarType::Float, "-0", "0"),
            (VarType::Float, "1e-7", "0.0000001"),
            (VarType::Boolean, "True", "true"),
            (VarType::Boolean, "0", "false"),
            (VarType::Color, "#AABBCC", "#aabbccff"),
            (VarType::Vector, "[1.0, -2.5]", "[1,-2.5]"),
            (VarType::Json, "{ \"a \\\" \" : [1.0] }", "{\"a \\\" \":[1.0]}"),
            (VarType::Json, "12345678901234567890123", "12345678901234567890123"),
            (VarType::String, " as is ", " as is "),
        ] {
            assert_eq!(canonical(kind, text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_of_its_type_is_refused() {
        for (kind, text) in [
            (VarType::Integer, "1.5"),
            (VarType::Integer, "9223372036854775808"),
            (VarType::Float, "NaN"),
            (VarType::Float, "inf"),
            (VarType::Float, "1,5"),
            (VarType::Boolean, "yes"),
            (VarType::Color, "#12345"),
            (VarType::Vector, "[1]"),
            (VarType::Vector, "[1,2,3,4,5]"),
            (VarType::Json, "{"),
        ] {
            assert!(canonical(kind, text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_equal_by_what_it_means() {
        assert!(equal(VarType::Json, 64, r#"{"a":1,"b":[2]}"#, r#"{ "b": [2.0], "a": 1.0 }"#));
        assert!(!equal(VarType::Json, 64, r#"{"a":1}"#, r#"{"a":1,"b":2}"#));
    }

    #[test]
    fn floats_of_32_bits_are_equal_after_rounding() {
        assert!(equal(VarType::Float, 32, "0.1", "0.10000000149011612"));
        assert!(!equal(VarType::Float, 64, "0.1", "0.10000000149011612"));
        assert!(equal(VarType::Float, 64, "9.80", "9.8"));
        assert!(!equal(VarType::String, 64, "9.80", "9.8"));
    }

    proptest! {
        #[test]
        fn a_float_reads_back_from_its_text(number in proptest::num::f64::NORMAL) {
            let text = canonical(VarType::Float, &number.to_string()).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
            let exponent = format!("{number:e}");
            prop_assert!(equal(VarType::Float, 64, &text, &exponent));
        }
    }
}
