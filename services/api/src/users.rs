//! The original's routes: accounts and keys. Their bad requests are answered as the original did,
//! with `{"error":"…"}` and 400; everything else that fails is a problem like anywhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use observer_store::accounts::{Created, NewAccount};
use observer_wire::ApiKey;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::app::App;
use crate::guard::OpenKeys;
use crate::object;
use crate::problem::ApiError;
use crate::router::JsonText;

/// Longest address of an account, in bytes: longer ones cannot be written to (RFC 5321).
const EMAIL_BYTES_MAX: usize = 254;

/// Longest password, in bytes: hashing takes time that grows with it.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Tries to find a key that is not taken. One in 281 trillion is.
const KEY_TRIES_MAX: u32 = 4;

/// An answer with a key: the original calls it a token.
#[derive(Serialize)]
pub(crate) struct Token {
    token: String,
}

impl From<ApiKey> for Token {
    fn from(key: ApiKey) -> Self {
        Self { token: key.as_str().to_owned() }
    }
}

/// Why one of the original's routes refused.
pub(crate) enum UsersError {
    /// Told as the original did.
    Bad(&'static str),
    /// Told as anywhere.
    Other(ApiError),
}

impl<E: Into<ApiError>> From<E> for UsersError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl IntoResponse for UsersError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: &'static str,
        }
        match self {
            Self::Bad(error) => (StatusCode::BAD_REQUEST, Json(Body { error })).into_response(),
            Self::Other(error) => error.into_response(),
        }
    }
}

/// `GET /alive`.
pub(crate) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// The answer of `/alive`.
#[derive(Serialize)]
pub(crate) struct Alive {
    status: &'static str,
}

/// `POST /users`: makes an account with a project and its first key.
pub(crate) async fn create(
    _: OpenKeys,
    State(app): State<Arc<App>>,
    body: Result<JsonText, ApiError>,
) -> Result<Json<Token>, UsersError> {
    let [email, password] = text_fields(body, ["email", "password"])?;
    let email = email.as_deref().and_then(normal_email);
    let email = email.ok_or(UsersError::Bad("email is missing or none"))?;
    let password = password.filter(|password| !password.is_empty());
    let password = password.ok_or(UsersError::Bad("password is missing"))?;
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(UsersError::Bad("password is too long"));
    }
    let password_hash = app.hasher.hash(password).await?;
    for _ in 0..KEY_TRIES_MAX {
        let account = NewAccount {
            email: email.clone(),
            password_hash: password_hash.clone(),
            key: random_key()?,
        };
        match app.ports.accounts.create_account(&account).await? {
            Created::Now => return Ok(Json(account.key.into())),
            Created::EmailExists => return Err(UsersError::Bad("email exists")),
            Created::KeyExists => {}
        }
    }
    Err(UsersError::Other(ApiError::Internal("no free key was found")))
}

/// `GET /users/tokens`: a key that nobody has, not registered yet.
pub(crate) async fn new_token(
    _: OpenKeys,
    State(app): State<Arc<App>>,
) -> Result<Json<Token>, ApiError> {
    for _ in 0..KEY_TRIES_MAX {
        let key = random_key()?;
        if app.ports.accounts.project_of(key).await?.is_none() {
            return Ok(Json(key.into()));
        }
    }
    Err(ApiError::Internal("no free key was found"))
}

/// `POST /users/tokens`: registers a key, if it was not.
pub(crate) async fn register(
    _: OpenKeys,
    State(app): State<Arc<App>>,
    body: Result<JsonText, ApiError>,
) -> Result<Json<Token>, UsersError> {
    let [token] = text_fields(body, ["token"])?;
    let token = token.ok_or(UsersError::Bad("token is missing"))?;
    let key: ApiKey = token
        .parse()
        .map_err(|_| UsersError::Bad("a token is 12 characters of A-Z, a-z, 0-9, _ and -"))?;
    app.ports.accounts.register_key(key).await?;
    Ok(Json(key.into()))
}

fn random_key() -> Result<ApiKey, ApiError> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|_| ApiError::Internal("the system has no randomness"))?;
    Ok(ApiKey::from_random(random))
}

/// The fields of these names, where they are text. Others are ignored, as the original did.
fn text_fields<const N: usize>(
    body: Result<JsonText, ApiError>,
    names: [&str; N],
) -> Result<[Option<String>; N], UsersError> {
    let JsonText(body) = body.map_err(|error| {
        if let ApiError::BadRequest(_) = error {
            UsersError::Bad("content-type must be application/json")
        } else if let ApiError::BadJson(_) = error {
            UsersError::Bad("the body is no JSON object")
        } else {
            UsersError::Other(error)
        }
    })?;
    let fields =
        object::fields(&body).map_err(|_| UsersError::Bad("the body is no JSON object"))?;
    Ok(names.map(|name| {
        fields.iter().rev().find(|(found, _)| found == name).and_then(|(_, json)| text(json))
    }))
}

fn text(json: &RawValue) -> Option<String> {
    String::deserialize(json).ok()
}

/// The address in lower case, if it can be one. Whether it is reached, only a letter would tell.
fn normal_email(email: &str) -> Option<String> {
    let email = email.trim();
    let (name, host) = email.rsplit_once('@')?;
    let odd = |c: char| c.is_whitespace() || c.is_control();
    let good = !name.is_empty()
        && !host.is_empty()
        && email.len() <= EMAIL_BYTES_MAX
        && !email.contains(odd);
    good.then(|| email.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_sane_and_lower_case() {
        assert_eq!(normal_email(" Anna@Example.ORG ").as_deref(), Some("anna@example.org"));
        let at_limit = format!("{}@b", "a".repeat(EMAIL_BYTES_MAX - 2));
        assert!(normal_email(&at_limit).is_some());
        for bad in ["", "anna", "@b", "a@", "a b@c", "a\n@c", &format!("a{at_limit}")] {
            assert_eq!(normal_email(bad), None, "{bad}");
        }
    }
}
