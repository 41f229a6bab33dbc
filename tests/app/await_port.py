"""Wait until somebody listens on a port of loopback: await_port.py PORT"""

import socket
import sys
import time

deadline = time.monotonic() + 20
while True:
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
        break
    except OSError:
        if time.monotonic() > deadline:
            sys.exit("nobody listens")
        time.sleep(0.02)  # what listens is another program
