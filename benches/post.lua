-- Sends the bodies in the directory POST_BODIES to POST_PATH, one after another. For wrk.
local requests, next = {}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init()
    for n = 0, 1e9 do
        local file = io.open(os.getenv("POST_BODIES") .. "/" .. n, "rb")
        if not file then break end
        requests[n] = wrk.format(nil, os.getenv("POST_PATH"), nil, file:read("*a"))
        file:close()
    end
end

function request()
    local request = requests[next]
    next = (next + 1) % (#requests + 1)
    return request
end
