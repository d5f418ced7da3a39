//! Samples of single requests, and the kinds of their errors.

use std::sync::Arc;

use super::request_counts::Blame;
use crate::observe::record::AccessRecord;

/// Length in bytes at which paths are cut.
const MOST_PATH: usize = 200;

/// The metadata of one sampled request.
#[derive(Clone, Debug)]
pub struct RequestSample {
    /// All that the access log tells of it; its path is cut where it is long.
    pub record: AccessRecord,
    /// The party at fault if the request failed.
    pub blame: Blame,
}

impl RequestSample {
    /// Builds the sample of a finished request.
    pub fn of(record: &AccessRecord, blame: Blame) -> Self {
        let mut record = record.clone();
        cut(&mut record.path);
        Self { record, blame }
    }

    /// Returns the kind of its error; `None` if it went well.
    pub fn kind(&self) -> Option<ErrorKind> {
        (self.blame != Blame::Nobody).then(|| ErrorKind::of(&self.record, self.blame))
    }

    /// Returns whether both failed, and alike.
    pub fn is_like(&self, other: &Self) -> bool {
        self.blame != Blame::Nobody && is_alike((&self.record, self.blame), (&other.record, other.blame))
    }
}

/// Shortens a long path, between characters.
fn cut(path: &mut String) {
    if path.len() > MOST_PATH {
        let end = (0..=MOST_PATH).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
        path.truncate(end);
        path.push('…');
        path.shrink_to_fit();
    }
}

/// The attributes that equal errors share, so that they are told as one with their number.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ErrorKind {
    /// The party at fault.
    pub blame: Blame,
    /// Our own error, by its name in the error table.
    pub error: Option<&'static str>,
    /// The status that was sent; absent when the client hung up.
    pub status: Option<u16>,
    /// The caller's name.
    pub client: Option<Arc<str>>,
    /// Name of the route.
    pub route: Option<Arc<str>>,
}

impl ErrorKind {
    /// Builds the kind of a request that failed.
    pub fn of(record: &AccessRecord, blame: Blame) -> Self {
        let (client, route) = (record.client.clone(), record.route.clone());
        Self { blame, error: record.error, status: record.status, client, route }
    }

    /// Returns whether a request that failed is of this kind.
    pub fn fits(&self, record: &AccessRecord, blame: Blame) -> bool {
        (self.blame, self.error, self.status) == (blame, record.error, record.status)
            && (&self.client, &self.route) == (&record.client, &record.route)
    }
}

fn is_alike((one, blame): (&AccessRecord, Blame), (other, other_blame): (&AccessRecord, Blame)) -> bool {
    (blame, one.error, one.status) == (other_blame, other.error, other.status)
        && (&one.client, &one.route) == (&other.client, &other.route)
}

#[cfg(test)]
pub(crate) fn tests_record(path: &str) -> AccessRecord {
    use std::time::Duration;

    use http::Method;
    use uuid::Uuid;

    use crate::base::time::Now;
    use crate::observe::record::Replay;

    AccessRecord {
        start: Now::at(0, 0),
        id: Uuid::nil(),
        trace: None,
        listener: "gateway".into(),
        peer: None,
        user_agent: None,
        tls: None,
        client: None,
        method: Method::GET,
        path: path.to_owned(),
        route: None,
        provider: None,
        upstream: None,
        provider_id: None,
        refused: None,
        token: None,
        status: Some(200),
        error: None,
        told: None,
        reason: None,
        cause: None,
        tolerated: None,
        replay: Replay::None,
        took: Duration::ZERO,
        upstream_took: None,
        request_bytes: 0,
        response_bytes: 0,
        complete: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_between_characters() {
        let cut = |path: &str| RequestSample::of(&tests_record(path), Blame::Nobody).record.path;
        assert_eq!(cut("/short"), "/short");
        let long = cut(&"ä".repeat(400));
        assert!(long.len() <= MOST_PATH + 3 && long.ends_with('…'));
    }

    #[test]
    fn errors_are_alike_by_error_status_client_and_route() {
        let record = AccessRecord { status: Some(429), error: Some("rate-limited"), ..tests_record("/x") };
        let sample = RequestSample::of(&record, Blame::Client);
        let other = |change: fn(&mut AccessRecord)| {
            let mut other = record.clone();
            change(&mut other);
            RequestSample::of(&other, Blame::Client)
        };
        assert!(sample.is_like(&other(|record| record.path = "/y".to_owned())));
        for change in [
            (|record| record.status = Some(403)) as fn(&mut AccessRecord),
            |record| record.error = None,
            |record| record.client = Some("erp".into()),
            |record| record.route = Some("scb".into()),
        ] {
            let other = other(change);
            assert!(!sample.is_like(&other));
            assert!(!sample.kind().unwrap().fits(&other.record, other.blame));
        }
        let well = RequestSample::of(&record, Blame::Nobody);
        assert!(!well.is_like(&well) && well.kind().is_none(), "what went well is not an error");
    }
}
