# Sourced by the other scripts here: measures single events with wrk. $data must name a directory of the caller.

cat > "$data/post.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"agent_id": "my-agent", "action_type": "TOOL_CALL", "action_name": "search_database", "action_status": "success"}'
LUA
# Wait until the servers listen.
sleep 1

rate() {
    wrk -t1 -c128 -d4s -s "$data/post.lua" "http://127.0.0.1:$1/v1/events" | awk '
        /Non-2xx/ { failed = 1 }
        /Requests\/sec/ { rate = $2 }
        END { if (failed) exit 1; print rate }'
}
