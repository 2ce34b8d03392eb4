"""An upstream that refuses every event permanently, so that each becomes a dead letter. Listens on loopback."""
import http.server

class Refuse(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        is_session = self.path.endswith("capture-session")
        body = b'{"session_id":"x"}' if is_session else b'{"error":"refused"}'
        self.send_response(200 if is_session else 422)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
print("%s:%d" % server.server_address, flush=True)
server.serve_forever()
