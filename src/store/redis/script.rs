//! The operations that Redis performs in one step.
//!
//! A version lies at a fixed place of an envelope, so a script compares it without knowing more.

use ::redis::Script;

/// Writes an envelope if the version that is there is the expected one; an empty one: if nothing is there.
const REPLACE: &str = r"
local found = redis.call('GET', KEYS[1])
if found then
  if string.sub(found, 10, 17) ~= ARGV[1] then return 0 end
elseif ARGV[1] ~= '' then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
return 1
";

/// Removes an envelope if its version is this one.
const WITHDRAW: &str = r"
local found = redis.call('GET', KEYS[1])
if not found or string.sub(found, 10, 17) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Takes a lock and answers its fencing number, or 0. Numbers are microseconds since 1970, or one more than the last:
/// they grow even where Redis has lost the last one. They are below 2⁵³, up to which Lua counts exactly. The same claim
/// is granted again: the first answer may have got lost.
const LOCK: &str = r"
local held = redis.call('GET', KEYS[1])
if held then
  local fence, claim = string.match(held, '^(%d+):(.*)$')
  if claim == ARGV[2] then return tonumber(fence) end
  return 0
end
local time = redis.call('TIME')
local fence = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
if fence <= last then fence = last + 1 end
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[2], text)
redis.call('SET', KEYS[1], text .. ':' .. ARGV[2], 'PX', ARGV[1])
return fence
";

/// Gives a lock back if it is still the one of this claim.
const UNLOCK: &str = r"
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^%d+:(.*)$') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Counts requests in a window: first those that were made without a grant, then as many of those that are wanted as the
/// limit allows. Answers how many were granted, and how many are counted now.
const COUNT: &str = r"
local used = tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[1])
local granted = math.max(0, math.min(tonumber(ARGV[2]), tonumber(ARGV[3]) - used))
used = used + granted
redis.call('SET', KEYS[1], string.format('%.0f', used), 'PXAT', ARGV[4])
return {granted, used}
";

#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) count: Script,
    pub(super) lock: Script,
    pub(super) replace: Script,
    pub(super) unlock: Script,
    pub(super) withdraw: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let [count, lock, replace, unlock, withdraw] = [COUNT, LOCK, REPLACE, UNLOCK, WITHDRAW].map(Script::new);
        Self { count, lock, replace, unlock, withdraw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::envelope::VERSION;

    #[test]
    fn scripts_look_where_the_version_stands() {
        // Lua counts from 1 and includes the end.
        let place = format!("string.sub(found, {}, {})", VERSION.start + 1, VERSION.end);
        assert!(REPLACE.contains(&place) && WITHDRAW.contains(&place));
    }
}
