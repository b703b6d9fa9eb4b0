//! A real Elasticsearch node, from the jars and the launcher of `tests/elasticsearch/`.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::{Launch, Server, repository};

/// How to start an Elasticsearch.
#[derive(Clone, Debug, Default)]
pub struct ElasticsearchOptions {
    /// Settings of the node, as `name=value`.
    pub settings: Vec<String>,
}

/// A running Elasticsearch. It takes seconds to start and half a gigabyte of memory: prefer
/// [`Elasticsearch::shared`] with names of indices that no other test uses.
#[derive(Debug)]
pub struct Elasticsearch(Server);

impl Elasticsearch {
    /// The node that all tests of this process share, started by the first who asks.
    ///
    /// # Panics
    ///
    /// As [`Elasticsearch::start`] does.
    pub async fn shared() -> &'static Self {
        // Never dropped: the watchdog ends it with the process.
        static SHARED: OnceCell<Elasticsearch> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(ElasticsearchOptions::default())).await
    }

    /// Starts a node of the test's own and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it is not on this machine, or not ready within 3 minutes: seconds, but not on a busy machine.
    pub async fn start(options: ElasticsearchOptions) -> Self {
        let program = repository().join("tests/elasticsearch/run.sh");
        let ready_within = Duration::from_mins(3);
        let launch = Launch { name: "elasticsearch", program, ask: health, ready_within };
        let server = Server::start(launch, |port, folder| {
            let mut args = vec![port.to_string().into(), folder.into()];
            args.extend(options.settings.into_iter().map(Into::into));
            args
        });
        Self(server.await)
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Deref for Elasticsearch {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Elasticsearch {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

/// One request without a body; the whole answer, or an error when its status is not 200.
async fn get(port: u16, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(answer) } else { Err(io::Error::other(answer)) }
}

fn health(port: u16) -> BoxFuture<'static, io::Result<()>> {
    // Yellow: its indices, those of an earlier life too, can be read and written.
    get(port, "/_cluster/health?wait_for_status=yellow&timeout=1s")
        .map(|answer| answer.map(drop))
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shared_node_tells_its_version() {
        let shared = Elasticsearch::shared().await;
        let answer = get(shared.port(), "/").await.unwrap();
        assert!(answer.contains("\"number\":\"8.17.0\""), "{answer}");
    }

    #[tokio::test]
    async fn document_survives_kill_and_restart() {
        let mut node = Elasticsearch::start(ElasticsearchOptions::default()).await;
        let mut socket = TcpStream::connect(node.address()).await.unwrap();
        let put = "PUT /kept/_doc/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        socket.write_all(put.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");

        node.kill();
        node.restart().await;

        assert!(get(node.port(), "/kept/_doc/1").await.unwrap().contains("\"found\":true"));
    }
}
