//! The calls of AWS KMS.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::KmsSettings;
use crate::base::http_call::HttpCall;
use crate::base::secret::{SecretBox, is_wordy_secret};
use crate::key_service::device::{DeviceError, KeyPart};
use crate::key_service::service::KeyName;
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::device_input::DeviceInput;
use crate::signing::public_key::PublicKey;
use crate::signing::signature::DigitalSignature;
use crate::signing::signing_scope::{SigningScope, json_request, timestamp};

const SERVICE: &str = "kms";

/// An account of AWS KMS.
pub struct KmsDevice {
    settings: KmsSettings,
    http: Box<dyn HttpCall>,
}

#[derive(Deserialize)]
struct PublicKeyAnswer {
    #[serde(rename = "PublicKey")]
    public_key: String,
    #[serde(rename = "KeyUsage")]
    usage: String,
}

#[derive(Deserialize)]
struct DecryptAnswer {
    #[serde(rename = "Plaintext")]
    plaintext: String,
}

#[derive(Deserialize)]
struct SignAnswer {
    #[serde(rename = "Signature")]
    signature: String,
}

impl KmsDevice {
    pub(in crate::key_service) fn new(settings: KmsSettings) -> Self {
        Self { http: settings.http.client(), settings }
    }

    /// Calls `GetPublicKey`.
    pub(in crate::key_service) async fn public_key(&self, name: &KeyName) -> Result<PublicKey, DeviceError> {
        let told: PublicKeyAnswer = self.ask("TrentService.GetPublicKey", &json!({ "KeyId": arn(name)? })).await?;
        if told.usage != "SIGN_VERIFY" {
            let cure = "make a key with the usage SIGN_VERIFY; what a key is for cannot be changed";
            return Err(DeviceError::refused(
                KeyPart::Key,
                "AWS KMS keeps this key for another use than signing",
                cure,
            ));
        }
        let der = BASE64_STANDARD.decode(told.public_key).map_err(|_| malformed())?;
        let cure = "make an RSA key of 2048 bits or more, or one on P-256 or P-384";
        PublicKey::from_spki(&der)
            .map_err(|error| DeviceError::refused(KeyPart::Key, format!("the key in AWS KMS: {error}"), cure))
    }

    /// Calls `Sign` with a digest.
    pub(in crate::key_service) async fn sign(
        &self,
        name: &KeyName,
        algorithm: SigningAlgorithm,
        input: &DeviceInput,
    ) -> Result<DigitalSignature, DeviceError> {
        let Some(word) = word(algorithm) else {
            let what = format!("{algorithm} is no algorithm of AWS KMS");
            return Err(DeviceError::refused(KeyPart::Key, what, "use an RSA key, or one on P-256 or P-384"));
        };
        let question = json!({
            "KeyId": arn(name)?, "Message": BASE64_STANDARD.encode(input.bytes()), "MessageType": "DIGEST",
            "SigningAlgorithm": word,
        });
        let told: SignAnswer = self.ask("TrentService.Sign", &question).await?;
        let made = BASE64_STANDARD.decode(told.signature).map_err(|_| malformed())?;
        let read = match algorithm {
            SigningAlgorithm::Es256 | SigningAlgorithm::Es384 => DigitalSignature::from_der(algorithm, &made),
            _ => DigitalSignature::from_jose(algorithm, made),
        };
        read.ok_or_else(malformed)
    }

    /// Calls `Decrypt`, with a key for symmetric encryption.
    pub(in crate::key_service) async fn unwrap(
        &self,
        name: &KeyName,
        ciphertext: &[u8],
    ) -> Result<SecretBox<[u8]>, DeviceError> {
        let question = json!({ "KeyId": arn(name)?, "CiphertextBlob": BASE64_STANDARD.encode(ciphertext) });
        let told: DecryptAnswer = self.ask("TrentService.Decrypt", &question).await?;
        let plaintext = Zeroizing::new(told.plaintext);
        BASE64_STANDARD.decode(plaintext.as_bytes()).map(SecretBox::from).map_err(|_| malformed())
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        target: &'static str,
        question: &Value,
    ) -> Result<T, DeviceError> {
        let request = self.request(target, question.to_string()).map_err(|_| malformed())?;
        let answer = self.http.call(request).await;
        let answer = answer.map_err(|error| DeviceError::Failed(format!("AWS KMS: {error}")))?;
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(target, answer.status(), answer.body()));
        }
        serde_json::from_slice(answer.body()).map_err(|_| malformed())
    }

    fn request(&self, target: &'static str, body: String) -> http::Result<Request<Bytes>> {
        let settings = &self.settings;
        let scope = SigningScope {
            access_key_id: &settings.access_key_id,
            secret_access_key: &settings.secret_access_key,
            region: &settings.region,
            service: SERVICE,
            timestamp: &timestamp(settings.clock.now().wall),
        };
        json_request(&scope, &settings.host, target, settings.session_token.as_ref(), body)
    }

    /// Reads an error; its name decides.
    fn refusal(&self, target: &str, status: StatusCode, body: &Bytes) -> DeviceError {
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = told.get("__type").and_then(Value::as_str).unwrap_or_default();
        let name = name.rsplit('#').next().filter(|name| is_wordy_secret(name)).unwrap_or("no error name");
        let what = format!("AWS KMS answers {} with {name}", status.as_u16());
        let refused = |part, cure: &str| DeviceError::refused(part, what.clone(), cure);
        let unwraps = target == "TrentService.Decrypt";
        match name {
            "InvalidCiphertextException" | "IncorrectKeyException" => {
                refused(KeyPart::Ciphertext, "it must be what AWS KMS made under this very key, in base64")
            }
            "InvalidKeyUsageException" | "UnsupportedOperationException" | "ValidationException" if unwraps => {
                refused(KeyPart::Key, "name a symmetric key with the usage ENCRYPT_DECRYPT")
            }
            "AccessDeniedException" if unwraps => refused(
                KeyPart::Key,
                "allow this user `kms:Decrypt` on the key, and see that the ciphertext was made under it",
            ),
            "NotFoundException" | "InvalidArnException" => {
                refused(KeyPart::Key, &format!("there is no such key in {}: correct it", self.settings.region))
            }
            "DisabledException" | "KMSInvalidStateException" => {
                refused(KeyPart::Key, "enable the key, and cancel its deletion")
            }
            "InvalidKeyUsageException" | "UnsupportedOperationException" | "ValidationException" => {
                refused(KeyPart::Key, "name an asymmetric key with the usage SIGN_VERIFY that has the algorithm")
            }
            "AccessDeniedException" => {
                refused(KeyPart::Key, "allow this user `kms:GetPublicKey` and `kms:Sign` on the key")
            }
            "UnrecognizedClientException" | "InvalidClientTokenId" | "MissingAuthenticationTokenException" => refused(
                KeyPart::Credentials,
                "correct `access_key_id`; temporary credentials need `session_token`, too",
            ),
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignatureException" => {
                refused(KeyPart::Credentials, "correct `secret_access_key` and `region`, and see the machine's clock")
            }
            "ExpiredTokenException" | "RequestExpired" => {
                refused(KeyPart::Credentials, "the credentials have expired, or the machine's clock is wrong")
            }
            _ if status == StatusCode::FORBIDDEN => refused(
                KeyPart::Credentials,
                "correct `access_key_id`, `secret_access_key` and `region`, and allow the user to sign with the key",
            ),
            _ => DeviceError::Failed(what),
        }
    }
}

fn arn(name: &KeyName) -> Result<&str, DeviceError> {
    match name {
        KeyName::Kms(name) => Ok(name),
        KeyName::Token(_) => Err(DeviceError::refused(KeyPart::Key, "AWS KMS has no such key", "")),
    }
}

fn malformed() -> DeviceError {
    DeviceError::Failed("AWS KMS gave an answer that is not understood".to_owned())
}

/// The algorithm's name in AWS KMS; `None` for those that it does not have, or has in another form.
const fn word(algorithm: SigningAlgorithm) -> Option<&'static str> {
    match algorithm {
        SigningAlgorithm::Es256 => Some("ECDSA_SHA_256"),
        SigningAlgorithm::Es384 => Some("ECDSA_SHA_384"),
        SigningAlgorithm::Ps256 => Some("RSASSA_PSS_SHA_256"),
        SigningAlgorithm::Ps384 => Some("RSASSA_PSS_SHA_384"),
        SigningAlgorithm::Ps512 => Some("RSASSA_PSS_SHA_512"),
        SigningAlgorithm::Rs256 => Some("RSASSA_PKCS1_V1_5_SHA_256"),
        SigningAlgorithm::Rs384 => Some("RSASSA_PKCS1_V1_5_SHA_384"),
        SigningAlgorithm::Rs512 => Some("RSASSA_PKCS1_V1_5_SHA_512"),
        SigningAlgorithm::EdDsa | SigningAlgorithm::Hs256 | SigningAlgorithm::Hs384 | SigningAlgorithm::Hs512 => None,
    }
}
