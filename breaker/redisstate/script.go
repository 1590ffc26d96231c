package redisstate

import (
	"crypto/sha1" //nolint:gosec // the digest that EVALSHA goes by
	"encoding/hex"
)

// A record is one hash in Redis. Its fields outlive the program, so they stay
// as they are; times are in milliseconds of Redis's own clock.
//
//	state, event, by, at     open or closed, the ID of what made it so, by whom, when
//	until, for               when open ends, and how long it was at first
//	force, force_event,      an operator's force: open or closed, its ID,
//	force_by, force_at,      by whom, when,
//	force_until, force_for,  when it ends (0: never), and how long it was,
//	force_reason             why
//	lease, lease_by,         the right to probe: its holder's token and name,
//	lease_until, lease_asked when it ends, and whether others ask for it
//
// An open record whose time is up is half-open. A force whose time is up has
// left its own state behind: closed, or open until then, which is half-open.
//
// What the script is asked to do, each safe to do twice with the same ID:
const (
	opRead    = "read"
	opTrip    = "trip"    // opened by its own outcomes
	opClose   = "close"   // closed by its own probes
	opLease   = "lease"   // wants to probe, or goes on
	opLeave   = "leave"   // has no more use for the lease
	opForce   = "force"   // an operator forces
	opRelease = "release" // or no longer does
)

// source is the script. KEYS: the record. ARGV: the operation, the ID of what
// happens, by whom, milliseconds, the ID of the last event that the caller knows,
// the lease's token, the state to force, the reason, and 1 if this is what an
// instance remembers of a record that Redis has lost. It answers the record, as
// decode reads it.
const source = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key, op, id, by = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local ms, known, token = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local flat = redis.call('HGETALL', key)
local r, found, written, granted = {}, #flat > 0, false, '0'
for i = 1, #flat, 2 do
  r[flat[i]] = flat[i + 1]
end
local function text(n) return string.format('%.0f', n) end
local function number(field) return tonumber(r[field] or 0) end
local function left(ends, length) return math.min(number(ends) - now, number(length)) end
local function age(field) return math.max(now - number(field), 0) end

local function unlease()
  r.lease, r.lease_by, r.lease_until, r.lease_asked = nil, nil, nil, nil
  written = true
end
local function become(state, event, who, at, length)
  r.state, r.event, r.by, r.at = state, event, who, text(at)
  r['until'], r['for'] = text(at + length), text(length)
  unlease()
end
local function unforce(at)
  become(r.force, r.force_event, r.force_by, at, 0)
  for _, field in ipairs({'', '_event', '_by', '_at', '_until', '_for', '_reason'}) do
    r['force' .. field] = nil
  end
end
if r.force and r.force_until ~= '0' and number('force_until') <= now then
  unforce(number('force_until'))
end
-- Finding out that a force is over is no reason to write.
written = false

local lost = ARGV[9] == '1' and found
if op == 'trip' and not lost and not r.force and r.event ~= id then
  -- An instance that trips without knowing that others have joins them. One that
  -- knows, and trips again, has probed.
  if not (r.state == 'open' and left('until', 'for') > 0 and r.event ~= known) then
    become('open', id, by, now, ms)
  end
elseif op == 'close' and not r.force and r.event ~= id and (not found or r.event == known) then
  become('closed', id, by, now, 0)
elseif op == 'lease' and not r.force then
  if not found then
    become('open', id, by, now, 0)
    known = id
  end
  if r.lease ~= token and number('lease_until') <= now then
    unlease()
  end
  if r.event == known and (r.lease == token or not r.lease) then
    r.lease, r.lease_by, r.lease_until = token, by, text(now + ms)
    granted, written = '1', true
  elseif r.lease and not r.lease_asked then
    r.lease_asked, written = '1', true
  end
elseif op == 'leave' and r.lease == token then
  unlease()
elseif op == 'force' and not lost and r.force_event ~= id and r.event ~= id then
  r.force, r.force_event, r.force_by, r.force_at = ARGV[7], id, by, text(now)
  r.force_for, r.force_reason = text(ms), ARGV[8]
  r.force_until = ms > 0 and text(now + ms) or '0'
  unlease()
elseif op == 'release' and r.force then
  r.force_by = by
  unforce(now)
end

if written then
  flat = {}
  for field, value in pairs(r) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(flat))
  if not r.force or r.force_until ~= '0' then
    -- It is kept for a day longer, for operators who look at it later.
    local ends = math.max(now, number('until'), number('force_until'), number('lease_until'))
    redis.call('PEXPIRE', key, text(ends - now + 86400000))
  end
end
local limited = r.force and r.force_until ~= '0'
local prober = r.lease_until and number('lease_until') > now and r.lease_by
return {
  r.state or '', r.event or '', r.by or '', text(age('at')), text(left('until', 'for')),
  r.force or '', r.force_event or '', r.force_by or '', text(age('force_at')),
  limited and text(left('force_until', 'force_for')) or '0', r.force_reason or '',
  prober or '', granted, r.lease_asked or '0',
}
`

func digest() string {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}
