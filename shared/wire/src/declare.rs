//! The payload of an `i:` line: variables as they are on the device, each with its declaration.
//!
//! The gateway checks it here and sends the bytes on; var-store reads the same bytes with the same
//! function, so that both mean the same.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Code, Refusal};
use crate::json;
use crate::limits::Limits;
use crate::value::VarType;

/// What one element of an `i:` line says.
#[derive(Clone, Debug)]
pub enum Declared<'a> {
    /// A variable with the value that it has on the device.
    Value(Declaration<'a>),
    /// The variable exists no more.
    Withdrawn {
        /// Its name.
        name: Cow<'a, str>,
    },
    /// What follows replaces the session's whole set.
    Reset,
}

/// A variable and its value on the device.
#[derive(Clone, Debug)]
pub struct Declaration<'a> {
    /// Name, at most [`Limits::name_bytes_max`].
    pub name: Cow<'a, str>,
    /// Type as the game wrote it; `string` when it did not say and the value is text.
    pub kind: Cow<'a, str>,
    /// The value as text: the string itself, or the JSON of anything else.
    pub value: Cow<'a, str>,
    /// 32 when the device rounds floats to that, else 64.
    pub bits: u32,
    /// The whole element as the game sent it, with fields that we don't know.
    pub json: &'a str,
}

#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    bits: Option<&'a RawValue>,
    #[serde(borrow, default)]
    gone: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reset: Option<&'a RawValue>,
}

/// Reads and checks the payload of an `i:` line.
///
/// # Errors
///
/// [`Code::BadJson`], [`Code::BadShape`], [`Code::TooMany`], [`Code::TooDeep`] or [`Code::TooBig`];
/// the words name the element.
pub fn read<'a>(payload: &'a str, limits: &Limits) -> Result<Vec<Declared<'a>>, Refusal> {
    let whole: &RawValue = serde_json::from_str(payload).map_err(|error| json::bad_json(&error))?;
    json::check_depth(payload, 1, limits)?;
    let elements: Vec<&RawValue> = match whole.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(whole.get()).map_err(|error| json::bad_json(&error))?,
        _ => vec![whole],
    };
    if elements.len() > limits.line_vars_max {
        return Err(Refusal::new(
            Code::TooMany,
            format!("a line carries at most {} variables", limits.line_vars_max),
        ));
    }
    elements.iter().enumerate().map(|(index, json)| read_one(json.get(), index, limits)).collect()
}

fn read_one<'a>(json: &'a str, index: usize, limits: &Limits) -> Result<Declared<'a>, Refusal> {
    let shape = |words: &str| Refusal::new(Code::BadShape, format!("variable {index}: {words}"));
    // A struct would also be read from an array; a variable is an object.
    if !json.starts_with('{') {
        return Err(shape("expected an object with name, type and value"));
    }
    let element: Element<'a> =
        serde_json::from_str(json).map_err(|error| shape(&error.to_string()))?;
    if is_true(element.reset) {
        return Ok(Declared::Reset);
    }
    let name = element.name.and_then(string).ok_or_else(|| shape("name is missing or no text"))?;
    if name.is_empty() {
        return Err(shape("name is empty"));
    }
    let big = |what: &str, max: usize| {
        Refusal::new(Code::TooBig, format!("variable {index}: {what} has more than {max} bytes"))
    };
    if name.len() > limits.name_bytes_max {
        return Err(big("name", limits.name_bytes_max));
    }
    if is_true(element.gone) {
        return Ok(Declared::Withdrawn { name });
    }
    let value = element.value.ok_or_else(|| shape("value is missing"))?;
    let kind = match element.kind {
        Some(kind) => string(kind).ok_or_else(|| shape("type is no text"))?,
        None => type_of(value).into(),
    };
    if kind.len() > limits.name_bytes_max {
        return Err(big("type", limits.name_bytes_max));
    }
    let value = text_of(value);
    if value.len() > limits.value_bytes_max {
        return Err(big("value", limits.value_bytes_max));
    }
    let bits = if element.bits.is_some_and(|bits| bits.get() == "32") { 32 } else { 64 };
    Ok(Declared::Value(Declaration { name, kind, value, bits, json }))
}

impl Declaration<'_> {
    /// The type that decides how values are read and compared.
    #[must_use]
    pub fn var_type(&self) -> VarType {
        VarType::named(&self.kind)
    }
}

/// A JSON value as the text of a variable: a string's content, else the JSON as it stands.
#[must_use]
pub fn text_of(value: &RawValue) -> Cow<'_, str> {
    string(value).unwrap_or(Cow::Borrowed(value.get()))
}

/// The type of a value that came without one.
#[must_use]
pub fn type_of(value: &RawValue) -> &'static str {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b't' | b'f') => "boolean",
        Some(b'[' | b'{') => "json",
        Some(b'-' | b'0'..=b'9') if text.parse::<i64>().is_ok() => "integer",
        Some(b'-' | b'0'..=b'9') => "float",
        _ => "string",
    }
}

fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    // Borrowed where it holds no escape, which is nearly always.
    serde_json::from_str::<&str>(text)
        .map(Cow::Borrowed)
        .or_else(|_| serde_json::from_str::<String>(text).map(Cow::Owned))
        .ok()
}

fn is_true(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get() == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str) -> Result<Vec<String>, Code> {
        let declared = read(payload, &Limits::default()).map_err(|refusal| refusal.code)?;
        Ok(declared
            .iter()
            .map(|declared| match declared {
                Declared::Value(d) => format!("{} {} {} {}", d.name, d.kind, d.value, d.bits),
                Declared::Withdrawn { name } => format!("-{name}"),
                Declared::Reset => "reset".into(),
            })
            .collect())
    }

    #[test]
    fn variables_are_read_whatever_their_value_is() {
        let payload = r#"[{"name":"a","type":"integer","value":"-1"},
            {"name":"b","value":1.50,"bits":32},{"name":"c","value":true},
            {"name":"d","value":[1, 2]},{"name":"e","type":"string","value":"\u0041","x":1},
            {"reset":true},{"name":"f","gone":true}]"#;
        let expected = [
            "a integer -1 64",
            "b float 1.50 32",
            "c boolean true 64",
            "d json [1, 2] 64",
            "e string A 64",
            "reset",
            "-f",
        ];
        assert_eq!(check(payload).unwrap(), expected);
        assert_eq!(check("{\"name\":\"a\",\"value\":\"1\"}").unwrap(), ["a string 1 64"]);
        assert_eq!(check("[]"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for (payload, code) in [
            ("[1]", Code::BadShape),
            ("7", Code::BadShape),
            ("[[\"a\"]]", Code::BadShape),
            ("[{\"value\":1}]", Code::BadShape),
            ("[{\"name\":\"\",\"value\":1}]", Code::BadShape),
            ("[{\"name\":\"a\"}]", Code::BadShape),
            ("[{\"name\":1,\"value\":1}]", Code::BadShape),
            ("[{]", Code::BadJson),
        ] {
            assert_eq!(check(payload), Err(code), "{payload}");
        }
    }

    #[test]
    fn bounds_hold_at_the_limit_and_one_past_it() {
        let limits = Limits::default();
        let one = |name: usize, value: usize| {
            check(&format!(
                "[{{\"name\":\"{}\",\"value\":\"{}\"}}]",
                "n".repeat(name),
                "v".repeat(value)
            ))
            .map(|list| list.len())
        };
        assert_eq!(one(limits.name_bytes_max, limits.value_bytes_max), Ok(1));
        assert_eq!(one(limits.name_bytes_max + 1, 1), Err(Code::TooBig));
        assert_eq!(one(1, limits.value_bytes_max + 1), Err(Code::TooBig));
        let many = |count: usize| {
            check(&format!("[{}]", vec!["{\"name\":\"a\",\"value\":1}"; count].join(",")))
                .map(|list| list.len())
        };
        assert_eq!(many(limits.line_vars_max), Ok(limits.line_vars_max));
        assert_eq!(many(limits.line_vars_max + 1), Err(Code::TooMany));
    }
}
