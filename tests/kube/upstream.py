"""upstream.py ADDRESS PORT FILE: a stand-in for the upstream of the relay. It writes a line for each event that it accepts."""
import http.server
import json
import sys

ADDRESS, PORT, FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/v1/capture-event":
            with open(FILE, "a") as file:
                file.write(json.dumps({"org": self.headers["x-org-id"], "event": json.loads(body)}) + "\n")
        answer = b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((ADDRESS, PORT), Upstream).serve_forever()
