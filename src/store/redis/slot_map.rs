//! The slots of a Cluster: which a key belongs to, and which node serves it.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::Value;

use super::super::redis_settings::RedisAddress;

/// A Cluster has so many slots.
const SLOTS: u16 = 16384;

/// Returns the slot of a key: of what stands between the first `{` and the next `}` if that is anything, else of all of
/// it.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{');
    let tag = open.and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    plain_slot(tag.unwrap_or(key))
}

/// Returns a tag for keys that have to be in one slot: `{` and four hexadecimal digits and `}`. Equal bytes have equal
/// tags, and there are as many tags as slots.
pub(super) fn hash_tag(bytes: &[u8]) -> String {
    format!("{{{:04x}}}", plain_slot(bytes))
}

fn plain_slot(bytes: &[u8]) -> u16 {
    crc16(bytes) % SLOTS
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

/// The masters of a Cluster by the slots that they serve.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct SlotMap {
    /// By the first slot of a range: the last one, and the master.
    ranges: BTreeMap<u16, (u16, RedisAddress)>,
    /// Slots that were found elsewhere since.
    moved: BTreeMap<u16, RedisAddress>,
}

impl SlotMap {
    /// Reads the answer of `asked` to `CLUSTER SLOTS`. `None` if it is none, or no slot is served.
    pub(super) fn parse(answer: &Value, asked: &RedisAddress) -> Option<Self> {
        let Value::Array(lines) = answer else { return None };
        let mut map = Self::default();
        for line in lines {
            let Value::Array(parts) = line else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { return None };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            let [host, Value::Int(port), ..] = master.as_slice() else { return None };
            let host = match host {
                Value::Nil => "",
                Value::BulkString(host) => std::str::from_utf8(host).ok()?,
                Value::SimpleString(host) => host,
                _ => return None,
            };
            let host = match host {
                // It does not know its own address: it is the one that was asked.
                "" => asked.host.clone(),
                // A node whose name is not known yet.
                "?" => continue,
                host => host.to_owned(),
            };
            let port = u16::try_from(*port).ok()?;
            map.ranges.insert(first, (last, RedisAddress { host, port }));
        }
        (!map.ranges.is_empty()).then_some(map)
    }

    /// Returns the master of a slot, as far as is known.
    pub(super) fn master(&self, slot: u16) -> Option<&RedisAddress> {
        self.moved.get(&slot).or_else(|| {
            let (_, (last, master)) = self.ranges.range(..=slot).next_back()?;
            (slot <= *last).then_some(master)
        })
    }

    /// Notes that a node has said who serves a slot.
    pub(super) fn moved(&mut self, slot: u16, master: RedisAddress) {
        self.moved.insert(slot, master);
    }

    /// Returns all masters, in the order of their first slots: one that takes over another's slots takes its place, too.
    pub(super) fn masters(&self) -> Vec<RedisAddress> {
        let mut seen = BTreeSet::new();
        let all = self.ranges.values().map(|(_, master)| master).chain(self.moved.values());
        all.filter(|master| seen.insert(*master)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{}{bar}"), plain_slot(b"foo{}{bar}"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), plain_slot(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), plain_slot(b"bar"));
        assert_eq!(slot_of(b"foo{bar"), plain_slot(b"foo{bar"));
    }

    proptest::proptest! {
        #[test]
        fn what_has_one_tag_has_one_slot(bytes: Vec<u8>) {
            let tag = hash_tag(&bytes);
            let keys = [[tag.as_bytes(), &bytes].concat(), [b"countersign:fence:", tag.as_bytes()].concat()];
            proptest::prop_assert_eq!(slot_of(&keys[0]), slot_of(&keys[1]));
            proptest::prop_assert!(slot_of(&bytes) < SLOTS);
        }
    }

    fn at(host: &str, port: u16) -> RedisAddress {
        RedisAddress { host: host.to_owned(), port }
    }

    fn line(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())];
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(node.clone()), Value::Array(node)])
    }

    #[test]
    fn a_map_says_who_serves_a_slot() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let answer = Value::Array(vec![
            line(5461, 10922, text("b"), 2),
            line(0, 5460, Value::Nil, 1),
            line(10923, 16000, text("a"), 1),
            line(16001, 16100, text("?"), 4),
        ]);
        let mut map = SlotMap::parse(&answer, &at("asked", 9)).expect("a map");
        for (slot, master) in [
            (0, Some(at("asked", 1))),
            (5460, Some(at("asked", 1))),
            (5461, Some(at("b", 2))),
            (16000, Some(at("a", 1))),
            (16001, None),
            (16383, None),
        ] {
            assert_eq!(map.master(slot), master.as_ref(), "{slot}");
        }
        map.moved(5461, at("c", 3));
        assert_eq!((map.master(5461), map.master(5462)), (Some(&at("c", 3)), Some(&at("b", 2))));
        assert_eq!(map.masters(), [at("asked", 1), at("b", 2), at("a", 1), at("c", 3)]);
        for other in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![line(-1, 2, text("a"), 1)]),
            Value::Array(vec![line(0, 70_000, text("a"), 1)]),
            Value::Array(vec![line(0, 1, text("a"), 70_000)]),
        ] {
            assert_eq!(SlotMap::parse(&other, &at("asked", 9)), None, "{other:?}");
        }
    }
}
