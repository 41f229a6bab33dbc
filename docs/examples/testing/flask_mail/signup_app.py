"""A Flask application that mails a one-time code by Flask-Mail."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask, request
from flask_mail import Mail, Message


def create_app(config: Mapping[str, object]) -> Flask:
    app = Flask(__name__)
    app.config.update(MAIL_DEFAULT_SENDER="signup@shop.test")
    app.config.update(config)
    mail = Mail(app)

    @app.post("/signup")
    def signup() -> tuple[str, int]:
        message = Message("Welcome", recipients=[request.form["address"]], body="Your code is 482913.")
        message.attach("terms.pdf", "application/pdf", b"%PDF-1.7 terms")
        mail.send(message)
        return "Look into your mailbox.", 200

    return app
