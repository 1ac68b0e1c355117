-- One request of the JSON API for wrk, at random among the keys that bench/filling.py made. In the
-- environment: WORK names the request: put, get, serializable, txn (100 puts), mixed (a put in ten,
-- else get), range (10,000 keys of one prefix); KEYS is their number, VALUE_BYTES a value's size;
-- NODES, if given, is a list of ports on 127.0.0.1: wrk's thread i sends to the i-th instead of to
-- the URL.
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(data)
    local out = {}
    for i = 1, #data, 3 do
        local a, b, c = data:byte(i, i + 2)
        local n = a * 65536 + (b or 0) * 256 + (c or 0)
        local chars = {}
        for shift = 3, 0, -1 do
            local index = math.floor(n / 64 ^ shift) % 64
            chars[#chars + 1] = alphabet:sub(index + 1, index + 1)
        end
        if not b then chars[3] = "=" end
        if not c then chars[4] = "=" end
        out[#out + 1] = table.concat(chars)
    end
    return table.concat(out)
end

-- base64 goes three bytes at a time: "bench/key", three digits, three digits, two digits.
local prefix, threes, twos = base64("bench/key"), {}, {}
for i = 0, 999 do threes[i] = base64(string.format("%03d", i)) end
for i = 0, 99 do twos[i] = base64(string.format("%02d", i)) end

local function key(i)
    return prefix .. threes[math.floor(i / 100000)] .. threes[math.floor(i / 100) % 1000] .. twos[i % 100]
end

local keys = tonumber(os.getenv("KEYS"))
local value = base64(string.rep("v", tonumber(os.getenv("VALUE_BYTES"))))

local function any() return key(math.random(0, keys - 1)) end
local function put(k) return '{"key":"' .. k .. '","value":"' .. value .. '"}' end

local function one_of(bodies) return bodies[math.random(#bodies)] end

local txns, ranges = {}, {}

local bodies = {
    put = function() return "/v3/kv/put", put(any()) end,
    get = function() return "/v3/kv/range", '{"key":"' .. any() .. '"}' end,
    serializable = function() return "/v3/kv/range", '{"key":"' .. any() .. '","serializable":true}' end,
    txn = function() return "/v3/kv/txn", one_of(txns) end,
    range = function() return "/v3/kv/range", one_of(ranges) end,
}
bodies.mixed = function()
    if math.random(10) == 1 then return bodies.put() end
    return bodies.get()
end
local body = bodies[os.getenv("WORK")] or error("WORK is none of put, get, serializable, txn, mixed, range")

if body == bodies.txn then
    for i = 0, 9900, 100 do
        local puts = {}
        for j = i, i + 99 do puts[#puts + 1] = '{"request_put":' .. put(key(j)) .. '}' end
        txns[#txns + 1] = '{"success":[' .. table.concat(puts, ",") .. ']}'
    end
elseif body == bodies.range then
    for i = 0, keys / 10000 - 1 do
        local first = base64(string.format("bench/key%04d", i))
        local last = base64(string.format("bench/key%04d", i + 1))
        ranges[#ranges + 1] = '{"key":"' .. first .. '","range_end":"' .. last .. '"}'
    end
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local nodes = {}
for port in (os.getenv("NODES") or ""):gmatch("%d+") do nodes[#nodes + 1] = port end
local threads = 0

setup = function(thread)
    if #nodes > 0 then
        thread.addr = wrk.lookup("127.0.0.1", nodes[threads % #nodes + 1])[1]
    end
    thread:set("number", threads)
    threads = threads + 1
end

init = function()
    math.randomseed(os.time() + number * 1000)
end

request = function()
    local path, json = body()
    return wrk.format(nil, path, nil, json)
end
