//! What all connections of a store have in common: TLS, credentials, deadlines.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, RedisResult, cmd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::redis_login::RedisLogin;
use super::super::redis_settings::{RedisAddress, RedisSettings, RedisTopology};
use super::Patience;
use super::verdict::{RedisVerdict, judge};
use crate::base::backoff::jittered;
use crate::base::secret::ExposeSecret;
use crate::base::time::Clock;

/// Where somebody else may become the master, the longest pause between two attempts to find out.
const SOON: Duration = Duration::from_secs(1);

/// A Redis, how long it is waited for, and the time.
#[derive(Debug)]
pub(super) struct RedisTarget {
    pub(super) settings: RedisSettings,
    pub(super) patience: Patience,
    pub(super) clock: Clock,
}

/// The byte stream to a Redis, with or without TLS.
pub(super) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for T {}

/// The future that drives a connection; the connection ends with it.
pub(super) type RedisDriver = Pin<Box<dyn Future<Output = ()>>>;

impl RedisTarget {
    /// Returns a connected stream, TLS included. The caller bounds the time.
    pub(super) async fn dial(&self, at: &RedisAddress) -> Result<Box<dyn RedisStream>, RedisVerdict> {
        let broken = |what: String| RedisVerdict::Broken(format!("the store at {at} {what}"));
        let stream = TcpStream::connect((at.host.as_str(), at.port)).await;
        let stream = stream.map_err(|error| broken(format!("cannot be reached: {}", error.kind())))?;
        // It costs latency only.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.settings.tls else { return Ok(Box::new(stream)) };
        // A node may announce itself under a name that no certificate can be for.
        let name = ServerName::try_from(at.host.clone())
            .map_err(|_| broken("has a name that no certificate can be for".to_owned()))?;
        match TlsConnector::from(tls.clone()).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                let why = why.map_or_else(|| error.kind().to_string(), ToString::to_string);
                Err(broken(format!("fails in TLS: {why}; see `tls` in [store]")))
            }
        }
    }

    /// Builds the settings that a connection for records or news starts with: database, user and password.
    pub(super) fn greeting(&self) -> RedisConnectionInfo {
        self.greeting_of(&self.settings.login).set_db(self.settings.database.into())
    }

    /// The same for a connection to a Sentinel, which has no databases.
    pub(super) fn sentinel_greeting(&self) -> RedisConnectionInfo {
        self.greeting_of(&self.settings.sentinel_login)
    }

    fn greeting_of(&self, login: &RedisLogin) -> RedisConnectionInfo {
        let mut greeting = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (username, password) = login.at(self.clock.now());
        if let Some(username) = username {
            greeting = greeting.set_username(username);
        }
        if let Some(password) = &password {
            greeting = greeting.set_password(password.expose_secret());
        }
        greeting
    }

    /// Makes a connection for records, which has answered once.
    pub(super) async fn connect(
        &self,
        at: &RedisAddress,
    ) -> Result<(MultiplexedConnection, RedisDriver), RedisVerdict> {
        let (mut connection, mut driver) = self.open(at, &self.greeting()).await?;
        let answer = async { cmd("PING").query_async::<String>(&mut connection).await };
        match driven(at, &mut driver, answer).await?.as_str() {
            "PONG" => Ok((connection, driver)),
            _ => Err(RedisVerdict::Broken(format!("the store at {at} does not speak as Redis does"))),
        }
    }

    pub(super) async fn open(
        &self,
        at: &RedisAddress,
        greeting: &RedisConnectionInfo,
    ) -> Result<(MultiplexedConnection, RedisDriver), RedisVerdict> {
        let wire = self.dial(at).await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(greeting, wire, config).await;
        let (connection, driver) = made.map_err(|error| judge(at, &error))?;
        Ok((connection, Box::pin(driver)))
    }

    /// Asks one question over a connection of its own.
    pub(super) async fn ask_once<T: FromRedisValue>(
        &self,
        at: &RedisAddress,
        greeting: &RedisConnectionInfo,
        question: &Cmd,
    ) -> Result<T, RedisVerdict> {
        let (mut connection, mut driver) = self.open(at, greeting).await?;
        driven(at, &mut driver, question.query_async(&mut connection)).await
    }

    pub(super) fn silent(&self, at: impl fmt::Display, waited: Duration) -> RedisVerdict {
        RedisVerdict::Broken(format!("the store at {at} does not answer within {} ms", waited.as_millis()))
    }

    /// The pause after so many failures in a row.
    pub(super) fn rest(&self, failures: u32) -> Duration {
        let pause = self.patience.rest.pause(failures);
        let pause = match self.settings.topology {
            RedisTopology::Single(_) => pause,
            RedisTopology::Cluster(_) | RedisTopology::Sentinel { .. } => pause.min(SOON),
        };
        jittered(pause, rand::random())
    }
}

/// Waits for an answer while its connection is driven.
pub(super) async fn driven<T>(
    at: &RedisAddress,
    driver: &mut RedisDriver,
    answer: impl Future<Output = RedisResult<T>>,
) -> Result<T, RedisVerdict> {
    tokio::select! {
        answer = answer => answer.map_err(|error| judge(at, &error)),
        () = driver => Err(closed(at)),
    }
}

pub(super) fn closed(at: impl fmt::Display) -> RedisVerdict {
    RedisVerdict::Broken(format!("the store at {at} has closed the connection"))
}
