//! A payload becomes JSON text: base64 is decoded into a buffer that the caller keeps, plain JSON is
//! used where it stands. Nothing is looked at inside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::answer::{Code, Refusal};

/// What stands between the key and the message id of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Base64, standard alphabet, padded.
    Base64(&'a [u8]),
    /// The JSON itself, as a person types it.
    Json(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// The payload as text, decoded into `scratch` where it has to be; what `scratch` held is gone.
    ///
    /// # Errors
    ///
    /// [`Code::BadBase64`], or [`Code::BadJson`] when the bytes are no UTF-8.
    pub fn decode<'s>(self, scratch: &'s mut Vec<u8>) -> Result<&'s str, Refusal>
    where
        'a: 's,
    {
        let json: &'s [u8] = match self {
            Self::Json(json) => json,
            Self::Base64(text) => {
                scratch.clear();
                // A quarter of the time of the other, which is asked for words only.
                if base64_simd::STANDARD.decode_append(text, scratch).is_err() {
                    return Err(refusal(text));
                }
                scratch
            }
        };
        std::str::from_utf8(json).map_err(|error| {
            Refusal::new(Code::BadJson, format!("the payload is no UTF-8 ({error})"))
        })
    }
}

/// What is wrong with base64 that could not be decoded.
#[cold]
fn refusal(text: &[u8]) -> Refusal {
    let error = STANDARD.decode(text).err().map_or_else(String::new, |error| format!(" ({error})"));
    Refusal::new(Code::BadBase64, format!("the payload is neither base64 nor JSON{error}"))
}

/// Appends `json` in base64, as every line to a game carries it.
pub fn encode(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + json.len().div_ceil(3) * 4, 0);
    let written =
        STANDARD.encode_slice(json, &mut out[start..]).expect("the space was made to measure");
    out.truncate(start + written);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = b"what was here before".to_vec();
        let json = Payload::Base64(text).decode(&mut decoded);
        json.ok().map(|json| json.as_bytes().to_vec())
    }

    /// What the library that says what is wrong makes of it.
    fn by_the_book(text: &[u8]) -> Option<Vec<u8>> {
        STANDARD.decode(text).ok().filter(|json| std::str::from_utf8(json).is_ok())
    }

    #[test]
    fn padding_and_last_bits_are_as_strict_as_the_book() {
        for text in ["", "e30=", "e30", "e30==", "e31=", "e3=", "e===", "e", "e30=e30=", "e30\n"] {
            assert_eq!(decode(text.as_bytes()), by_the_book(text.as_bytes()), "{text:?}");
        }
        let refusal = Payload::Base64(b"e3-").decode(&mut Vec::new()).unwrap_err();
        assert!(refusal.to_string().contains("Invalid symbol 45, offset 2"), "{refusal}");
    }

    proptest! {
        #[test]
        fn what_is_decoded_and_what_is_not_is_the_book_s(text in "[A-Za-d0-9+/=]{0,9}|[A-Za-z0-9+/=_ -]{0,80}") {
            prop_assert_eq!(decode(text.as_bytes()), by_the_book(text.as_bytes()));
        }

        #[test]
        fn what_was_encoded_is_decoded(json in ".{0,200}") {
            let mut encoded = Vec::new();
            encode(json.as_bytes(), &mut encoded);
            prop_assert_eq!(decode(&encoded), Some(json.into_bytes()));
        }
    }
}
