#!/usr/bin/python3
"""The link's end in the server's namespace: shapes the device to the client after a trace, and serves plain bytes for the 8-bit baseline.

  packets_link.py DEVICE CLIENT_ADDRESS SERVER_ADDRESS

Reads one JSON object a line from stdin, answers each with one on stdout, ends with stdin:

  {"do": "follow", "steps": [[seconds, bytes a second], ...], "period": seconds or null, "offset": seconds}
      from now on the link has the trace's rates from `offset` on; answers once the first is set
  {"do": "rate", "bytes_per_second": x}      one rate, for ever
  {"do": "serve", "path": FILE}              answers {"port": N}: whoever connects there and sends a number of 8 bytes gets so many of the file's
  {"do": "sent"}                             answers {"bytes": N}: what the device has sent so far, frame headers included

Rates count TCP's payload: what is set is 1514/1448 of it, since a full Ethernet frame of 1,514 bytes carries 1,448 of payload.
"""
import json
import os
import socket
import subprocess
import sys
import threading
import time

FRAME_SHARE = 1514 / 1448
# A token bucket cannot stand still; at this rate a frame takes a second and a half.
STALL_BITS = 8000
# Tokens are full again after each change, so the bucket is small: 2 ms of the rate, two frames at least.
BURST_SECONDS, BURST_BYTES_MIN = 0.002, 3200
# A drop-tail queue before the link, of a fixed size in bytes as routers have it: 50 ms of the trace's highest rate.
QUEUE_SECONDS, QUEUE_BYTES_MIN = 0.05, 64 << 10


class Shaper:
    def __init__(self, device, client):
        self.device = device
        self.tc = subprocess.Popen(["tc", "-force", "-batch", "-"], stdin=subprocess.PIPE, text=True)
        self.kicker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client = client
        self.command, self.limit = "add", QUEUE_BYTES_MIN
        self.generation, self.lock = 0, threading.Lock()

    def apply(self, rate):
        bits = max(STALL_BITS, round(rate * 8 * FRAME_SHARE))
        burst = max(BURST_BYTES_MIN, round(bits / 8 * BURST_SECONDS))
        self.tc.stdin.write(f"qdisc {self.command} dev {self.device} root tbf rate {bits}bit burst {burst} limit {self.limit}\n")
        self.tc.stdin.flush()
        self.command = "change"
        # The bucket looks at its new rate when its old timer ends or a packet comes: so one comes.
        time.sleep(0.0005)
        try:
            self.kicker.sendto(b"", (self.client, 9))
        except OSError:
            pass  # a full queue, or nobody there: both are well

    def start(self, steps, period, offset):
        """Ends what was followed before."""
        with self.lock:
            self.generation += 1
            mine = self.generation
            self.limit = max(QUEUE_BYTES_MIN, round(max(rate for _, rate in steps) * QUEUE_SECONDS))
            if period is not None:
                offset %= period
            index = max(i for i, (at, _) in enumerate(steps) if at <= offset)
            began = time.monotonic() - offset
            self.apply(steps[index][1])
        threading.Thread(target=self.follow, args=(mine, steps, period, index, began), daemon=True).start()

    def follow(self, mine, steps, period, index, began):
        while True:
            index += 1
            if index == len(steps):
                if period is None:
                    return
                index, began = 0, began + period
            time.sleep(max(0.0, began + steps[index][0] - time.monotonic()))
            with self.lock:
                if mine != self.generation:
                    return
                self.apply(steps[index][1])

    def sent(self):
        shown = subprocess.run(["tc", "-s", "-json", "qdisc", "show", "dev", self.device], check=True, stdout=subprocess.PIPE, text=True).stdout
        return next(q["bytes"] for q in json.loads(shown) if q["kind"] == "tbf")


def serve(address, path):
    with open(path, "rb") as f:
        payload = f.read()
    listener = socket.create_server((address, 0))

    def send():
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    # The connection is up before anybody's clock starts, as for every other load.
                    while len(wanted := connection.recv(8, socket.MSG_WAITALL)) == 8:
                        connection.sendall(payload[:int.from_bytes(wanted, "big")])
                except OSError:
                    pass  # the reader left

    threading.Thread(target=send, daemon=True).start()
    return listener.getsockname()[1]


def main():
    device, client, server = sys.argv[1:]
    shaper = Shaper(device, client)
    for line in sys.stdin:
        wanted = json.loads(line)
        answer = {}
        if wanted["do"] == "follow":
            shaper.start(wanted["steps"], wanted["period"], wanted["offset"])
        elif wanted["do"] == "rate":
            shaper.start([[0, wanted["bytes_per_second"]]], None, 0)
        elif wanted["do"] == "serve":
            answer["port"] = serve(server, wanted["path"])
        elif wanted["do"] == "sent":
            answer["bytes"] = shaper.sent()
        print(json.dumps(answer), flush=True)
    shaper.tc.stdin.close()
    shaper.tc.wait()
    os._exit(0)  # threads that wait for readers


if __name__ == "__main__":
    main()
