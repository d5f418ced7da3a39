//! The look at key services, for metrics and events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::events::{EventKind, Events};
use crate::key_service::{KeyServices, ServiceReport};
use crate::observe::metrics::Metrics;

/// Interval between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// The last look at a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct LastLook {
    is_open: bool,
    signed: u64,
    failed: u64,
}

/// Looks at the key services of the process for as long as it runs.
pub async fn watch_key_services(metrics: Arc<Metrics>, events: Events) {
    let mut known = BTreeMap::new();
    loop {
        look(KeyServices::of_process().reports(), &mut known, &metrics, &events);
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells what is different from the last look. Services of the same title are told as one: down if one of them is.
fn look(reports: Vec<ServiceReport>, known: &mut BTreeMap<String, LastLook>, metrics: &Metrics, events: &Events) {
    let mut seen: BTreeMap<String, (LastLook, Option<String>)> = BTreeMap::new();
    for report in reports {
        let (sum, failure) = seen.entry(report.title).or_default();
        sum.signed += report.signed;
        sum.failed += report.failed;
        if report.open_since.is_some() {
            sum.is_open = true;
            *failure = report.failure;
        }
    }
    known.retain(|title, _| {
        let stays = seen.contains_key(title);
        if !stays {
            metrics.key_service_goes(title);
        }
        stays
    });
    for (title, (now, failure)) in seen {
        let before = known.insert(title.clone(), now).unwrap_or_default();
        let service: Arc<str> = title.as_str().into();
        match (before.is_open, now.is_open) {
            (false, true) => {
                events.tell(EventKind::KeyServiceGone { service, inside: failure.unwrap_or_default().into() });
            }
            (true, false) => events.tell(EventKind::KeyServiceBack { service }),
            (false, false) | (true, true) => {}
        }
        metrics.key_service(&title, !now.is_open);
        let (signed, failed) = (now.signed.saturating_sub(before.signed), now.failed.saturating_sub(before.failed));
        metrics.signatures(&title, signed, failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Clock, Now};

    fn report(title: &str, is_open: bool, signed: u64, failed: u64) -> ServiceReport {
        ServiceReport {
            title: title.to_owned(),
            open_since: is_open.then_some(Now::at(1, 1)),
            is_halted: false,
            failure: is_open.then(|| "gone".to_owned()),
            signed,
            failed,
        }
    }

    #[test]
    fn a_service_that_goes_and_comes_back_is_told_once_each() {
        let (metrics, events) = (Metrics::new(), Events::open(Clock::System));
        let (mut heard, mut known) = (events.listen(), BTreeMap::new());
        for (is_open, signed) in [(false, 3), (true, 3), (true, 3), (false, 5)] {
            look(vec![report("kms:x", is_open, signed, 1)], &mut known, &metrics, &events);
        }
        let mut told = Vec::new();
        while let Ok(event) = heard.try_recv() {
            told.push(match &event.what {
                EventKind::KeyServiceGone { inside, .. } => inside.to_string(),
                EventKind::KeyServiceBack { service } => service.to_string(),
                _ => "another".to_owned(),
            });
        }
        assert_eq!(told, ["gone", "kms:x"]);
        let text = metrics.encode();
        for line in [
            "countersign_key_service_up{service=\"kms:x\"} 1\n",
            "countersign_key_service_signatures_total{service=\"kms:x\",outcome=\"ok\"} 5\n",
            "countersign_key_service_signatures_total{service=\"kms:x\",outcome=\"failed\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        look(Vec::new(), &mut known, &metrics, &events);
        assert!(!metrics.encode().contains("key_service_up{"));
    }

    #[test]
    fn services_of_one_title_are_down_if_one_is() {
        let (metrics, events) = (Metrics::new(), Events::open(Clock::System));
        let mut known = BTreeMap::new();
        let reports = vec![report("kms:x", true, 1, 1), report("kms:x", false, 2, 0)];
        look(reports, &mut known, &metrics, &events);
        let text = metrics.encode();
        assert!(text.contains("countersign_key_service_up{service=\"kms:x\"} 0\n"), "{text}");
    }
}
