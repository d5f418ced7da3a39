//! What a Redis or a Sentinel is shown to let us in.

use std::sync::Arc;

use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Now;
use crate::signing::signing_scope::{SigningScope, presigned_query, timestamp};

/// The hash of the body that a token's request does not have.
const EMPTY_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// A token of a managed service is good for new connections so long, in seconds. AWS allows no more.
const TOKEN_LIFE: u32 = 900;

/// The user and the password that a connection begins with.
#[derive(Clone, Debug, Default)]
pub enum RedisLogin {
    /// A token of AWS, made anew for each connection.
    Iam(Arc<IamLogin>),
    /// Nobody asks for any.
    #[default]
    Nobody,
    Password {
        /// The ACL user; absent: the default one.
        username: Option<String>,
        password: SecretString,
    },
}

impl RedisLogin {
    /// Returns the user and the password to show now.
    pub(super) fn at(&self, now: Now) -> (Option<&str>, Option<SecretString>) {
        match self {
            Self::Iam(iam) => (Some(&iam.username), Some(iam.token(now))),
            Self::Nobody => (None, None),
            Self::Password { username, password } => (username.as_deref(), Some(password.clone())),
        }
    }

    /// Returns whether a connection has to be authenticated again while it lasts.
    pub(super) const fn ends(&self) -> bool {
        matches!(self, Self::Iam(_))
    }
}

/// The managed service of AWS that a Redis is part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IamService {
    ElastiCache,
    /// ElastiCache without nodes of its own: its tokens name the type of the resource.
    ElastiCacheServerless,
    MemoryDb,
}

impl IamService {
    /// All of them, by their words in a config.
    pub const ALL: [(&'static str, Self); 3] = [
        ("elasticache", Self::ElastiCache),
        ("elasticache-serverless", Self::ElastiCacheServerless),
        ("memorydb", Self::MemoryDb),
    ];

    /// Returns its name in the scope of a signature.
    const fn scope(self) -> &'static str {
        match self {
            Self::ElastiCache | Self::ElastiCacheServerless => "elasticache",
            Self::MemoryDb => "memorydb",
        }
    }
}

/// An identity of AWS that may connect to a cache or cluster.
#[derive(Clone, Debug)]
pub struct IamLogin {
    pub service: IamService,
    /// The name of the cache, replication group or cluster, in lower case.
    pub name: String,
    pub region: String,
    /// The user of the cache, whose name is also its id.
    pub username: String,
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// The token of temporary credentials.
    pub session_token: Option<SecretString>,
}

impl IamLogin {
    /// Makes a token: the URL of a signed request `connect`, without its scheme. AWS takes it for 15 minutes.
    pub fn token(&self, now: Now) -> SecretString {
        let timestamp = timestamp(now.wall);
        let scope = SigningScope {
            access_key_id: &self.access_key_id,
            secret_access_key: &self.secret_access_key,
            region: &self.region,
            service: self.service.scope(),
            timestamp: &timestamp,
        };
        let mut parameters = vec![("Action", "connect"), ("User", &self.username)];
        if self.service == IamService::ElastiCacheServerless {
            parameters.push(("ResourceType", "ServerlessCache"));
        }
        let place = (&*self.name, "/");
        let query = presigned_query(&scope, self.session_token.as_ref(), place, &parameters, TOKEN_LIFE, EMPTY_BODY);
        SecretString::from(format!("{}/?{}", self.name, query.expose_secret()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::{hex, sha256};

    #[test]
    fn a_token_is_the_url_that_aws_documents_without_its_scheme() {
        assert_eq!(EMPTY_BODY, hex(&sha256(b"")));
        let login = |service, session_token: Option<&str>| IamLogin {
            service,
            name: "my-cache".to_owned(),
            region: "eu-central-1".to_owned(),
            username: "countersign".to_owned(),
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SecretString::from("secret"),
            session_token: session_token.map(SecretString::from),
        };
        let token = |service, session| login(service, session).token(Now::at(0, 1_440_938_160_000));
        let parts = |token: SecretString| {
            let token = token.expose_secret().to_owned();
            let (head, signature) = token.rsplit_once("&X-Amz-Signature=").expect("signed");
            assert!(signature.len() == 64 && signature.bytes().all(|byte| byte.is_ascii_hexdigit()), "{signature}");
            head.to_owned()
        };
        assert_eq!(
            parts(token(IamService::ElastiCache, None)),
            "my-cache/?Action=connect&User=countersign&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Feu-central-1%2Felasticache%2Faws4_request\
             &X-Amz-Date=20150830T123600Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
        );
        let serverless = parts(token(IamService::ElastiCacheServerless, Some("s/t")));
        assert!(serverless.starts_with("my-cache/?Action=connect&ResourceType=ServerlessCache&User=countersign&"));
        assert!(serverless.contains("&X-Amz-Security-Token=s%2Ft&"), "{serverless}");
        assert!(parts(token(IamService::MemoryDb, None)).contains("%2Fmemorydb%2Faws4_request"));
        assert!(!format!("{:?}", login(IamService::MemoryDb, Some("canary"))).contains("canary"));
    }
}
