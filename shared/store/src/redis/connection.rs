//! A connection that comes back: bounded waits, a fresh start after each break, and words for
//! what is wrong with the server.
//!
//! Nothing here knows what is stored.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, RedisResult,
    ScriptInvocation, ServerErrorKind, Value,
};

use crate::{StoreError, StoreErrorKind};

/// Time for one answer of the server.
///
/// The library's own 500 ms is passed by a server that rewrites its append-only file; what timed out
/// may still have been executed, so a wait costs less than a repetition.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time to open a connection, with its first commands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for a whole call: connection, script upload and second attempt included.
const CALL_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Time that bytes may stay unacknowledged before the system gives a connection up.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence before the system asks whether the other side is still there, and between its questions.
const KEEPALIVE_TIME: Duration = Duration::from_secs(5);

/// Calls that wait for their turn on the connection; further callers wait outside.
const CALLS_QUEUED_MAX: usize = 256;

/// What a server must be set to, and what to think of one that does not show its settings.
pub(super) struct Demands {
    /// The settings, all of them.
    pub(super) settings: &'static [Setting],
    /// For a server that forbids `CONFIG`.
    pub(super) hidden: Hidden,
}

/// A setting that matters.
pub(super) struct Setting {
    /// Its name in redis.conf.
    pub(super) name: &'static str,
    /// Values that will do.
    pub(super) good: &'static [&'static str],
    /// What another value does to us.
    pub(super) why: &'static str,
}

/// A server that forbids `CONFIG` is…
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    /// … trusted: what it may lose can be rebuilt.
    Trusted,
    /// … refused: what it may lose is lost.
    Refused,
}

/// Words for what is wrong, as the source of a [`StoreError`].
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no answer within {} ms", CALL_TIMEOUT.as_millis())]
    Silent,
    #[error("this server is a replica")]
    Replica,
    #[error("{name} is {is}, but must be {must}: {why}", must = good.join(" or "))]
    Weak { name: &'static str, is: String, good: &'static [&'static str], why: &'static str },
    #[error("CONFIG GET is forbidden, so nobody can tell whether {0} are as they must be")]
    Hidden(String),
}

/// A shared connection to one server.
pub(super) struct Connection {
    client: Client,
    current: Mutex<Current>,
}

struct Current {
    /// Counts the managers: of many calls that failed on one, only the first replaces it.
    generation: u64,
    manager: ConnectionManager,
}

/// What is sent, once or twice.
#[derive(Clone, Copy)]
enum Call<'a> {
    Script(&'a ScriptInvocation<'a>),
    ScriptOnce(&'a ScriptInvocation<'a>),
    Pipeline(&'a Pipeline),
    Command(&'a Cmd),
}

impl Call<'_> {
    async fn send<T: FromRedisValue>(self, mut manager: ConnectionManager) -> RedisResult<T> {
        match self {
            Self::Script(script) | Self::ScriptOnce(script) => {
                script.invoke_async(&mut manager).await
            }
            Self::Pipeline(pipeline) => pipeline.query_async(&mut manager).await,
            Self::Command(command) => command.query_async(&mut manager).await,
        }
    }
}

impl Connection {
    /// Connects, and asks for one answer.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let refused =
            |error: RedisError| StoreError::new("connect", StoreErrorKind::Refused, error);
        let info = url.into_connection_info().map_err(refused)?.set_tcp_settings(tcp_settings());
        let client = Client::open(info).map_err(refused)?;
        let manager = lazy_manager(&client).map_err(refused)?;
        let current = Mutex::new(Current { generation: 0, manager });
        let connection = Self { client, current };
        connection.command::<Value>("connect", &redis::cmd("PING")).await?;
        Ok(connection)
    }

    /// Runs a script that may run twice without harm.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        self.run(operation, Call::Script(script)).await
    }

    /// Runs a script whose answer would be another the second time.
    pub(super) async fn script_once<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        self.run(operation, Call::ScriptOnce(script)).await
    }

    /// Runs commands that may run twice, in one round trip.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, StoreError> {
        self.run(operation, Call::Pipeline(pipeline)).await
    }

    /// Runs a command that may run twice without harm.
    pub(super) async fn command<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        self.run(operation, Call::Command(command)).await
    }

    /// Whether the server answers, takes writes, and is set as demanded.
    pub(super) async fn check(&self, demands: &Demands) -> Result<(), StoreError> {
        self.check_role().await?;
        let mut pipeline = redis::pipe();
        for setting in demands.settings {
            pipeline.cmd("CONFIG").arg("GET").arg(setting.name);
        }
        let asked = self.pipeline::<Vec<HashMap<String, String>>>("check", &pipeline).await;
        let answers = match asked {
            Ok(answers) => answers,
            Err(error) if error.kind() != StoreErrorKind::Refused => return Err(error),
            Err(_) if demands.hidden == Hidden::Trusted => return Ok(()),
            Err(_) => {
                let names: Vec<_> = demands.settings.iter().map(|setting| setting.name).collect();
                return Err(refusal(Fault::Hidden(names.join(", "))));
            }
        };
        for (setting, answer) in demands.settings.iter().zip(answers) {
            let Setting { name, good, why } = *setting;
            let is = answer.get(name).cloned().unwrap_or_default();
            if !good.contains(&is.as_str()) {
                return Err(refusal(Fault::Weak { name, is, good, why }));
            }
        }
        Ok(())
    }

    /// A replica answers questions, so only its role tells that the next write will fail.
    async fn check_role(&self) -> Result<(), StoreError> {
        let (generation, _) = self.current();
        let role = match self.command::<Vec<Value>>("check", &redis::cmd("ROLE")).await {
            Ok(role) => role,
            // Somebody forbade the question: the first write will tell.
            Err(error) if error.kind() == StoreErrorKind::Refused => return Ok(()),
            Err(error) => return Err(error),
        };
        let role = role.into_iter().next().and_then(|role| String::from_redis_value(role).ok());
        if role.is_none_or(|role| role == "master") {
            return Ok(());
        }
        self.renew("check", generation)?;
        Err(StoreError::new("check", StoreErrorKind::Unavailable, Fault::Replica))
    }

    async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        call: Call<'_>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(CALL_TIMEOUT, self.attempts(operation, call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::new(operation, StoreErrorKind::Unavailable, Fault::Silent)),
        }
    }

    /// Tries, and once more when the first attempt only showed that the connection is of no use:
    ///
    /// - The server was demoted. Behind a proxy, a new connection leads to the new master, while the
    ///   old one stays on the replica for ever.
    /// - The connection broke while nobody used it, or during the call; then it may run twice.
    async fn attempts<T: FromRedisValue>(
        &self,
        operation: &'static str,
        call: Call<'_>,
    ) -> Result<T, StoreError> {
        let (generation, manager) = self.current();
        let error = match call.send(manager).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if is_read_only(&error) || error.is_io_error() {
            // Also for calls to come: the manager keeps the outcome of its last attempt to connect,
            // a new one connects when it is asked.
            self.renew(operation, generation)?;
        }
        let broken = error.is_connection_dropped() && !error.is_connection_refusal();
        let once = matches!(call, Call::ScriptOnce(_));
        if is_read_only(&error) || broken && !once {
            let (_, manager) = self.current();
            return call.send(manager).await.map_err(|error| store_error(operation, error));
        }
        Err(store_error(operation, error))
    }

    fn current(&self) -> (u64, ConnectionManager) {
        let current = self.lock();
        (current.generation, current.manager.clone())
    }

    /// Replaces the manager of `generation`. Calls that wait on the old one keep it.
    fn renew(&self, operation: &'static str, generation: u64) -> Result<(), StoreError> {
        let mut current = self.lock();
        if current.generation == generation {
            current.manager =
                lazy_manager(&self.client).map_err(|error| store_error(operation, error))?;
            current.generation += 1;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Nothing is left half-done under this lock, whoever panicked.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lazy_manager(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_number_of_retries(0) // The caller backs off; retries here would only hide the outage.
        .set_pipeline_buffer_size(CALLS_QUEUED_MAX);
    client.get_connection_manager_lazy(config)
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_TIME);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

fn refusal(fault: Fault) -> StoreError {
    StoreError::new("check", StoreErrorKind::Refused, fault)
}

/// Redis 6 and older say it inside the text of a script's error.
fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.detail().is_some_and(|detail| detail.contains("READONLY"))
}

fn store_error(operation: &'static str, error: RedisError) -> StoreError {
    StoreError::new(operation, kind_of(&error), error)
}

fn kind_of(error: &RedisError) -> StoreErrorKind {
    let passing = matches!(
        error.kind(),
        ErrorKind::Io
            | ErrorKind::Server(
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::TryAgain
            )
    );
    let full = error.detail().is_some_and(|detail| detail.contains("max number of clients"));
    match error.code() {
        Some("OOM") => StoreErrorKind::Throttled,
        Some("BUSY" | "MISCONF" | "NOREPLICAS") => StoreErrorKind::Unavailable,
        _ if full => StoreErrorKind::Throttled,
        _ if passing || is_read_only(error) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Refused,
    }
}
