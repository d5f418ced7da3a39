//! Services over devices that do as they are told, in time that stands still.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, sleep};

use super::super::device::{KeyPart, KeyProblem};
use super::super::service_task::PROOF;
use super::*;
use crate::base::time::{SimulatedClock, millis};
use crate::signing::key::PrivateKey;
use crate::signing::pkcs;
use crate::signing::signer::Signer as _;

/// The behaviour of a device.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Broken,
    Ended,
    /// Its PIN is wrong.
    Locked,
    /// It refuses this key.
    Refusing,
    Silent,
    /// It signs, and takes its time.
    Signing(Duration),
}

/// A device that a test directs.
#[derive(Clone)]
pub struct ScriptedDevice {
    behaviour: Arc<Mutex<Behaviour>>,
    key: Arc<PrivateKey>,
    /// Signatures that were asked for, those under way, and the most at once.
    asked: Arc<AtomicU64>,
    under_way: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    /// Public keys that were asked for.
    opened: Arc<AtomicU64>,
    /// The one algorithm that it knows, if there is only one.
    only: Option<SigningAlgorithm>,
}

impl ScriptedDevice {
    fn new(behaviour: Behaviour) -> Self {
        let pem = include_bytes!("../../../tests/fixtures/signing/p256-sec1.pem");
        Self {
            behaviour: Arc::new(Mutex::new(behaviour)),
            key: Arc::new(pkcs::private_key(pem, None).expect("a key")),
            asked: Arc::default(),
            under_way: Arc::default(),
            most: Arc::default(),
            opened: Arc::default(),
            only: None,
        }
    }

    /// A device whose PIN is wrong.
    pub fn locked() -> Self {
        Self::new(Behaviour::Locked)
    }

    /// A device with an RSA key that signs at once, by PKCS#1 v1.5 with SHA-256 alone.
    pub fn old_rsa() -> Self {
        let pem = include_bytes!("../../../tests/fixtures/signing/rsa-pkcs8.pem");
        let key = Arc::new(pkcs::private_key(pem, None).expect("a key"));
        Self { key, only: Some(SigningAlgorithm::Rs256), ..Self::signing() }
    }

    /// A device that signs at once.
    pub fn signing() -> Self {
        Self::new(Behaviour::Signing(Duration::ZERO))
    }

    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn behave(&self, behaviour: Behaviour) {
        *locked(&self.behaviour) = behaviour;
    }

    async fn act(&self) -> Result<(), DeviceError> {
        let behaviour = *locked(&self.behaviour);
        match behaviour {
            Behaviour::Broken => Err(DeviceError::Failed("broken".to_owned())),
            Behaviour::Ended => Err(DeviceError::Ended("ended".to_owned())),
            Behaviour::Locked => Err(DeviceError::refused(KeyPart::Pin, "wrong PIN", "correct it")),
            Behaviour::Refusing => Err(DeviceError::refused(KeyPart::Key, "no such key", "name another")),
            Behaviour::Silent => pending().await,
            Behaviour::Signing(time) => {
                sleep(time).await;
                Ok(())
            }
        }
    }

    pub async fn public_key(&self) -> Result<PublicKey, DeviceError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.act().await.map(|()| self.key.public().clone())
    }

    /// "Decrypts" by reversing.
    pub async fn unwrap(&self, ciphertext: &[u8]) -> Result<SecretBox<[u8]>, DeviceError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.act().await.map(|()| SecretBox::from(ciphertext.iter().rev().copied().collect::<Vec<_>>()))
    }

    pub async fn sign(
        &self,
        algorithm: SigningAlgorithm,
        input: &DeviceInput,
    ) -> Result<DigitalSignature, DeviceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let done = self.act().await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        done?;
        if self.only.is_some_and(|only| only != algorithm) {
            return Err(DeviceError::refused(KeyPart::Key, "no such mechanism", "ask its maker"));
        }
        // It knows two messages by their digests.
        let is_proof = DeviceInput::of(algorithm, PROOF).as_ref() == Some(input);
        self.key
            .sign(algorithm, if is_proof { PROOF } else { b"m" })
            .map_err(|_| DeviceError::Failed("a wrong algorithm".to_owned()))
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The time of tokio's clock, which stands still while anything can be done.
#[derive(Debug)]
struct PausedClock(Instant);

impl SimulatedClock for PausedClock {
    fn now(&self) -> Now {
        let passed = millis(self.0.elapsed());
        Now::at(1_000_000 + passed, 1_700_000_000_000 + passed)
    }
}

const QUICK: Behaviour = Behaviour::Signing(Duration::from_millis(5));
const SOON: Within = Within(Duration::from_secs(60));

fn paused(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(test);
}

fn service(device: &ScriptedDevice) -> (Arc<KeyService>, RemoteKey) {
    let clock = Clock::Simulated(Arc::new(PausedClock(Instant::now())));
    let (service, task) = KeyService::new(ServiceSettings::Scripted(device.clone()), clock);
    let (service, name) = (Arc::new(service), KeyName::Kms("key".to_owned()));
    let proven = vec![SigningAlgorithm::Es256];
    let known = KnownKey { public: device.key.public().clone(), proven, refused: Vec::new() };
    locked(&service.state.keys).insert(name.clone(), known);
    tokio::task::spawn_local(task.run());
    let key = service.key(&name, &[SigningAlgorithm::Es256]).expect("a known key");
    (service, key)
}

/// The error of a signature, or the time that it took.
async fn signed(key: &RemoteKey) -> Result<Duration, SigningError> {
    let began = Instant::now();
    key.sign(SigningAlgorithm::Es256, b"m", SOON).await.map(|_| began.elapsed())
}

#[test]
fn a_service_that_is_gone_is_refused_at_once_and_used_again_within_five_seconds() {
    paused(async {
        for (gone, asked_before) in [(Behaviour::Ended, 1), (Behaviour::Broken, 3), (Behaviour::Silent, 3)] {
            let device = ScriptedDevice::new(QUICK);
            let (service, key) = service(&device);
            assert!(signed(&key).await.is_ok());
            device.behave(gone);
            let before = device.asked();
            for _ in 0..asked_before {
                let began = Instant::now();
                assert!(signed(&key).await.is_err());
                assert!(began.elapsed() <= ANSWER_TIME, "{gone:?}");
            }
            for _ in 0..50 {
                let began = Instant::now();
                assert!(matches!(signed(&key).await, Err(SigningError::Unavailable(_))));
                assert_eq!(began.elapsed(), Duration::ZERO, "{gone:?}");
            }
            assert_eq!(device.asked() - before, asked_before, "{gone:?}: the breaker is open");
            assert!(service.report().open_since.is_some());
            // For a while, and then it is back.
            sleep(Duration::from_secs(60)).await;
            device.behave(QUICK);
            let back = Instant::now();
            while signed(&key).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(back.elapsed() < Duration::from_secs(5), "{gone:?}: {:?}", back.elapsed());
            assert_eq!(service.report().open_since, None);
        }
    });
}

#[test]
fn a_silent_service_delays_no_other() {
    paused(async {
        let (slow, quick) = (ScriptedDevice::new(Behaviour::Silent), ScriptedDevice::new(QUICK));
        let ((_slow_service, slow_key), (_quick_service, quick_key)) = (service(&slow), service(&quick));
        let slow_key = Rc::new(slow_key);
        for _ in 0..1000 {
            let key = slow_key.clone();
            tokio::task::spawn_local(async move { signed(&key).await });
        }
        for _ in 0..20 {
            assert_eq!(signed(&quick_key).await, Ok(Duration::from_millis(5)));
        }
    });
}

#[test]
fn a_thousand_signatures_at_once_wait_for_their_turn() {
    paused(async {
        let device = ScriptedDevice::new(QUICK);
        let (service, key) = service(&device);
        let (key, times) = (Rc::new(key), Rc::<RefCell<Vec<_>>>::default());
        let mut tasks = Vec::new();
        for _ in 0..1000 {
            let (key, times) = (key.clone(), times.clone());
            tasks.push(tokio::task::spawn_local(async move {
                let time = signed(&key).await.expect("a signature");
                times.borrow_mut().push(time);
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(device.most.load(Ordering::Relaxed), SERVICE_PARALLEL as u64);
        let last = times.borrow().iter().max().copied();
        assert!(last.is_some_and(|last| last < Duration::from_millis(400)), "{last:?}");
        assert_eq!((service.report().signed, service.report().failed), (1000, 0));
    });
}

#[test]
fn a_full_queue_refuses_and_a_refused_key_leaves_the_service_open_to_others() {
    paused(async {
        let device = ScriptedDevice::new(Behaviour::Silent);
        let (_service, key) = service(&device);
        let pending: Vec<_> = (0..MOST_WAITING + 1).map(|_| key.sign(SigningAlgorithm::Es256, b"m", SOON)).collect();
        let last = pending.into_iter().next_back().expect("one").await;
        assert!(matches!(&last, Err(SigningError::Unavailable(why)) if why.contains("too many")), "{last:?}");

        let device = ScriptedDevice::new(Behaviour::Refusing);
        let (service, key) = self::service(&device);
        for _ in 0..20 {
            assert!(signed(&key).await.is_err());
        }
        assert_eq!((device.asked(), service.report().open_since), (20, None));
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    paused(async {
        let device = ScriptedDevice::new(QUICK);
        let (service, key) = service(&device);
        device.behave(Behaviour::Ended);
        assert!(signed(&key).await.is_err());
        device.behave(Behaviour::Locked);
        sleep(Duration::from_secs(3600)).await;
        let report = service.report();
        assert!(report.is_halted && report.failure.is_some_and(|why| why.contains("wrong PIN")));
        device.behave(QUICK);
        sleep(Duration::from_secs(3600)).await;
        assert!(signed(&key).await.is_err(), "only a new config helps");
    });
}

#[test]
fn another_algorithm_than_the_keys_is_an_error_before_the_service_is_asked() {
    paused(async {
        let device = ScriptedDevice::new(QUICK);
        let (_service, key) = service(&device);
        for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Hs256] {
            let made = key.sign(algorithm, b"m", SOON).await;
            assert!(matches!(made, Err(SigningError::WrongKey { .. })), "{made:?}");
        }
        assert_eq!(device.asked(), 0);
        let problem = KeyProblem::new(KeyPart::Pin, "what", "cure");
        assert_eq!(problem.to_string(), "what; cure");
    });
}
