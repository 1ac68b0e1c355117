-- One request of the JSON API for wrk: a put of 128 bytes, or a linearizable get, of a random one
-- of 10,000 keys. The work is named by the environment variable WORK.
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
for i = 1, 10000 do
    local key = base64(string.format("bench/key%08d", i))
    if work == "put" then
        bodies[i] = '{"key":"' .. key .. '","value":"' .. value .. '"}'
    else
        bodies[i] = '{"key":"' .. key .. '"}'
    end
end
local path = work == "put" and "/v3/kv/put" or "/v3/kv/range"
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

request = function()
    return wrk.format(nil, path, nil, bodies[math.random(10000)])
end
