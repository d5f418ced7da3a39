//! The services that are in use, one for each token and account.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use super::device::{DeviceError, KeyProblem};
use super::remote_key::RemoteKey;
use super::service::{KeyName, KeyService, ServiceReport, ServiceSettings};
use super::service_task::ServiceTask;
use crate::base::secret::{SecretBox, sha256};
use crate::base::time::{Clock, Now};
use crate::signing::algorithm::SigningAlgorithm;

/// All key services of a process, on one thread. A service lives as long as a config uses it, and the next config, if it
/// says the same, goes on with it.
pub struct KeyServices {
    tasks: mpsc::UnboundedSender<ServiceTask>,
    known: Mutex<HashMap<[u8; 32], Weak<KeyService>>>,
    /// Keys that services have unwrapped, by a digest of where they come from.
    unwrapped: Mutex<HashMap<[u8; 32], Weak<UnwrappedKey>>>,
    /// Services that refused what they were opened with, and when.
    refused: Mutex<HashMap<[u8; 32], (Now, KeyProblem)>>,
}

/// A key that a service has unwrapped.
pub type UnwrappedKey = SecretBox<[u8]>;

/// A service that has refused a PIN is not opened with it again for so long: a config may name several keys of one token,
/// and a token locks itself after a few wrong PINs.
const REFUSED: Duration = Duration::from_secs(60);

impl KeyServices {
    /// Starts the thread. If it cannot be started, no key of a service can be read.
    pub fn start() -> Self {
        let (tasks, queue) = mpsc::unbounded_channel();
        let started = thread::Builder::new().name("key-services".to_owned()).spawn(move || run(queue));
        if let Err(error) = started {
            tracing::error!(%error, "the thread of the key services cannot be started");
        }
        Self { tasks, known: Mutex::default(), unwrapped: Mutex::default(), refused: Mutex::default() }
    }

    /// Returns those of the process; the thread starts with the first key.
    pub fn of_process() -> &'static Self {
        static OF_PROCESS: LazyLock<KeyServices> = LazyLock::new(KeyServices::start);
        &OF_PROCESS
    }

    /// Returns a key of the service with these settings. Blocks for ten seconds at most; see [`KeyService::key`].
    pub fn key(
        &self,
        settings: ServiceSettings,
        name: &KeyName,
        algorithms: &[SigningAlgorithm],
    ) -> Result<RemoteKey, DeviceError> {
        self.opened(settings, |service| service.key(name, algorithms))
    }

    /// The same for a key that has to sign by one of these algorithms; see [`KeyService::key_by_any`].
    pub fn key_by_any(
        &self,
        settings: ServiceSettings,
        name: &KeyName,
        algorithms: &[SigningAlgorithm],
    ) -> Result<(RemoteKey, Vec<SigningAlgorithm>), DeviceError> {
        self.opened(settings, |service| service.key_by_any(name, algorithms))
    }

    /// Decrypts a wrapped key; one that is in use is not asked for again. Blocks for ten seconds at most.
    pub fn unwrap(
        &self,
        settings: ServiceSettings,
        name: &KeyName,
        ciphertext: &[u8],
    ) -> Result<Arc<UnwrappedKey>, DeviceError> {
        let place = sha256(&[settings.digest(), sha256(format!("{name:?}").as_bytes()), sha256(ciphertext)].concat());
        let unwrapped = || self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner);
        unwrapped().retain(|_, key| key.strong_count() > 0);
        let known = unwrapped().get(&place).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        let key = Arc::new(self.opened(settings, |service| service.unwrap(name, ciphertext))?);
        unwrapped().insert(place, Arc::downgrade(&key));
        Ok(key)
    }

    /// Opens something of the service with these settings, unless it has just refused them.
    fn opened<T>(
        &self,
        settings: ServiceSettings,
        open: impl FnOnce(&Arc<KeyService>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let (digest, now) = (settings.digest(), Clock::System.now());
        let refused = || self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refused().get(&digest).filter(|(at, _)| now.since(*at) < REFUSED).cloned();
        if let Some((_, problem)) = before {
            return Err(DeviceError::Refused(problem));
        }
        let read = open(&self.service(settings));
        if let Err(DeviceError::Refused(problem)) = &read
            && problem.is_final()
        {
            refused().insert(digest, (now, problem.clone()));
        }
        read
    }

    /// Returns the service with these settings, and begins it if there is none.
    fn service(&self, settings: ServiceSettings) -> Arc<KeyService> {
        let digest = settings.digest();
        let mut known = self.known();
        known.retain(|_, service| service.strong_count() > 0);
        if let Some(service) = known.get(&digest).and_then(Weak::upgrade) {
            return service;
        }
        let (service, task) = KeyService::new(settings, Clock::System);
        let service = Arc::new(service);
        known.insert(digest, Arc::downgrade(&service));
        // Without the thread, its questions find nobody.
        let _ = self.tasks.send(task);
        service
    }

    /// Returns the state of each service in use, in the order of their titles.
    pub fn reports(&self) -> Vec<ServiceReport> {
        let mut reports: Vec<_> =
            self.known().values().filter_map(Weak::upgrade).map(|service| service.report()).collect();
        reports.sort_by(|one, other| one.title.cmp(&other.title));
        reports
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<KeyService>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs services until there is no one left to name one.
fn run(mut queue: mpsc::UnboundedReceiver<ServiceTask>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the key services cannot run");
            return;
        }
    };
    runtime.block_on(async move {
        while let Some(task) = queue.recv().await {
            tokio::task::spawn_local(task.run());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::service::tests::ScriptedDevice;
    use super::*;
    use crate::base::secret::ExposeSecret as _;

    #[test]
    fn a_refused_pin_is_not_shown_to_the_token_again() {
        let (services, device) = (KeyServices::start(), ScriptedDevice::locked());
        for label in ["one", "two", "three"] {
            let read = services.key(
                ServiceSettings::Scripted(device.clone()),
                &KeyName::Kms(label.to_owned()),
                &[SigningAlgorithm::Es256],
            );
            assert!(matches!(&read, Err(DeviceError::Refused(problem)) if problem.what == "wrong PIN"), "{read:?}");
        }
        assert_eq!(device.opened(), 1);
    }

    #[test]
    fn a_key_that_signs_by_one_algorithm_of_several_is_told_with_it() {
        let (services, device, name) = (KeyServices::start(), ScriptedDevice::old_rsa(), KeyName::Kms("k".to_owned()));
        let settings = || ServiceSettings::Scripted(device.clone());
        let both = [SigningAlgorithm::Ps256, SigningAlgorithm::Rs256, SigningAlgorithm::Es256];
        let read = services.key_by_any(settings(), &name, &both).expect("a key");
        assert_eq!(read.1, [SigningAlgorithm::Rs256]);
        let (again, algorithms) = services.key_by_any(settings(), &name, &both).expect("a key");
        let one = services.key(settings(), &name, &both[1..2]).expect("a key");
        assert_eq!(
            (device.opened(), algorithms),
            (1, vec![SigningAlgorithm::Rs256]),
            "what is known is not asked again"
        );
        let by_any = services.key_by_any(settings(), &name, &both[..1]).map(drop);
        let by_all = services.key(settings(), &name, &both[..1]).map(drop);
        for refused in [by_any, by_all] {
            assert!(matches!(&refused, Err(DeviceError::Refused(problem)) if problem.what == "no such mechanism"));
        }
        drop((read, again, one));
    }

    #[test]
    fn a_wrapped_key_is_asked_for_once_while_it_is_in_use() {
        let (services, device, name) = (KeyServices::start(), ScriptedDevice::signing(), KeyName::Kms("k".to_owned()));
        let unwrap = |text: &[u8]| services.unwrap(ServiceSettings::Scripted(device.clone()), &name, text);
        let first = unwrap(b"yek").expect("a key");
        assert_eq!(first.expose_secret(), b"key");
        let second = unwrap(b"yek").expect("a key");
        assert_eq!(device.opened(), 1);
        assert_eq!(unwrap(b"rehto").expect("a key").expose_secret(), b"other");
        drop((first, second));
        unwrap(b"yek").expect("a key");
        assert_eq!(device.opened(), 3, "what nobody uses is forgotten");
        assert_eq!(services.reports(), [], "the service is not kept for it");
    }

    #[test]
    fn a_config_that_says_the_same_goes_on_with_the_same_service() {
        let (services, device) = (KeyServices::start(), ScriptedDevice::signing());
        let key = |name: &str| {
            let name = KeyName::Kms(name.to_owned());
            services.key(ServiceSettings::Scripted(device.clone()), &name, &[SigningAlgorithm::Es256]).expect("a key")
        };
        let first = key("one");
        let _second = key("one");
        assert_eq!((device.opened(), services.reports().len()), (1, 1), "what is known is not asked for again");
        let _third = key("two");
        assert_eq!(device.opened(), 2);
        drop((first, _second, _third));
        assert_eq!(services.reports(), [], "a service that no key needs is gone");
    }
}
