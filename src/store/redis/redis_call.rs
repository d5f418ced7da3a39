//! A request to Redis, ready to be sent more than once.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind, ToRedisArgs, cmd};

/// A command, or a script with its keys and arguments.
pub(super) struct RedisCall<'a> {
    command: Cmd,
    /// The script that `command` names by its digest.
    script: Option<&'a Script>,
    /// True if replicas are to have what it writes before it is answered.
    pub(super) replicated: bool,
}

impl<'a> RedisCall<'a> {
    pub(super) const fn command(command: Cmd) -> Self {
        Self { command, script: None, replicated: false }
    }

    /// A script with its keys; arguments follow by [`arg`](Self::arg).
    pub(super) fn script(script: &'a Script, keys: &[&[u8]]) -> Self {
        let mut command = cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        Self { command, script: Some(script), replicated: false }
    }

    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) const fn replicated(mut self, replicated: bool) -> Self {
        self.replicated = replicated;
        self
    }

    /// Sends it, and a script with it where Redis does not know that.
    pub(super) async fn run<T: FromRedisValue>(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        match (self.command.query_async(connection).await, self.script) {
            (Err(error), Some(script)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(connection).await?;
                self.command.query_async(connection).await
            }
            (answer, _) => answer,
        }
    }

    /// Sends it to a node of a Cluster that is being given the slot of its keys. The connection is used for nothing else.
    pub(super) async fn run_asking<T: FromRedisValue>(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        if let Some(script) = self.script {
            script.load_async(connection).await?;
        }
        cmd("ASKING").query_async::<()>(connection).await?;
        self.command.query_async(connection).await
    }
}
