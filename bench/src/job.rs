//! The job that every contender does, and the words that both ends of it must agree on.

/// What a client calls; the origin serves it under the same path.
pub const ITEM: &str = "/v1/item";
/// The large download.
pub const BIG: &str = "/v1/big";
/// Bytes of the large download.
pub const BIG_BYTES: usize = 10 << 20;
/// A download and an upload that no memory is to hold.
pub const BULK: &str = "/v1/bulk";
/// Bytes of either.
pub const BULK_BYTES: u64 = 1 << 30;
/// What the bank answers late,
pub const LATE: &str = "/v1/late";
/// after so many milliseconds.
pub const LATE_BY: u64 = 500;
/// A call that a key service signs,
pub const SIGNED: &str = "/v1/signed";
/// after so many milliseconds.
pub const SIGN_BY: u64 = 5;
/// The header with the signature.
pub const SIGNATURE: &str = "x-signature";
/// Characters of a signature of 64 bytes in base64.
pub const SIGNATURE_LENGTH: usize = 88;
/// The header that names the key of a token, where there are many.
pub const ACCOUNT: &str = "X-Account";
/// Bytes of every other answer.
pub const ANSWER_BYTES: usize = 1024;
/// Where the `scb` profile fetches its token, behind the base URL.
pub const TOKEN_PATH: &str = "/v1/oauth/token";
/// `resourceOwnerId` of every call that reaches the origin.
pub const OWNER: &str = "owner-0001";
/// The application's secret at the token endpoint.
pub const SECRET: &str = "bench-secret";
/// What a client says of itself: its key at countersign, an `Authorization` to overwrite for everyone.
pub const CLIENT_KEY: &str = "bench-client-key";

/// The bearer: about as long as a JSON web token.
pub fn token() -> String {
    format!("eyJhbGciOiJSUzI1NiJ9.{}", "A".repeat(600))
}

/// The client's name beside that key, where a forward proxy asks for Basic credentials.
pub const CLIENT: &str = "bench";
/// [`CLIENT`] and [`CLIENT_KEY`] as `Basic` writes them.
pub const CLIENT_BASIC: &str = "YmVuY2g6YmVuY2gtY2xpZW50LWtleQ==";
/// MD5 of [`CLIENT_KEY`], as squid's password helper takes it.
pub const CLIENT_KEY_MD5: &str = "d6298ae09d60a0c3951690903f24e6de";
/// SHA-256 of [`CLIENT_KEY`].
pub const CLIENT_KEY_SHA256: &str = "1d9eb6f32b54cfdbc0846e361fc310d58fd5fbc3dad6cabf369ea41f14e78fd2";
