-- Sends the same export repeatedly, each time with new trace and span ids. For wrk. OTLP_BODY names the file with the
-- export, OTLP_OFFSETS the file with the offsets of its ids: a trace id, a span id, and so on.
local ffi = require("ffi")

local function read_file(name)
   local file = assert(io.open(name, "rb"))
   local text = file:read("*a")
   file:close()
   return text
end

local body, parts, ids, last = read_file(os.getenv("OTLP_BODY")), {}, {}, 1
for offset in read_file(os.getenv("OTLP_OFFSETS")):gmatch("%d+") do
   local length = #ids % 2 == 0 and 16 or 8
   parts[#parts + 1] = body:sub(last, offset)
   ids[#ids + 1] = #parts + 1
   parts[#parts + 1] = ""
   last = offset + length + 1
end
parts[#parts + 1] = body:sub(last)

local salt, count, words = 0, 0, ffi.new("uint32_t[4]")

function init()
   math.randomseed(os.time())
   salt = math.random(2 ^ 30)
end

function request()
   count = count + 1
   for index = 1, #ids, 2 do
      words[0], words[1], words[2], words[3] = salt, count, index, 1
      parts[ids[index]] = ffi.string(words, 16)
      -- Spread over all values, like random ids.
      words[0], words[1] = index * 2654435761 % 4294967296, count * 2246822519 % 4294967296
      parts[ids[index + 1]] = ffi.string(words, 8)
   end
   return wrk.format("POST", "/v1/traces", { ["content-type"] = "application/x-protobuf" }, table.concat(parts))
end
