-- Sends the same export repeatedly, each time with new trace and span ids. For wrk. OTLP_BODY names the file with the
-- export, OTLP_OFFSETS the file with the offsets of its ids: a trace id, a span id, and so on. The ids are written in place,
-- because a generator on the same machine takes its time from the servers that it measures.
local ffi = require("ffi")

local function read_file(name)
   local file = assert(io.open(name, "rb"))
   local text = file:read("*a")
   file:close()
   return text
end

local body = read_file(os.getenv("OTLP_BODY"))
local request_bytes, request_len, offsets = nil, 0, {}
local salt, count, words = 0, 0, ffi.new("uint32_t[4]")

function init()
   math.randomseed(os.time())
   salt = math.random(2 ^ 30)
   local request = wrk.format("POST", "/v1/traces", { ["content-type"] = "application/x-protobuf" }, body)
   request_len = #request
   request_bytes = ffi.new("uint8_t[?]", request_len)
   ffi.copy(request_bytes, request, request_len)
   for offset in read_file(os.getenv("OTLP_OFFSETS")):gmatch("%d+") do
      offsets[#offsets + 1] = request_len - #body + offset
   end
end

function request()
   count = count + 1
   for index = 1, #offsets, 2 do
      words[0], words[1], words[2], words[3] = salt, count, index, 1
      ffi.copy(request_bytes + offsets[index], words, 16)
      -- Spread over all values, like random ids.
      words[0], words[1] = index * 2654435761 % 4294967296, count * 2246822519 % 4294967296
      ffi.copy(request_bytes + offsets[index + 1], words, 8)
   end
   return ffi.string(request_bytes, request_len)
end
