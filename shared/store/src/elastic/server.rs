//! One Elasticsearch behind the client crate: requests with a time limit, answers with a limit of
//! bytes, and what a failed one means.

use std::time::Duration;

use elasticsearch::auth::Credentials;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::response::Response;
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use observer_wire::text;
use serde::Deserialize;
use url::Url;

use super::day;
use crate::{BoxError, StoreError, StoreErrorKind};

/// Bytes of the server's words that are kept in an error: reasons quote the record.
const REASON_BYTES_MAX: usize = 512;

/// Most bytes of an answer, but of a search. No true one gets there: a `_bulk` body takes up to 7 MiB, and
/// were every byte of it quoted in a reason, and each escaped, the answer would have 14 MiB. What is longer
/// comes from something in between, and is not read on.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Major versions that the tests run against or that answer alike.
const MAJORS: [&str; 2] = ["8", "9"];

/// A connection to Elasticsearch.
#[derive(Debug)]
pub(super) struct Server {
    transport: Transport,
    timeout: Duration,
}

/// A request. Paths are ours, never a game's or an operator's text.
pub(super) struct Request<'a> {
    /// What it is for; names the error.
    pub(super) operation: &'static str,
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: &'a str,
    /// The body, JSON or lines of JSON; empty for none.
    pub(super) body: Vec<u8>,
    /// Time for the whole answer; `None` for the usual.
    pub(super) timeout: Option<Duration>,
    /// Bytes past which an answer is not read on.
    pub(super) answer_bytes_max: usize,
}

impl<'a> Request<'a> {
    pub(super) fn new(operation: &'static str, method: Method, path: &'a str) -> Self {
        let (body, answer_bytes_max) = (Vec::new(), ANSWER_BYTES_MAX);
        Self { operation, method, path, body, timeout: None, answer_bytes_max }
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    operation: &'static str,
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    /// The answer, when its status says that the request was done.
    pub(super) fn done(self) -> Result<Self, StoreError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refused()) }
    }

    /// Reads the answer as JSON.
    ///
    /// What cannot be read was cut off, or comes from something in between: nothing is known.
    pub(super) fn read<'t, T: Deserialize<'t>>(&'t self) -> Result<T, StoreError> {
        serde_json::from_str(&self.text)
            .map_err(|error| self.error(StoreErrorKind::Unavailable, error))
    }

    /// An error about this answer.
    pub(super) fn error(&self, kind: StoreErrorKind, source: impl Into<BoxError>) -> StoreError {
        StoreError::new(self.operation, kind, source)
    }

    /// The kind of error that the server names.
    pub(super) fn error_type(&self) -> Option<String> {
        let named: Named<'_> = serde_json::from_str(&self.text).ok()?;
        Some(named.error.kind.to_owned())
    }

    /// The status and the server's words.
    pub(super) fn words(&self) -> String {
        format!("status {}: {}", self.status, text::prefix(&self.text, REASON_BYTES_MAX))
    }

    /// An error of the status and the server's words.
    pub(super) fn refused(&self) -> StoreError {
        let kind = match self.status {
            429 => StoreErrorKind::Throttled,
            408 | 500.. => StoreErrorKind::Unavailable,
            // A block that an operator or a full disk has set; it is lifted without a restart of ours.
            403 if self.error_type().is_some_and(|name| name == "cluster_block_exception") => {
                StoreErrorKind::Unavailable
            }
            _ => StoreErrorKind::Refused,
        };
        self.error(kind, self.words())
    }

    /// An answer for tests of those who read answers.
    #[cfg(test)]
    pub(super) fn canned(status: u16, text: &str) -> Self {
        Self { operation: "test", status, text: text.to_owned() }
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    error: NamedError<'a>,
}

#[derive(Deserialize)]
struct NamedError<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
}

impl Server {
    /// A client of the server at `address`. Nothing is sent.
    pub(super) fn new(address: &str, timeout: Duration) -> Result<Self, StoreError> {
        // The address is not repeated in the error: it may hold a password.
        let mut url = Url::parse(address).map_err(refused_address)?;
        let credentials = take_credentials(&mut url);
        let pool = SingleNodeConnectionPool::new(url);
        let builder = TransportBuilder::new(pool).enable_meta_header(false).disable_proxy();
        let builder = match credentials {
            Some(credentials) => builder.auth(credentials),
            None => builder,
        };
        let transport = builder.build().map_err(refused_address)?;
        Ok(Self { transport, timeout })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] when there was no whole answer in time, or it is too long.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Answer, StoreError> {
        let Request { operation, method, path, body, timeout, answer_bytes_max } = request;
        let lost = |error: BoxError| StoreError::new(operation, StoreErrorKind::Unavailable, error);
        let mut headers = HeaderMap::new();
        if path.starts_with("/_bulk") {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        }
        let body = (!body.is_empty()).then_some(body);
        let timeout = Some(timeout.unwrap_or(self.timeout));
        let sent = self.transport.send(method, path, headers, None::<&()>, body, timeout);
        let response = sent.await.map_err(|error| lost(error.into()))?;
        let status = response.status_code().as_u16();
        let text = whole_text(response, answer_bytes_max).await.map_err(lost)?;
        Ok(Answer { operation, status, text })
    }

    /// Refuses what is not Elasticsearch 8 or 9.
    pub(super) async fn check_version(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "check of the Elasticsearch version";
        let answer = self.ask(Request::new(OPERATION, Method::Get, "/")).await?.done()?;
        let refused = |words: String| StoreError::new(OPERATION, StoreErrorKind::Refused, words);
        let root: Root<'_> = serde_json::from_str(&answer.text)
            .map_err(|_| refused("the server does not answer as Elasticsearch does".to_owned()))?;
        let (name, number) =
            (root.version.distribution.unwrap_or("elasticsearch"), root.version.number);
        let major = number.split('.').next().unwrap_or_default();
        if name == "elasticsearch" && MAJORS.contains(&major) {
            return Ok(());
        }
        Err(refused(format!("the server is {name} {number}, Observer needs elasticsearch 8 or 9")))
    }

    /// Asks whether all primary shards of our indices are there.
    pub(super) async fn check_health(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "check of Elasticsearch";
        let path = format!("/_cluster/health/{}?filter_path=status", day::ALL);
        let answer = self.ask(Request::new(OPERATION, Method::Get, &path)).await?.done()?;
        let health: Health<'_> = answer.read()?;
        if health.status == "red" {
            let words = "a primary shard of the log indices is missing";
            return Err(StoreError::new(OPERATION, StoreErrorKind::Unavailable, words));
        }
        Ok(())
    }
}

/// Reads an answer to its end, unless it says that it has more than `bytes_max` bytes. The client crate
/// reads an answer as a whole: one that does not say how long it is has no bound but the time limit.
async fn whole_text(response: Response, bytes_max: usize) -> Result<String, BoxError> {
    if response.content_length().is_some_and(|length| (bytes_max as u64) < length) {
        return Err(format!("the answer is longer than {bytes_max} bytes").into());
    }
    Ok(response.text().await?)
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow)]
    version: Version<'a>,
}

#[derive(Deserialize)]
struct Version<'a> {
    number: &'a str,
    /// Only `OpenSearch` names itself.
    distribution: Option<&'a str>,
}

#[derive(Deserialize)]
struct Health<'a> {
    status: &'a str,
}

/// Takes user and password out of `url`: the client would send them twice, and errors show the url.
fn take_credentials(url: &mut Url) -> Option<Credentials> {
    let decoded = |text: &str| {
        let pair = format!("x={text}").replace('+', "%2B");
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    let user = decoded(url.username()).filter(|user| !user.is_empty())?;
    let password = decoded(url.password().unwrap_or_default()).unwrap_or_default();
    // An address that cannot have them had none.
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.ok().map(|()| Credentials::Basic(user, password))
}

fn refused_address(error: impl Into<BoxError>) -> StoreError {
    StoreError::new("reading of the Elasticsearch address", StoreErrorKind::Refused, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, text: &str) -> StoreErrorKind {
        Answer::canned(status, text).done().unwrap_err().kind()
    }

    #[test]
    fn a_refused_request_is_sorted_by_what_the_caller_may_do() {
        let blocked = r#"{"error":{"type":"cluster_block_exception","reason":"…"},"status":403}"#;
        assert_eq!(kind(429, "{}"), StoreErrorKind::Throttled);
        assert_eq!(kind(503, "<html>"), StoreErrorKind::Unavailable);
        assert_eq!(kind(408, ""), StoreErrorKind::Unavailable);
        assert_eq!(kind(403, blocked), StoreErrorKind::Unavailable);
        assert_eq!(kind(403, "{}"), StoreErrorKind::Refused);
        assert_eq!(kind(401, ""), StoreErrorKind::Refused);
        assert_eq!(kind(302, ""), StoreErrorKind::Refused);
    }

    #[test]
    fn user_and_password_leave_the_address() {
        let mut url = Url::parse("http://us%40er:p%2B+w@localhost:9200/es").unwrap();
        let taken = take_credentials(&mut url);
        let Some(Credentials::Basic(user, password)) = taken else {
            panic!("no credentials");
        };
        assert_eq!((user.as_str(), password.as_str()), ("us@er", "p++w"));
        assert_eq!(url.as_str(), "http://localhost:9200/es");
        assert!(take_credentials(&mut url).is_none());
    }
}
