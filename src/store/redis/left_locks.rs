//! Locks that this process has left without hearing that they were given back.
//!
//! Nobody would have such a lock until its lease is over. A claim says whose a lock is, so a lock that another has taken
//! since stays.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::changes::Claim;
use super::RedisAccess;

/// So many are remembered.
const MOST_LEFT: usize = 1024;
/// They are given back at once, and again after each such pause, until Redis has answered.
const PAUSE: Duration = Duration::from_millis(250);
/// A claim that holds nothing is looked for so many times: its question may still be on its way.
const MOST_LOOKS: u32 = 8;

/// The claims of locks to be given back, with how often each was looked for in vain.
#[derive(Debug, Default)]
pub(super) struct LeftLocks {
    left: RefCell<Vec<(Claim, u32)>>,
    added: Notify,
}

impl LeftLocks {
    pub(super) fn add(&self, claim: &Claim) {
        let mut left = self.left.borrow_mut();
        if left.len() < MOST_LEFT && !left.iter().any(|(other, _)| other == claim) {
            left.push((claim.clone(), 0));
            self.added.notify_one();
        }
    }

    pub(super) fn remove(&self, claim: &Claim) {
        self.left.borrow_mut().retain(|(other, _)| other != claim);
    }

    fn all(&self) -> Vec<Claim> {
        self.left.borrow().iter().map(|(claim, _)| claim.clone()).collect()
    }

    fn looked(&self, claim: &Claim) {
        self.left.borrow_mut().retain_mut(|(other, looks)| {
            *looks += u32::from(other == claim);
            *looks < MOST_LOOKS
        });
    }
}

/// Gives locks back as they are left.
pub(super) async fn give_back(access: Rc<RedisAccess>) {
    loop {
        let left = access.left.all();
        if left.is_empty() {
            access.left.added.notified().await;
            continue;
        }
        for claim in left {
            match access.unlock(&claim).await {
                Ok(true) => access.left.remove(&claim),
                Ok(false) => access.left.looked(&claim),
                Err(_) => break,
            }
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::RecordKey;

    #[test]
    fn a_claim_is_remembered_once_looked_for_some_times_and_then_forgotten() {
        let (left, claim) = (LeftLocks::default(), |number| Claim { key: RecordKey::from("alice"), number });
        left.add(&claim(1));
        left.add(&claim(2));
        left.add(&claim(1));
        assert_eq!(left.all(), [claim(1), claim(2)]);
        left.remove(&claim(2));
        (1..MOST_LOOKS).for_each(|_| left.looked(&claim(1)));
        assert_eq!(left.all(), [claim(1)]);
        left.looked(&claim(1));
        assert_eq!(left.all(), []);
        (0..MOST_LEFT as u64 + 1).for_each(|number| left.add(&claim(number)));
        assert_eq!(left.all().len(), MOST_LEFT);
    }
}
