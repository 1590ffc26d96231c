package redisstore

import "github.com/redis/go-redis/v9"

// What scripts answer for an entry or a job.
const (
	answerMissing  = 0
	answerDone     = 1
	answerClaimed  = 2
	answerLost     = 3
	answerReplaced = 4
)

// scripts are all changes that a Store makes, and the reading of Stats. Each is
// one command for any number of entries: Redis does all of it or nothing,
// whichever process dies when. When Redis is out of memory, the first write of
// a script decides whether Redis lets it go on. put begins with a write that
// needs memory, and is refused as a whole. The others begin with one that needs
// none, so that a full store can still be emptied.
type scripts struct {
	put, claim, release, remove, discard, prune, stats, saveJob, deleteJobs *redis.Script
}

// common begins every script on entries. described returns what the index and
// the counts are made of, in the order of the constants byTime to bySource. The
// reads at the end fail if a key is of another kind, before anything is
// changed.
const common = `
local index, reasons, types, fingerprints = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local before = 4 -- keys that are not an entry's
local MISSING, DONE, CLAIMED, LOST, REPLACED = 0, 1, 2, 3, 4

local function described(key)
  return redis.call('HMGET', key, 'at', 'reason', 'recipient', 'type', 'fingerprint', 'source')
end

local function members(id, entry)
  local place = entry[1] .. id
  local all = {'0' .. place}
  for n = 1, 5 do
    all[n + 1] = n .. string.sub(redis.sha1hex(entry[n + 1] or ''), 1, 16) .. place
  end
  return all
end

local function tally(key, value, by)
  if redis.call('HINCRBY', key, value, by) <= 0 then
    redis.call('HDEL', key, value)
  end
end

local function count(entry, by)
  tally(reasons, entry[2] or '', by)
  tally(types, entry[4] or '', by)
  local fingerprint = entry[5] or ''
  if tonumber(redis.call('ZINCRBY', fingerprints, -by, fingerprint)) >= 0 then
    redis.call('ZREM', fingerprints, fingerprint)
  end
end

local function enlist(id, entry)
  local m = members(id, entry)
  if redis.call('ZADD', index, 0, m[1]) == 1 then
    count(entry, 1)
  end
  redis.call('ZADD', index, 0, m[2], 0, m[3], 0, m[4], 0, m[5], 0, m[6])
end

local function delist(id, entry)
  local m = members(id, entry)
  if redis.call('ZREM', index, m[1]) == 1 then
    count(entry, -1)
  end
  redis.call('ZREM', index, m[2], m[3], m[4], m[5], m[6])
end

local function claimed(token, until_, now)
  return token and tonumber(until_) > tonumber(now)
end

redis.call('ZCARD', index)
redis.call('HLEN', reasons)
redis.call('HLEN', types)
redis.call('ZCARD', fingerprints)
`

func newScripts() scripts {
	return scripts{
		put:        redis.NewScript(common + putSource),
		claim:      redis.NewScript(common + claimSource),
		release:    redis.NewScript(common + releaseSource),
		remove:     redis.NewScript(common + removeSource),
		discard:    redis.NewScript(common + discardSource),
		prune:      redis.NewScript(common + pruneSource),
		stats:      redis.NewScript(common + statsSource),
		saveJob:    redis.NewScript(saveJobSource),
		deleteJobs: redis.NewScript(deleteJobsSource),
	}
}

// putSource takes as ARGV, for each entry, its id and the values of hashFields.
const putSource = `
local fields = {'at', 'reason', 'recipient', 'type', 'fingerprint', 'source', 'error', 'size', 'entry', 'body', 'raw'}
local width = 1 + #fields
for i = before + 1, #KEYS do
  local key, from = KEYS[i], (i - before - 1) * width + 1
  local id, old = ARGV[from], described(key)
  local token = redis.call('HGET', key, 'token')
  local set = {}
  for n, field in ipairs(fields) do
    set[2 * n - 1], set[2 * n] = field, ARGV[from + n]
  end
  redis.call('HSET', key, unpack(set))
  if token then
    redis.call('HSET', key, 'replaced', 1)
  end
  if old[1] then
    delist(id, old)
  end
  enlist(id, {unpack(ARGV, from + 1, from + 6)})
end
return redis.status_reply('OK')
`

// claimSource takes as ARGV a token, now, and until. It answers two numbers for
// each entry, of which the second is its size.
const claimSource = `
local answers = {}
for i = before + 1, #KEYS do
  local key = KEYS[i]
  local entry = redis.call('HMGET', key, 'at', 'token', 'until', 'size')
  local answer = DONE
  if not entry[1] then
    answer = MISSING
  elseif entry[2] ~= ARGV[1] and claimed(entry[2], entry[3], ARGV[2]) then
    answer = CLAIMED
  else
    redis.call('HDEL', key, 'replaced')
    redis.call('HSET', key, 'token', ARGV[1], 'until', ARGV[3])
  end
  answers[#answers + 1] = answer
  answers[#answers + 1] = tonumber(entry[4] or 0)
end
return answers
`

// releaseSource takes as ARGV a token.
const releaseSource = `
local answers = {}
for i = before + 1, #KEYS do
  local key = KEYS[i]
  local entry = redis.call('HMGET', key, 'at', 'token')
  local answer = DONE
  if not entry[1] then
    answer = MISSING
  elseif entry[2] ~= ARGV[1] then
    answer = LOST
  else
    redis.call('HDEL', key, 'token', 'until', 'replaced')
  end
  answers[#answers + 1] = answer
end
return answers
`

// removeSource takes as ARGV a token, and the id of each entry.
const removeSource = `
local answers = {}
for i = before + 1, #KEYS do
  local key = KEYS[i]
  local entry, claim = described(key), redis.call('HMGET', key, 'token', 'replaced')
  local answer = DONE
  if not entry[1] then
    answer = MISSING
  elseif claim[1] ~= ARGV[1] then
    answer = LOST
  elseif claim[2] then
    answer = REPLACED
  else
    redis.call('DEL', key)
    delist(ARGV[i - before + 1], entry)
  end
  answers[#answers + 1] = answer
end
return answers
`

// discardSource deletes entries that nobody has claimed. It takes as ARGV now,
// and for each entry its id and the place that it must still have, or "" for
// any.
const discardSource = `
local answers = {}
for i = before + 1, #KEYS do
  local key, from = KEYS[i], (i - before) * 2
  local id, place = ARGV[from], ARGV[from + 1]
  local entry, claim = described(key), redis.call('HMGET', key, 'token', 'until')
  local answer = DONE
  if not entry[1] or (place ~= '' and entry[1] ~= place) then
    answer = MISSING
  elseif claimed(claim[1], claim[2], ARGV[1]) then
    answer = CLAIMED
  else
    redis.call('DEL', key)
    delist(id, entry)
  end
  answers[#answers + 1] = answer
end
return answers
`

// pruneSource removes members of the index that point to no entry. It takes as
// ARGV, for each entry, a member of the index and the place in it.
const pruneSource = `
local pruned = 0
for i = before + 1, #KEYS do
  local from = (i - before) * 2 - 1
  if redis.call('HGET', KEYS[i], 'at') ~= ARGV[from + 1] then
    pruned = pruned + redis.call('ZREM', index, ARGV[from])
  end
end
return pruned
`

// statsSource takes as ARGV how many fingerprints to return. It answers how
// many entries there are, the member of the oldest, the counts of reasons and
// of types, fingerprints with counts, and the member of the newest entry of
// each.
const statsSource = `
local top, newest = {}, {}
if tonumber(ARGV[1]) > 0 then
  top = redis.call('ZRANGE', fingerprints, 0, ARGV[1] - 1, 'WITHSCORES')
end
for n = 1, #top, 2 do
  local part = '4' .. string.sub(redis.sha1hex(top[n]), 1, 16)
  newest[#newest + 1] = redis.call('ZREVRANGEBYLEX', index, '(' .. part .. 'g', '[' .. part, 'LIMIT', 0, 1)[1] or ''
end
return {
  redis.call('ZLEXCOUNT', index, '[0', '(1'),
  redis.call('ZRANGEBYLEX', index, '[0', '(1', 'LIMIT', 0, 1)[1] or '',
  redis.call('HGETALL', reasons),
  redis.call('HGETALL', types),
  top,
  newest,
}
`

// saveJobSource takes as KEYS jobs and job-versions. It takes as ARGV an id,
// the version to be replaced or 0 for a new job, the new version, and the JSON.
const saveJobSource = `
local MISSING, DONE, LOST = 0, 1, 3
redis.call('HLEN', KEYS[1])
local version = redis.call('HGET', KEYS[2], ARGV[1])
if not version and ARGV[2] ~= '0' then
  return MISSING
elseif (version or '0') ~= ARGV[2] then
  return LOST
end
if version then -- what a full Redis lets begin
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return DONE
`

// deleteJobsSource takes as KEYS jobs and job-versions, and as ARGV ids.
const deleteJobsSource = `
for _, id in ipairs(ARGV) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return redis.status_reply('OK')
`
