-- One request of the JSON API for wrk, at random among 10,000 keys with values of 128 bytes. The
-- environment variable WORK names it: put, get, serializable, txn (100 puts). NODES, if given, is
-- a list of ports on 127.0.0.1: wrk's thread i sends to the i-th instead of to the URL.
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

local work = os.getenv("WORK")
local value = base64(string.rep("v", 128))
local bodies = {}
local puts = {}
for i = 1, 10000 do
    local key = base64(string.format("bench/key%08d", i))
    local put = '{"key":"' .. key .. '","value":"' .. value .. '"}'
    if work == "put" then
        bodies[i] = put
    elseif work == "get" then
        bodies[i] = '{"key":"' .. key .. '"}'
    elseif work == "serializable" then
        bodies[i] = '{"key":"' .. key .. '","serializable":true}'
    elseif work == "txn" then
        puts[#puts + 1] = '{"request_put":' .. put .. '}'
        if #puts == 100 then
            bodies[#bodies + 1] = '{"success":[' .. table.concat(puts, ",") .. ']}'
            puts = {}
        end
    else
        error("WORK is none of put, get, serializable, txn")
    end
end
local paths = {put = "/v3/kv/put", get = "/v3/kv/range", serializable = "/v3/kv/range", txn = "/v3/kv/txn"}
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local nodes = {}
for port in (os.getenv("NODES") or ""):gmatch("%d+") do nodes[#nodes + 1] = port end
local threads = 0

setup = function(thread)
    if #nodes > 0 then
        thread.addr = wrk.lookup("127.0.0.1", nodes[threads % #nodes + 1])[1]
    end
    threads = threads + 1
end

request = function()
    return wrk.format(nil, paths[work], nil, bodies[math.random(#bodies)])
end
