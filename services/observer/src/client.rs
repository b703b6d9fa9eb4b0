//! How our commands talk to a running api over HTTP. What the answers mean is theirs to know.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use observer_chassis::WrongUsage;
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::Value;

use crate::ready::Ready;

/// Where the api is unless somebody says otherwise.
const API_DEFAULT: &str = "http://127.0.0.1:8080";

/// Time a request may take, its answer read.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Largest answer that is read, in bytes: a thousand records of the largest size would be more, but
/// nobody reads them on a terminal.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestFailed {
    /// Nobody answers there.
    #[error("cannot reach {url}; does `observer serve` run, and is this its address?")]
    Unreachable {
        /// Where.
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    /// The api refused, in its own words.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// What answered is no api of Observer, or the answer is cut off.
    #[error("{url} answered with what is no answer of Observer (status {status})")]
    NotOurs {
        /// Where.
        url: Url,
        /// The HTTP status.
        status: u16,
    },
}

/// A refusal: problem+json.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// Stable name.
    pub(crate) code: String,
    title: Option<String>,
    detail: Option<String>,
    field: Option<String>,
    /// Of a conflict: the revision now.
    pub(crate) revision: Option<u64>,
    /// Of a conflict: what changed meanwhile.
    pub(crate) changed: Vec<Value>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.detail.as_deref().or(self.title.as_deref()).unwrap_or("refused");
        write!(f, "{words} ({}", self.code)?;
        if let Some(field) = &self.field {
            write!(f, ", at {field}")?;
        }
        f.write_str(")")
    }
}

/// A client of one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// A client of the api at `api`, else of the one that runs here, else of the default address.
    pub(crate) fn of_api(api: Option<&str>) -> anyhow::Result<Self> {
        match api {
            Some(api) => Self::new(api),
            None => {
                Self::new(Ready::find()?.map_or(API_DEFAULT.to_owned(), |ready| ready.api).as_str())
            }
        }
    }

    /// A client of the server at `address`.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let base = parse_address(address)?;
        let mut builder = reqwest::Client::builder().timeout(ANSWER_WITHIN);
        if is_local(&base) {
            builder = builder.no_proxy(); // A proxy would look for it on its own machine.
        }
        Ok(Self { http: builder.build().context("cannot start a client for HTTP")?, base })
    }

    /// Address of `path`, segment by segment.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Address of something of the project that `key` opens.
    pub(crate) fn project_url(&self, key: &str, what: &str) -> Url {
        self.url(&["api", "v1", "projects", key, what])
    }

    /// Address of a dead letter of the project that `key` opens.
    pub(crate) fn letter_url(&self, key: &str, id: u64) -> Url {
        self.url(&["api", "v1", "projects", key, "dead-letters", &id.to_string()])
    }

    /// Asks for a JSON answer.
    pub(crate) async fn get(&self, url: Url) -> Result<Value, RequestFailed> {
        self.send(self.http.request(Method::GET, url.clone()), url).await
    }

    /// Changes something.
    pub(crate) async fn patch(&self, url: Url, body: &Value) -> Result<Value, RequestFailed> {
        self.send(self.http.request(Method::PATCH, url.clone()).json(body), url).await
    }

    /// Does something.
    pub(crate) async fn post(&self, url: Url) -> Result<Value, RequestFailed> {
        self.send(self.http.request(Method::POST, url.clone()), url).await
    }

    /// Takes something away.
    pub(crate) async fn delete(&self, url: Url) -> Result<Value, RequestFailed> {
        self.send(self.http.request(Method::DELETE, url.clone()), url).await
    }

    /// Asks for a JSON answer of any status.
    pub(crate) async fn status_and_json(&self, url: Url) -> Result<(u16, Value), RequestFailed> {
        read(self.http.request(Method::GET, url.clone()), url).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        url: Url,
    ) -> Result<Value, RequestFailed> {
        let (status, json) = read(request, url.clone()).await?;
        if (200..300).contains(&status) {
            return Ok(json);
        }
        match serde_json::from_value::<Problem>(json) {
            Ok(problem) if !problem.code.is_empty() => {
                Err(RequestFailed::Refused(Box::new(problem)))
            }
            Ok(_) | Err(_) => Err(RequestFailed::NotOurs { url, status }),
        }
    }
}

async fn read(request: reqwest::RequestBuilder, url: Url) -> Result<(u16, Value), RequestFailed> {
    let unreachable = |source| RequestFailed::Unreachable { url: url.clone(), source };
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if ANSWER_BYTES_MAX < body.len() + chunk.len() {
            return Err(RequestFailed::NotOurs { url, status });
        }
        body.extend_from_slice(&chunk);
    }
    let json = serde_json::from_slice(&body);
    json.map(|json| (status, json)).map_err(|_| RequestFailed::NotOurs { url, status })
}

fn parse_address(address: &str) -> Result<Url, WrongUsage> {
    let wrong = || WrongUsage(format!("{address:?} is no address such as {API_DEFAULT}"));
    let address =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let url = Url::parse(&address).map_err(|_| wrong())?;
    if url.scheme() != "http" {
        let words = "only http:// in this release: put the command on the server's machine";
        return Err(WrongUsage(format!("{address}: {words}")));
    }
    if url.host_str().is_none_or(str::is_empty) { Err(wrong()) } else { Ok(url) }
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_built_whatever_is_in_them() {
        let client = Client::new("http://127.0.0.1:8080/base/").unwrap();
        assert_eq!(
            client.project_url("a/b", "vars").as_str(),
            "http://127.0.0.1:8080/base/api/v1/projects/a%2Fb/vars"
        );
        assert_eq!(Client::new("localhost:1").unwrap().base.as_str(), "http://localhost:1/");
        for wrong in ["https://host", "http://", "::", ""] {
            assert!(Client::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"about:blank","title":"Unprocessable","status":422,"code":"bad_field",
                "detail":"gravity is a float","field":"edits[0].value"}"#,
        )
        .unwrap();
        assert_eq!(problem.to_string(), "gravity is a float (bad_field, at edits[0].value)");
    }

    #[test]
    fn only_this_machine_is_local() {
        for (url, local) in
            [("http://[::1]:1", true), ("http://127.0.0.2", true), ("http://10.0.0.1", false)]
        {
            assert_eq!(is_local(&Url::parse(url).unwrap()), local, "{url}");
        }
    }
}
