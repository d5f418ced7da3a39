//! The faults of a run, and their frequency. A run has a random few: if everything fails at once, faults hide each
//! other.

use crate::base::draw::seeded::Generator;

/// The bank's behaviour in one exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ExchangeFate {
    /// It answers as it should.
    Fine,
    /// It closes after the head, with nothing said.
    CloseBefore,
    /// It closes after the body, with nothing said.
    CloseAfter,
    /// The response breaks off before its end.
    Cut,
    /// It refuses the token, and that answer breaks off.
    CutRefusal,
    /// Its answer comes in drops.
    Dribble,
    /// It answers from the head alone, and may never read the body.
    Early,
    /// It says that the connection takes nothing more, and goes on with what there is.
    GoAway,
    /// 103, and more than one.
    Interim,
    /// It answers late, or too late.
    Late,
    /// It refuses a good token, or one that it has just issued.
    Refuse,
    /// It turns the stream away unprocessed (HTTP/2).
    RefuseStream,
    /// It responds with status 500 and a body.
    ServerError,
    /// It sends trailers after the response's body.
    Trailers,
    /// It responds with 401 and gives no reason.
    Unknown,
}

/// All fates but the good one. A fate that needs other events to coincide is listed more than once.
const FATES: [ExchangeFate; 17] = [
    ExchangeFate::CloseBefore,
    ExchangeFate::CloseAfter,
    ExchangeFate::Cut,
    ExchangeFate::Cut,
    ExchangeFate::CutRefusal,
    ExchangeFate::CutRefusal,
    ExchangeFate::Dribble,
    ExchangeFate::Early,
    ExchangeFate::Early,
    ExchangeFate::GoAway,
    ExchangeFate::Interim,
    ExchangeFate::Late,
    ExchangeFate::Refuse,
    ExchangeFate::RefuseStream,
    ExchangeFate::ServerError,
    ExchangeFate::Trailers,
    ExchangeFate::Unknown,
];

/// The behaviour of a client in one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    /// The client behaves as it should.
    Polite,
    /// It breaks off in the middle of its body: a closed connection, or a stream reset with `CANCEL`.
    Abort,
    /// The same with `NO_ERROR`, or half a closed connection: what looks like an end.
    AbortQuietly,
    /// Its body comes in drops.
    Dribble,
    /// It leaves before the end of the answer.
    Leave,
    /// It sends its next request without waiting for the answer (HTTP/1.1).
    Pipeline,
    /// It reads nothing for long.
    Stall,
}

const MANNERS: [Manner; 7] = [
    Manner::Abort,
    Manner::AbortQuietly,
    Manner::AbortQuietly,
    Manner::Dribble,
    Manner::Leave,
    Manner::Pipeline,
    Manner::Stall,
];

/// The faults of one run. Rates count in 100 times.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// True if the bank speaks HTTP/2.
    pub(super) http2: bool,
    /// Connections of clients, and requests of each.
    pub(super) clients: u64,
    pub(super) requests: u64,
    /// Maximum pause of a client before a request, in milliseconds.
    pub(super) pace: u64,
    /// Lifetime of tokens, in seconds.
    pub(super) life: u64,
    /// Maximum duration of connecting to the bank, and of a token call, in milliseconds.
    pub(super) connect: u64,
    pub(super) login: u64,
    /// Exchanges after which the bank closes its connection (HTTP/1.1).
    pub(super) closes: u64,
    /// Token calls that fail, in 100.
    pub(super) login_fails: u64,
    /// Frequency with which the bank revokes all tokens, per half second.
    pub(super) revokes: u64,
    /// The bank's possible fates, and their frequency.
    pub(super) fates: Vec<ExchangeFate>,
    pub(super) fate: u64,
    /// The clients' possible manners, and their frequency.
    pub(super) manners: Vec<Manner>,
    pub(super) manner: u64,
    /// Bodies that are larger than what buffers hold.
    pub(super) large: u64,
}

impl Plan {
    pub(super) fn draw(random: &mut Generator) -> Self {
        let mut one_of = |values: &[u64]| values[(random.next() % values.len() as u64) as usize];
        let some = [1, 1, 2, 3, 4];
        let fates = one_of(&some);
        let manners = one_of(&some);
        let (fate_at, manner_at): (Vec<u64>, Vec<u64>) =
            ((0..FATES.len() as u64).collect(), (0..MANNERS.len() as u64).collect());
        Self {
            http2: one_of(&[0, 1]) == 1,
            clients: one_of(&[1, 2, 4]),
            requests: one_of(&[2, 3, 5]),
            pace: one_of(&[10, 500, 3_000]),
            life: one_of(&[4, 6, 100]),
            connect: one_of(&[0, 0, 2_000, 3_900]),
            closes: one_of(&[10, 80]),
            login: one_of(&[0, 300, 1_500]),
            login_fails: one_of(&[0, 0, 0, 20]),
            revokes: one_of(&[0, 5, 20]),
            fates: (0..fates).map(|_| FATES[one_of(&fate_at) as usize]).collect(),
            fate: one_of(&[0, 30, 60]),
            manners: (0..manners).map(|_| MANNERS[one_of(&manner_at) as usize]).collect(),
            manner: one_of(&[0, 30, 60]),
            large: one_of(&[0, 30]),
        }
    }
}
