"""No server: one reply for whatever one receive brings, from one loop. What a message costs in the kernel and in the
least Python that can answer; a server's protocol, limits and hooks come on top.

    python tests/bench/peers/bare.py PORT

For clients that wait for each reply and whose content fits into one receive.
"""

import select
import socket
import sys

REPLIES = {
    b"EHLO": b"250-bare.test\r\n250 SIZE 1073741824\r\n",
    b"DATA": b"354 Go ahead\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
OTHERWISE = b"250 2.0.0 Ok\r\n"


def serve(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for number, _ in poller.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poller.register(client, select.EPOLLIN)
                client.send(b"220 bare.test ESMTP\r\n")
                continue
            client = clients[number]
            data = client.recv(65_536)
            if data:
                client.send(REPLIES.get(data[:4], OTHERWISE))
            else:
                poller.unregister(number)
                clients.pop(number).close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
