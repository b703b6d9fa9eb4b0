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
                STANDARD.decode_vec(text, scratch).map_err(|error| {
                    Refusal::new(
                        Code::BadBase64,
                        format!("the payload is neither base64 nor JSON ({error})"),
                    )
                })?;
                scratch
            }
        };
        std::str::from_utf8(json).map_err(|error| {
            Refusal::new(Code::BadJson, format!("the payload is no UTF-8 ({error})"))
        })
    }
}

/// Appends `json` in base64, as every line to a game carries it.
pub fn encode(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + json.len().div_ceil(3) * 4, 0);
    let written =
        STANDARD.encode_slice(json, &mut out[start..]).expect("the space was made to measure");
    out.truncate(start + written);
}
