//! `POST …/devices/{device}/send`: what games shall send, told to all gateways. Who gets it, nobody
//! knows here: the games that are there now and can do it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use observer_bus::Topic;
use observer_wire::ProjectId;
use observer_wire::ask::Control;
use observer_wire::hello::FIELD_BYTES_MAX;
use observer_wire::sending::Sending;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tracing::warn;

use crate::app::App;
use crate::guard::OpenProject;
use crate::object;
use crate::problem::ApiError;
use crate::query::Params;
use crate::router::JsonText;
use crate::vars::Json;

/// Stands for every device.
const ALL: &str = "*";

/// Tells games what to send.
pub(crate) async fn send(
    OpenProject(project): OpenProject,
    State(app): State<Arc<App>>,
    Path(path): Path<HashMap<String, String>>,
    params: Params,
    body: Result<JsonText, ApiError>,
) -> Result<(StatusCode, Json), ApiError> {
    params.check_names(&[])?;
    let device = path.get("device").map(String::as_str).unwrap_or_default();
    let control = read(project, device, &body?.0)?;
    let payload = serde_json::to_vec(&control).expect("a plain enum always serialises");
    if let Err(error) = app.ports.bus.broadcast(Topic::Control, Bytes::from(payload)).await {
        warn!(error = %observer_chassis::reason(&error), "gateways were not told");
        return Err(ApiError::Busy("the gateways cannot be reached now".into()));
    }
    Ok((StatusCode::ACCEPTED, Json("{}".to_owned())))
}

/// Reads path and body.
fn read(project: ProjectId, device: &str, body: &str) -> Result<Control, ApiError> {
    if FIELD_BYTES_MAX < device.len() || device.chars().any(char::is_control) {
        return Err(ApiError::field("device", "expected the id of a device, or * for all"));
    }
    let body: &RawValue =
        serde_json::from_str(body).map_err(|error| ApiError::BadJson(error.to_string()))?;
    let fields = object::fields(body.get()).map_err(|_| {
        ApiError::BadRequest("the body is no object with level, tags or send".into())
    })?;
    let mut sending = Sending::default();
    for (name, json) in fields {
        match name.as_ref() {
            "level" => sending.level = field(json, "level", "expected the name of a level")?,
            "tags" => {
                let words = "expected an object of levels by tag";
                sending.tags = field::<Option<_>>(json, "tags", words)?.unwrap_or_default();
            }
            "until" => sending.until = field(json, "until", "expected Unix milliseconds")?,
            "send" => sending.send = field(json, "send", "expected true or false")?,
            _ => return Err(ApiError::field(name, "unknown field")),
        }
    }
    sending.check().map_err(|bad| ApiError::field(bad.field, bad.words))?;
    let device = (device != ALL).then(|| device.to_owned());
    Ok(Control::Send { project, device, sending })
}

fn field<T: DeserializeOwned>(json: &RawValue, name: &str, words: &str) -> Result<T, ApiError> {
    T::deserialize(json).map_err(|_| ApiError::field(name, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> ProjectId {
        "0123456789ab".parse().unwrap()
    }

    fn check(device: &str, body: &str, expected: &str) {
        let error = read(project(), device, body).unwrap_err();
        let (_, code) = error.status_and_code();
        assert_eq!(format!("{code} {}", error.blamed_field().unwrap_or("-")), expected, "{body}");
    }

    #[test]
    fn what_to_send_is_read_for_one_device_or_all() {
        let body = r#"{"level":"debug","tags":{"net":"trace"},"until":5,"send":true}"#;
        let Control::Send { device, sending, .. } = read(project(), "d 1", body).unwrap() else {
            panic!("something else was read");
        };
        assert_eq!(device.as_deref(), Some("d 1"));
        assert_eq!(serde_json::to_string(&sending).unwrap(), body);
        let Control::Send { device, .. } = read(project(), ALL, r#"{"send":false}"#).unwrap()
        else {
            panic!("something else was read");
        };
        assert_eq!(device, None);
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        check("d", "{", "bad_json -");
        check("d", "[]", "bad_request -");
        check("d", "{}", "bad_field level");
        check("d", r#"{"level":"loud"}"#, "bad_field level");
        check("d", r#"{"level":7}"#, "bad_field level");
        check("d", r#"{"tags":["net"]}"#, "bad_field tags");
        check("d", r#"{"tags":{"net":"loud"}}"#, "bad_field tags.net");
        check("d", r#"{"send":1}"#, "bad_field send");
        check("d", r#"{"send":true,"until":"noon"}"#, "bad_field until");
        check("d", r#"{"send":true,"levle":"info"}"#, "bad_field levle");
        check("a\tb", r#"{"send":true}"#, "bad_field device");
        check(&"d".repeat(FIELD_BYTES_MAX + 1), r#"{"send":true}"#, "bad_field device");
        assert!(read(project(), &"d".repeat(FIELD_BYTES_MAX), r#"{"send":true}"#).is_ok());
    }
}
