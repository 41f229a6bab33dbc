"""Direct sending, as the component's relay does it: look up the mail servers, deliver now, tell a status per recipient.

No queue and no retries: what is deferred here is the caller's to try again. For mail that must survive, see Outbox.
Thread: send() from any, several at a time; the settings are read when a send begins.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from email.message import Message as EmailMessage
from email.utils import getaddresses
from typing import BinaryIO

from relay.agents.smtp import SmtpAgent
from relay.hop import Hop, StepTimes, TlsPolicy
from relay.idle import IdleConnections
from relay.mail import Outcome, Parcel, Recipient, Result, Stop
from relay.mx import Planner
from relay.outbox import drafted, envelope_for
from relay.relaying import Customs, Relaying, Way
from relay.route import Routes, split
from smtpd_core.threads import Crew, Ticket
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.client import Observer
from smtpd_core.wire.envelope import MailParameters
from smtpd_core.wire.sasl.client import Credentials

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What became of one recipient. `is_temporary`: it may work later. `error` is "" where it was sent."""

    recipient: str
    domain: str
    mail_server: str
    is_sent: bool
    response_code: int
    response_text: str
    error: str = ""
    enhanced_code: str = ""
    is_temporary: bool = False


OnSendCommand = Callable[[Hop, str], None]
OnReceiveResponse = Callable[[Hop, Answer], None]
OnRelayMessage = Callable[[RelayStatus], None]


class SmtpRelay:
    """`dns_server` is "HOST" or "HOST:PORT", the system's where it is ""; `smarthost` ("HOST:PORT", several with
    commas) takes everything instead of MX. `timeout` and `connect_timeout` are seconds. `user_name` is for smart
    hosts, which must show a good certificate, unless `tls` says otherwise; without TLS a password goes out on loopback
    only, and only with `allow_clear_text_login`. `token`, an OAuth bearer token, stands in for a password.
    `status_list` holds the statuses of the last send.
    """

    def __init__(
        self,
        *,
        dns_server: str = "",
        timeout: float = 300.0,
        connect_timeout: float = 30.0,
        port: int = 25,
        user_name: str = "",
        password: str = "",
        token: str = "",
        use_ehlo: bool = True,
        batch_size: int = 65_536,
        server_name: str = "localhost",
        smarthost: str = "",
        tls: TlsPolicy | None = None,
        allow_clear_text_login: bool = False,
        max_connections: int = 10,
        on_send_command: OnSendCommand | None = None,
        on_receive_response: OnReceiveResponse | None = None,
        on_relay_message: OnRelayMessage | None = None,
    ) -> None:
        self.dns_server = dns_server
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.port = port
        self.user_name = user_name
        self.password = password
        self.token = token
        self.use_ehlo = use_ehlo
        self.batch_size = batch_size
        self.server_name = server_name
        self.smarthost = smarthost
        self.tls = tls
        self.allow_clear_text_login = allow_clear_text_login
        self.max_connections = max_connections
        self.on_send_command = on_send_command
        self.on_receive_response = on_receive_response
        self.on_relay_message = on_relay_message
        self.status_list: list[RelayStatus] = []

    def send(
        self,
        message: EmailMessage | bytes | BinaryIO,
        sender: str | None = None,
        recipients: Iterable[str | Recipient] | None = None,
        parameters: MailParameters | None = None,
    ) -> list[RelayStatus]:
        """Deliver now; one status per recipient, in their order, whatever happened. Blocks.

        Without `sender` and `recipients` those of a message object's header are taken (From, To, Cc, Bcc). Raises
        ValueError where there is no recipient, an address is none, or a log-in has no smart host."""
        if self.user_name and not self.smarthost:
            # Whoever has a domain and a certificate for its mail server would be shown the password.
            raise ValueError("user_name is set: smarthost has to say whose log-in it is")
        if sender is None or recipients is None:
            found_sender, found = _addresses_in(message)
            sender = found_sender if sender is None else sender
            recipients = found if recipients is None else recipients
        envelope = envelope_for(sender, recipients, parameters, time.time())
        agent = self._agent()
        draft = drafted(_without_bcc(message))
        default = f"smtp:{self.smarthost}" if self.smarthost else "mx:{domain}"
        by_destination: dict[str, list[Stop]] = {}
        routes = Routes(default=default, hostname=self.server_name)
        for number, one in enumerate(envelope.recipients):
            destination = routes.destination(one.address)
            by_destination.setdefault(destination, []).append(Stop(number, one, destination))
        statuses: dict[int, RelayStatus] = {}
        crew = Crew("relay-send", max(1, min(self.max_connections, len(by_destination))))
        try:
            waiting: list[Ticket] = []
            for destination, stops in by_destination.items():
                parcel = Parcel(draft.id, envelope, b"", draft.size, destination, tuple(stops), 0)
                waiting.append(_carried(crew, agent, parcel, draft.open))
            for ticket in waiting:
                ticket.wait()
                for outcome in ticket.value:
                    statuses[outcome.number] = _status(envelope.recipients[outcome.number], outcome)
        finally:
            crew.stop()
            agent.close()
            draft.close()
        found_statuses = [statuses[number] for number in range(len(envelope.recipients))]
        self.status_list = found_statuses
        if self.on_relay_message is not None:
            for status in found_statuses:
                self.on_relay_message(status)
        return found_statuses

    def _agent(self) -> SmtpAgent:
        credentials = Credentials(self.user_name, self.password, self.token) if self.user_name else None
        relaying = Relaying(
            hello=self.server_name,
            dns_server=self.dns_server,
            port=self.port,
            times=StepTimes.all(self.timeout, self.connect_timeout),
        )
        way = Way(tls=self.tls, credentials=credentials, clear_login_allowed=self.allow_clear_text_login)
        destination = f"smtp:{self.smarthost}" if self.smarthost else "mx:"
        manners = Customs(relaying).manners(way, destination)
        common = replace(manners, extended=self.use_ehlo, window=self.batch_size)
        planner = Planner(relaying)
        observer = self._observer if self.on_send_command or self.on_receive_response else None
        return SmtpAgent(planner.plan, lambda destination: common, IdleConnections(), observer)

    def _observer(self, hop: Hop) -> Observer:
        return _Ears(hop, self.on_send_command, self.on_receive_response)


class _Ears:
    def __init__(self, hop: Hop, heard: OnSendCommand | None, answered: OnReceiveResponse | None) -> None:
        self._hop = hop
        self._heard = heard
        self._answered = answered

    def command(self, text: str) -> None:
        if self._heard is not None:
            self._heard(self._hop, text)

    def reply(self, answer: Answer) -> None:
        if self._answered is not None:
            self._answered(self._hop, answer)


def _carried(crew: Crew, agent: SmtpAgent, parcel: Parcel, open_body: Callable[[], BinaryIO]) -> Ticket:
    ticket = Ticket()

    def carry() -> None:
        scheme, _, rest = parcel.destination.partition(":")
        try:
            if scheme == "refuse":
                enhanced, _, text = rest.partition(" ")
                told = [Outcome(stop.number, Result.FAILED, 0, enhanced, text) for stop in parcel.stops]
            else:
                told = agent.deliver(parcel, open_body, time.time())
        except Exception as error:
            # Raised, it would hide from the caller what the other destinations took already.
            log.exception("sending to %s failed", parcel.destination)
            text = f"sending failed: {type(error).__name__}: {error}"
            told = [Outcome(stop.number, Result.DEFERRED, 0, "4.3.0", text) for stop in parcel.stops]
        ticket.resolve(None, told)

    crew.submit(carry)
    return ticket


def _status(recipient: Recipient, outcome: Outcome) -> RelayStatus:
    is_sent = outcome.result in (Result.RELAYED, Result.DELIVERED)
    answered = outcome.code if outcome.remote else 0
    return RelayStatus(
        recipient=recipient.address,
        domain=split(recipient.address)[1],
        mail_server=outcome.remote,
        is_sent=is_sent,
        response_code=answered,
        response_text=outcome.text if answered else "",
        error="" if is_sent else outcome.text or "not sent",
        enhanced_code=outcome.enhanced,
        is_temporary=outcome.result is Result.DEFERRED,
    )


def _addresses_in(message: EmailMessage | bytes | BinaryIO) -> tuple[str, Sequence[str]]:
    if not isinstance(message, EmailMessage):
        raise ValueError("bytes and files need a sender and recipients")
    senders = getaddresses([str(value) for value in message.get_all("Sender", message.get_all("From", []))])
    fields = [str(value) for name in ("To", "Cc", "Bcc") for value in message.get_all(name, [])]
    recipients = list(dict.fromkeys(address for _, address in getaddresses(fields) if address))
    return (senders[0][1] if senders else ""), recipients


def _without_bcc(message: EmailMessage | bytes | BinaryIO) -> EmailMessage | bytes | BinaryIO:
    """Blind copies stay blind (RFC 5322 3.6.3); the caller's object is left as it is."""
    if not isinstance(message, EmailMessage) or "Bcc" not in message:
        return message
    shown = copy.deepcopy(message)
    del shown["Bcc"]
    return shown
