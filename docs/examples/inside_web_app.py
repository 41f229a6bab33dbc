"""A mail server inside the process of a web application: Flask, Django or anything with a WSGI callable.

The server has its own threads and installs no signal handler, so it runs beside any web server. Start it where the
worker process starts, after a fork, not where the module is imported:

    Flask     in create_app(), or in gunicorn's post_fork hook
    Django    in AppConfig.ready(), where RUN_MAIN is set under runserver

    python docs/examples/inside_web_app.py --selftest
"""

import json
import smtplib
import sys
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

from smtpd_core import SmtpServer


class Inbox:
    """What both halves share: hooks run in other threads than requests, so a lock it is."""

    def __init__(self):
        self._lock = threading.Lock()
        self._mail = []

    def add(self, session, message):
        entry = {"from": message.sender, "to": message.addresses, "subject": str(message.headers["subject"])}
        with self._lock:
            self._mail.append(entry)

    def all(self):
        with self._lock:
            return list(self._mail)


def make_app(inbox):
    """With Flask: @app.get("/mail") def mail(): return jsonify(inbox.all())."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(inbox.all()).encode()]

    return app


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


def main(mail_port=2525, web_port=8000):
    inbox = Inbox()
    mail = SmtpServer(port=mail_port, on_message_received=inbox.add).start()
    web = make_server("127.0.0.1", web_port, make_app(inbox), handler_class=Quiet)
    return mail, web


def selftest():
    mail, web = main(0, 0)
    threading.Thread(target=web.handle_request).start()
    with smtplib.SMTP(*mail.address) as client:
        client.sendmail("a@example.test", ["b@example.test"], "Subject: both worlds\r\n\r\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{web.server_port}/mail") as answer:
        assert json.load(answer)[0]["subject"] == "both worlds"
    mail.stop()
    web.server_close()
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main()[1].serve_forever()
