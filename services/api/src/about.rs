//! `GET /api/v1/server`: what a page must know before anybody signed in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::GameAddress;
use crate::app::App;

/// The answer.
#[derive(Serialize)]
pub(crate) struct Server {
    name: &'static str,
    version: &'static str,
    game: Game,
    profile: String,
    form: &'static str,
}

#[derive(Serialize)]
struct Game {
    host: String,
    port: u16,
}

/// Shows name, version, and where games connect to.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Json<Server> {
    let GameAddress { host, port } = app.config.game_address.clone();
    let about = &app.config.about;
    Json(Server {
        name: "observer",
        version: env!("CARGO_PKG_VERSION"),
        game: Game { host, port },
        profile: about.profile.clone(),
        form: about.form,
    })
}
