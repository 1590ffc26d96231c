package redisstore

import (
	"crypto/sha1" //nolint:gosec // the digest that EVALSHA goes by
	"encoding/hex"
)

// A key's value is one letter for its state, and the token:
//
//	L token           leased
//	R attempt:token   that attempt is scheduled
//	D token           done
//
// Values outlive the program, so their form stays as it is.
const (
	letterLeased = 'L'
	letterRetry  = 'R'
	letterDone   = 'D'
)

// What the scripts other than claim answer.
const (
	answerLost = 0
	answerOK   = 1
	answerLate = 2
)

// script is a Lua script on one key.
type script struct {
	op     string // the step, for errors
	source string
	sha    string
}

func newScript(op, source string) *script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return &script{op: op, source: source, sha: hex.EncodeToString(sum[:])}
}

// scripts are the steps. Durations are in milliseconds.
type scripts struct {
	claim, renew, complete, schedule, release *script
}

func newScripts() scripts {
	return scripts{
		// KEYS key; ARGV token, attempt, lease. Answers the value that stands
		// afterwards.
		claim: newScript("claim", `
local value = redis.call('GET', KEYS[1])
local mine = 'L' .. ARGV[1]
if value and value ~= mine then
  local letter = string.sub(value, 1, 1)
  if letter == 'L' or letter == 'D' then
    return value
  end
  if letter ~= 'R' then
    return redis.error_reply('ERR the key holds a value of something else')
  end
  local scheduled = tonumber(string.sub(value, 2, string.find(value, ':', 1, true) - 1))
  if tonumber(ARGV[2]) < scheduled then
    return value
  end
end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return mine
`),
		// KEYS key; ARGV token, lease.
		renew: newScript("renew", `
if redis.call('GET', KEYS[1]) == 'L' .. ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
return 0
`),
		// KEYS key; ARGV token, window.
		complete: newScript("complete", `
local value = redis.call('GET', KEYS[1])
local answer = 2
if value then
  local letter = string.sub(value, 1, 1)
  if letter == 'D' then
    return 1
  end
  local from = 2
  if letter == 'R' then
    from = string.find(value, ':', 1, true) + 1
  end
  if (letter ~= 'L' and letter ~= 'R') or string.sub(value, from) ~= ARGV[1] then
    return 0
  end
  answer = 1
end
redis.call('SET', KEYS[1], 'D' .. ARGV[1], 'PX', ARGV[2])
return answer
`),
		// KEYS key; ARGV token, attempt, ttl.
		schedule: newScript("schedule", `
local value = redis.call('GET', KEYS[1])
if not value then
  return 0
end
local letter = string.sub(value, 1, 1)
local from = 2
if letter == 'R' then
  from = string.find(value, ':', 1, true) + 1
end
if (letter ~= 'L' and letter ~= 'R') or string.sub(value, from) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], 'R' .. ARGV[2] .. ':' .. ARGV[1], 'PX', ARGV[3])
return 1
`),
		// KEYS key; ARGV token.
		release: newScript("release", `
local value = redis.call('GET', KEYS[1])
if not value then
  return 1
end
if value == 'L' .. ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1
end
return 0
`),
	}
}
