//! A program that calls the api: JSON in, status and JSON out.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

/// Time for a whole request. Generous: the machine may be busy with builds.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A client of one api.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    client: Client,
}

/// What the api answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type, as it came; empty when there was none.
    pub content_type: String,
    /// The body as it came.
    pub text: String,
    /// The body as JSON, `null` when it is none.
    pub json: Value,
}

impl Api {
    /// A client of the api at `address`. Nothing is sent.
    ///
    /// # Panics
    ///
    /// When the machine cannot make HTTP clients at all.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let client = Client::builder().timeout(ANSWER_WITHIN).no_proxy().build();
        Self { address, client: client.expect("plain HTTP needs nothing that could be missing") }
    }

    /// Where the api listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of a WebSocket of this api; `path` with its leading slash.
    #[must_use]
    pub fn ws_url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// `GET`.
    ///
    /// # Errors
    ///
    /// When there is no whole answer, whatever its status.
    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// A request that the test builds further: headers, odd bodies.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends what [`Api::request`] began.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status, content_type, text, json })
    }

    /// Registers a key that is free on the server, and returns it.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub async fn new_key(&self) -> String {
        let answer = self.get("/users/tokens").await.expect("the api is up");
        let registered = self.post("/users/tokens", &answer.json).await.expect("the api is up");
        assert_eq!(registered.status, 200, "{}", registered.text);
        registered.json["token"].as_str().expect("an answer of 200 has the key").to_owned()
    }

    /// Logs of a project, newest first. `query` without its question mark.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn logs(&self, key: &str, query: &str) -> reqwest::Result<Answer> {
        self.get(&format!("/api/v1/projects/{key}/logs?{query}")).await
    }

    /// Variables of a project.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn vars(&self, key: &str) -> reqwest::Result<Answer> {
        self.get(&format!("/api/v1/projects/{key}/vars")).await
    }

    /// Edits variables of a project.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn edit(&self, key: &str, body: &Value) -> reqwest::Result<Answer> {
        let path = format!("/api/v1/projects/{key}/vars");
        self.send(self.request(Method::PATCH, &path).json(body)).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn answer_has_status_type_and_json() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::new(listener.local_addr().unwrap());
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = socket.read(&mut request).await.unwrap();
            let answer = "HTTP/1.1 422 x\r\ncontent-type: application/problem+json\r\n\
                 content-length: 12\r\n\r\n{\"code\":\"a\"}";
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        };
        let (answer, request) = tokio::join!(api.vars("0123456789ab"), server);
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.json), (422, json!({ "code": "a" })));
        assert_eq!(answer.content_type, "application/problem+json");
        assert!(request.starts_with("GET /api/v1/projects/0123456789ab/vars "), "{request}");
    }
}
