"""A wrapper in the manner of a Windows service: start, stop, pause and continue arrive from the service manager's
thread, each must return soon, and the outcome is reported.

With pywin32 the four methods below are SvcDoRun, SvcStop, SvcPause and SvcContinue of a ServiceFramework.

    python docs/examples/as_service.py --selftest
"""

import logging
import smtplib
import socket
import sys
import threading

from smtpd_core import SmtpServer

log = logging.getLogger("mail-service")


class MailService:
    """One server; `stop_wait` is what the service manager grants for stopping, seconds."""

    stop_wait = 10.0

    def __init__(self, port=2525):
        self.server = SmtpServer(port=port, on_message_received=self.receive, on_server_error=self.report)
        self.state = "stopped"
        self.received = 0

    def receive(self, session, message):
        self.received += 1

    def report(self, session, error):
        log.error("%s: %s", session and session.id, error)

    def run(self):
        """Blocks until stop(): the service's main function."""
        try:
            self.server.start()
        except OSError as error:
            log.error("the service can't start: %s", error)
            raise
        self.state = "running"
        self.server.wait()
        self.state = "stopped"

    def stop(self):
        self.state = "stopping"
        if not self.server.stop(self.stop_wait):
            log.warning("a hook still runs; its thread ends with the process")

    def pause(self):
        """Newcomers wait in the backlog; sessions under way go on."""
        self.server.pause()
        self.state = "paused"

    def go_on(self):
        self.server.resume()
        self.state = "running"


def selftest():
    service = MailService(0)
    started = threading.Event()
    service.server.on_start = lambda server: started.set()
    main = threading.Thread(target=service.run)
    main.start()
    assert started.wait(10)
    address = service.server.address
    service.pause()
    waiting = socket.create_connection(address, timeout=10)
    service.go_on()
    assert waiting.recv(3) == b"220"
    waiting.close()
    with smtplib.SMTP(*address) as client:
        client.sendmail("a@example.test", ["b@example.test"], "Subject: service\r\n\r\n")
    service.stop()
    main.join(10)
    assert (service.state, service.received) == ("stopped", 1)
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        MailService().run()
