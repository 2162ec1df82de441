#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: talk HOST PORT [BYTES]: a TCP connection to the host that sends BYTES, takes them back and compares."""
import os
import socket
import sys
import threading

size = int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 20
data = os.urandom(65536) * ((size + 65535) // 65536)
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
sender = threading.Thread(target=lambda: (link.sendall(data), link.shutdown(socket.SHUT_WR)))
sender.start()
back = b"".join(iter(lambda: link.recv(65536), b""))
sender.join()
print("talk: ok" if back == data else f"talk: BAD {len(back)} of {len(data)}")
sys.exit(back != data)
