package fleet

// The scripts have one key each, and are sent whole: a server that was restarted, or
// a new one of a cluster, knows none by its hash. Revisions are exact below 2^53.
const (
	// put writes {revision, data} unless there is a higher revision. It answers the
	// revision there was and the data it replaced; an empty answer if there was none.
	// ARGV[3] is a revision that may be replaced though it is higher: what stands
	// there was found to be worth nothing. ARGV[4], if there is one, is a revision that
	// must be there at least.
	putScript = `local r = redis.call('HGET', KEYS[1], 'revision')
local d = redis.call('HGET', KEYS[1], 'data')
if ARGV[4] and (tonumber(r or '0') or 0) < tonumber(ARGV[4]) then return {'lost', r or '', d or ''} end
if r and tonumber(r) and tonumber(r) > tonumber(ARGV[1]) and r ~= ARGV[3] then return {'kept', r, d or ''} end
redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'data', ARGV[2])
return {'put', r or '', d or ''}`

	// unclaim takes a hint back that still says what it says.
	unclaimScript = `local d = redis.call('HGET', KEYS[1], 'data')
local r = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0') or 0
if d == ARGV[1] and r <= tonumber(ARGV[2]) then return redis.call('DEL', KEYS[1]) end
return 0`

	// get answers the data of a revision above ARGV[1] and that revision, or that it has
	// more than ARGV[2] bytes.
	getScript = `local r = redis.call('HGET', KEYS[1], 'revision')
if not r then return {'none', ''} end
if (tonumber(r) or 0) <= tonumber(ARGV[1]) then return {'old', r} end
local n = redis.call('HSTRLEN', KEYS[1], 'data')
if n > tonumber(ARGV[2]) then return {'large', tostring(n)} end
return {'new', redis.call('HGET', KEYS[1], 'data') or '', r}`

	// sum answers the revision that is there, and a checksum of the data.
	sumScript = `local r = redis.call('HGET', KEYS[1], 'revision')
return {r or '', redis.sha1hex(redis.call('HGET', KEYS[1], 'data') or '')}`

	// announce appends entries that name each other. ARGV: the length to keep, and for
	// each entry the number of its fields and values, and those.
	announceScript = `local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', '1')
local after = '0-0'
if #last > 0 then after = last[1][1] end
local i = 2
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  local args = {'XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'after', after}
  for j = i + 1, i + n do args[#args + 1] = ARGV[j] end
  after = redis.call(unpack(args))
  i = i + n + 1
end
return after`

	// await makes the list of answers. What is in it first is no answer.
	awaitScript = `redis.call('RPUSH', KEYS[1], '')
return redis.call('PEXPIRE', KEYS[1], ARGV[1])`

	// heartbeat writes a record unless the node is another process, and answers that
	// one's record then.
	heartbeatScript = `local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return redis.call('HGET', KEYS[1], 'record') end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'record', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return ''`

	// leave is the last heartbeat: the id is free at once.
	leaveScript = `local owner = redis.call('HGET', KEYS[1], 'owner')
if owner ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner')
redis.call('HSET', KEYS[1], 'record', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`
)
