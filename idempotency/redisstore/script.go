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
	leased   = 'L'
	retrying = 'R'
	done     = 'D'
)

// What the scripts other than claim answer.
const (
	answerLost = 0
	answerOK   = 1
	answerLate = 2
)

// script is a Lua script on one key. Its arguments are the first so many of: token,
// duration in milliseconds, attempt.
type script struct {
	op        string // the step, for errors
	arguments int
	source    string
	sha       string
	// answersValue is set for claim: it answers the value that stands afterwards.
	answersValue bool
}

func newScript(op string, arguments int, source string) *script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return &script{op: op, arguments: arguments, source: source, sha: hex.EncodeToString(sum[:])}
}

// scripts are the steps of a Store.
type scripts struct {
	claim, renew, complete, schedule, release *script
	// completeMany is complete for many keys.
	completeMany *script
}

func newScripts() scripts {
	s := scripts{
		// ARGV token, lease, attempt.
		claim: newScript("claim", 3, `
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
  if tonumber(ARGV[3]) < scheduled then
    return value
  end
end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[2])
return mine
`),
		// ARGV token, lease.
		renew: newScript("renew", 2, `
if redis.call('GET', KEYS[1]) == 'L' .. ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
return 0
`),
		// ARGV token, window.
		complete: newScript("complete", 2, `
local value = redis.call('GET', KEYS[1])
local answer = 2
if value == 'L' .. ARGV[1] then
  answer = 1
elseif value then
  local letter = string.sub(value, 1, 1)
  if letter == 'D' then
    return 1
  end
  if letter ~= 'R' or string.sub(value, string.find(value, ':', 1, true) + 1) ~= ARGV[1] then
    return 0
  end
  answer = 1
end
redis.call('SET', KEYS[1], 'D' .. ARGV[1], 'PX', ARGV[2])
return answer
`),
		// ARGV window, and each key's token. It answers with a list of what complete
		// answers for each key, or of errors. The values are read at once, because
		// calls of Redis are what a script spends its time on. What is not as usual is
		// read again, since MGET shows nothing of values that are no strings.
		completeMany: newScript("complete", 0, `
local window, answers = ARGV[1], {}
local values = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local token = ARGV[i + 1]
  local answer = 1
  if values[i] ~= 'L' .. token then
    local value = redis.pcall('GET', key)
    if type(value) == 'table' then
      answer = value
    elseif not value then
      answer = 2
    elseif string.sub(value, 1, 1) == 'D' then
      answer = 3
    elseif string.match(value, '^R[^:]*:(.*)$') ~= token and value ~= 'L' .. token then
      answer = 0
    end
  end
  if answer == 1 or answer == 2 then
    redis.call('PSETEX', key, window, 'D' .. token)
  elseif answer == 3 then
    answer = 1
  end
  answers[i] = answer
end
return answers
`),
		// ARGV token, ttl, attempt.
		schedule: newScript("schedule", 3, `
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
redis.call('SET', KEYS[1], 'R' .. ARGV[3] .. ':' .. ARGV[1], 'PX', ARGV[2])
return 1
`),
		// ARGV token.
		release: newScript("release", 1, `
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
	s.claim.answersValue = true
	return s
}
