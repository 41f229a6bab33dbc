"""The Dialogue without sockets: a turn that has a slot or has none, lines in, replies and wishes out."""

from __future__ import annotations

import time

import pytest

from smtpd_core import (
    Accept,
    Guard,
    GuardSettings,
    Handler,
    ListenerSettings,
    Redirect,
    Refuse,
    Reply,
    SmtpServer,
    Ticket,
    UserAccount,
)
from smtpd_core.net import Peer
from smtpd_core.net.conversation import Pause, WaitFor, Wish
from smtpd_core.server.dialogue import Dialogue
from smtpd_core.wire.replies import storage_452
from tests.server.people import Diary, Memory


class OneTurn:
    """Slots while `free`."""

    def __init__(self, free=True):
        self.free = free
        self.entered = []

    def enter(self, meter):
        if self.free:
            self.entered.append(meter.name)
        return self.free

    def leave(self, meter):
        pass


class Talk:
    """One dialogue of a server that never starts."""

    def __init__(self, server=None, service="mx", address="192.0.2.7", auth="off", xclient_from=(), **properties):
        properties.setdefault("store", Memory())
        self.server = server or SmtpServer(server_name="mx.test", **properties)
        listener = ListenerSettings("192.0.2.1:25", service, tls="none", auth=auth, xclient_from=xclient_from)
        self.server._listeners = [listener]
        self.server.listeners = [listener]
        self.server._make_dialects()
        self.server._house.guard = Guard(self.server.guard)
        self.dialogue = Dialogue(self.server._house, Peer(address, 4711, listener, ("192.0.2.1", 25)), listener, "s-1")
        self.turn = OneTurn()
        self.wish = None

    def go(self):
        """Advance until something is wished for; the replies."""
        output = b""
        while True:
            self.wish = self.dialogue.advance(self.turn)
            output += self.dialogue.take_output()
            if self.wish is not Wish.GO_ON:
                return output.decode().replace("\r\n", "\n").rstrip("\n")

    def say(self, *lines):
        self.dialogue.receive("".join(f"{line}\r\n" for line in lines).encode())
        return self.go()

    def greet(self, hello="EHLO probe.test"):
        self.go()
        self.say(hello)
        return self

    def to_content(self, recipients=("b@b.test",)):
        self.greet("LHLO probe.test" if self.dialogue.session.service == "lmtp" else "EHLO probe.test")
        self.say("MAIL FROM:<a@a.test>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA")
        return self


LETTER = ("Subject: x", "", "body", ".")


# -- slots


def test_a_hook_without_a_slot_is_met_again():
    talk = Talk(on_hello=lambda session, domain: None)
    talk.go()
    talk.turn.free = False
    assert talk.say("EHLO a.test", "NOOP") == "" and talk.wish is Wish.NEED_SLOT
    talk.turn.free = True
    assert talk.go().endswith("\n250 2.0.0 Ok")
    assert talk.turn.entered == ["on_hello"]


def test_no_slot_in_time_is_451_and_the_session_stays():
    talk = Talk(on_hello=lambda session, domain: None)
    talk.go()
    talk.turn.free = False
    talk.say("EHLO a.test")
    talk.dialogue.overdue("slot")
    assert talk.go() == "451 4.3.2 Too busy; try again later"
    assert talk.wish is Wish.NEED_BYTES
    assert talk.say("NOOP") == "250 2.0.0 Ok"


def test_no_slot_before_the_greeting_is_421():
    talk = Talk(on_accept_connection=lambda session: None)
    talk.turn.free = False
    talk.go()
    talk.dialogue.overdue("slot")
    assert talk.go() == "421 4.3.2 Too busy; try again later"
    assert talk.wish is Wish.CLOSE


def test_a_message_without_a_slot_in_time_is_451_and_dropped():
    store = Memory()
    talk = Talk(store=store, on_message_received=lambda session, message: None).to_content()
    talk.turn.free = False
    talk.say(*LETTER)
    talk.dialogue.overdue("slot")
    assert talk.go() == "451 4.3.2 Too busy; try again later"
    assert store.kept == [] and talk.dialogue.session.transaction is None


def test_observers_wait_for_a_slot_too_and_keep_their_order():
    said = []
    talk = Talk(
        on_receive_command=lambda session, command: said.append(command),
        on_send_response=lambda session, reply: said.append(reply.code),
    )
    talk.turn.free = False
    talk.go()
    assert said == [] and talk.wish is Wish.NEED_SLOT
    talk.turn.free = True
    talk.go()
    talk.say("EHLO a.test", "NOOP")
    assert said == [220, "EHLO a.test", 250, "NOOP", 250]


# -- before the greeting


@pytest.mark.parametrize(
    "service, address, is_refused",
    [("mx", "192.0.2.7", True), ("mx", "127.0.0.1", False), ("submission", "192.0.2.7", False)],
)
def test_an_early_talker_is_refused_on_mx_and_never_from_loopback(service, address, is_refused):
    talk = Talk(service=service, address=address)
    talk.dialogue.receive(b"EHLO early.test\r\n")
    reply = talk.go()
    assert reply.startswith("554 5.5.1" if is_refused else "220 mx.test")
    assert (talk.wish is Wish.CLOSE) is is_refused


def test_http_is_told_so():
    talk = Talk()
    talk.go()
    assert talk.say("GET / HTTP/1.1", "Host: mx.test").startswith("421 4.7.0") and talk.wish is Wish.CLOSE


# -- keeping


def test_the_250_waits_for_the_ticket_and_no_thread_with_it():
    store = Memory(slow=True)
    talk = Talk(store=store).to_content()
    assert talk.say(*LETTER) == ""
    assert isinstance(talk.wish, WaitFor) and talk.wish.ticket is store.tickets[0]
    store.tickets[0].resolve()
    assert talk.go().startswith("250 2.0.0 Ok: queued as ")


@pytest.mark.parametrize(
    "trouble, reply", [(OSError(28, "No space left"), "452 4.3.1"), (ValueError("a bug"), "451 4.3.0")]
)
def test_what_could_not_be_kept_is_not_promised(trouble, reply):
    store = Memory()
    store.trouble = trouble
    talk = Talk(store=store).to_content()
    assert talk.say(*LETTER).startswith(reply)
    assert talk.say("NOOP") == "250 2.0.0 Ok"


@pytest.mark.parametrize("trouble, reply", [(OSError(5, "I/O error"), "452 4.3.1"), (KeyError("a bug"), "451 4.3.0")])
@pytest.mark.parametrize("method, commands", [("has_room", 1), ("holds", 2), ("keep", 3)])
def test_a_keeping_that_raises_is_answered_wherever_it_raises(method, commands, trouble, reply):
    def fail(*arguments):
        raise trouble

    store = Memory()
    setattr(store, method, fail)
    talk = Talk(store=store).greet()
    said = [talk.say(line) for line in ("MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")[:commands]]
    if method == "keep":
        said.append(talk.say(*LETTER))
    assert said[-1].startswith(reply) and talk.say("NOOP") == "250 2.0.0 Ok"


def test_a_ticket_withdrawn_in_time_is_451():
    store = Memory(slow=True)
    talk = Talk(store=store).to_content()
    talk.say(*LETTER)
    assert store.tickets[0].withdraw()
    talk.dialogue.overdue("ticket")
    assert talk.go() == "451 4.3.0 It could not be kept in time; try again later"
    assert talk.wish is Wish.NEED_BYTES


def test_no_room_is_said_at_mail():
    store = Memory()
    store.room = storage_452
    assert Talk(store=store).greet().say("MAIL FROM:<>") == "452 4.3.1 Insufficient storage; try again later"


def test_a_server_with_nothing_to_keep_mail_says_so_at_mail():
    assert Talk(store=None).greet().say("MAIL FROM:<>") == "554 5.3.2 This server does not take mail"


def test_store_and_outbox_share_a_message_and_both_keep_it_before_the_250():
    store, outbox = Memory("mx.test", slow=True), Memory(slow=True)
    talk = Talk(store=store, outbox=outbox, relay_from=("192.0.2.0/24",))
    talk.to_content(["ann@mx.test", "bob@else.test", "eve@mx.test"])
    assert talk.say(*LETTER) == ""
    store.tickets[0].resolve()
    assert talk.go() == ""
    outbox.tickets[0].resolve()
    assert talk.go().startswith("250 ")
    assert [one.address for one in store.kept[0][0].recipients] == ["ann@mx.test", "eve@mx.test"]
    assert [one.address for one in outbox.kept[0][0].recipients] == ["bob@else.test"]
    assert store.kept[0][1] == outbox.kept[0][1]


class Withdrawn(Memory):
    def __init__(self, *domains, slow=False):
        super().__init__(*domains, slow=slow)
        self.withdrawn = []

    def withdraw(self, envelope, id):
        self.withdrawn.append(([one.address for one in envelope.recipients], id))


@pytest.mark.parametrize("failure", ["outcome", "raises", "too late"])
def test_the_store_takes_its_part_back_where_the_outbox_can_not_keep_its_own(failure):
    """The client sends all of it again, and the store had it twice."""
    store, outbox = Withdrawn("mx.test"), Memory(slow=True)
    talk = Talk(store=store, outbox=outbox, relay_from=("192.0.2.0/24",))
    talk.to_content(["ann@mx.test", "bob@else.test"])
    if failure == "raises":
        outbox.keep = None
        assert talk.say(*LETTER)[:9] == "451 4.3.0"
    else:
        assert talk.say(*LETTER) == ""
        assert not store.withdrawn
        if failure == "outcome":
            outbox.tickets[0].resolve(OSError("no space"))
            assert talk.go()[:9] == "452 4.3.1"
        else:
            talk.dialogue.overdue("ticket")
            assert talk.go()[:9] == "451 4.3.0"
    [(addresses, id)] = store.withdrawn
    assert addresses == ["ann@mx.test"] and id.encode() in store.kept[0][1]


def test_nothing_is_taken_back_where_both_kept_or_the_store_did_not():
    for trouble, reply in ((None, "250"), (OSError("no space"), "452")):
        store, outbox = Withdrawn("mx.test"), Memory()
        store.trouble = trouble
        talk = Talk(store=store, outbox=outbox, relay_from=("192.0.2.0/24",))
        assert talk.to_content(["ann@mx.test", "bob@else.test"]).say(*LETTER)[:3] == reply
        talk.say("QUIT")
        assert not store.withdrawn


def test_an_explicit_accept_is_the_rule_that_lets_a_stranger_relay():
    talk = Talk(store=Memory("mx.test"), outbox=Memory())
    talk.greet().say("MAIL FROM:<a@a.test>")
    assert talk.say("RCPT TO:<bob@else.test>") == "550 5.7.1 Relaying needs authentication"
    talk.server.on_recipient_to = lambda session, recipient: Accept() if "bob" in recipient.address else None
    assert talk.say("RCPT TO:<bob@else.test>") == "250 2.1.5 Recipient ok"
    assert talk.say("RCPT TO:<eve@else.test>") == "550 5.7.1 Relaying needs authentication"


# -- verdicts on a message


def test_a_verdict_may_come_later_by_a_ticket():
    tickets = []

    def later(session, message):
        tickets.append(Ticket())
        return tickets[-1]

    talk = Talk(on_message_received=later).to_content()
    talk.say(*LETTER)
    assert isinstance(talk.wish, WaitFor)
    tickets[0].resolve(None, Refuse(550, "5.7.1", "Scanned and found wanting"))
    assert talk.go() == "550 5.7.1 Scanned and found wanting"
    talk.say("MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")
    talk.say(*LETTER)
    tickets[1].resolve(RuntimeError("the scanner died"))
    assert talk.go() == "451 4.3.0 Internal error; try again later"


def test_lmtp_has_one_reply_per_recipient_and_keeps_what_was_accepted():
    store = Memory()
    replies = [Reply(250, "2.1.5", "ok"), Reply(550, "5.2.2", "full"), Reply(250, "2.1.5", "ok")]
    talk = Talk(store=store, service="lmtp", on_message_received=lambda session, message: replies)
    talk.to_content(["a@b.test", "b@b.test", "c@b.test"])
    assert talk.say(*LETTER) == "250 2.1.5 ok\n550 5.2.2 full\n250 2.1.5 ok"
    assert [one.address for one in store.kept[0][0].recipients] == ["a@b.test", "c@b.test"]


def test_lmtp_answers_once_for_a_recipient_that_became_several():
    said = {
        "x@b.test": Reply(250, "2.1.5", "x"),
        "y@b.test": Reply(550, "5.2.2", "full"),
        "a@b.test": Reply(250, "2.1.5", "a"),
    }
    store = Memory()
    talk = Talk(
        store=store,
        service="lmtp",
        on_recipient_to=lambda session, one: (
            Redirect("x@b.test", "y@b.test") if one.address == "both@b.test" else Redirect("a@b.test", "a@b.test")
        ),
        on_message_received=lambda session, message: [said[one.address] for one in message.envelope.recipients],
    )
    talk.to_content(["both@b.test", "twice@b.test"])
    assert talk.say(*LETTER, "NOOP") == "550 5.2.2 full\n250 2.1.5 a\n250 2.0.0 Ok"
    assert [one.address for one in store.kept[0][0].recipients] == ["x@b.test", "a@b.test", "a@b.test"]


def test_a_reply_that_asks_for_more_is_a_mistake_of_the_program():
    errors = []
    go_on = Reply(354, "", "Go on")
    talk = Talk(on_mail_from=lambda *_: go_on, on_server_error=lambda s, error: errors.append(error)).greet()
    assert talk.say("MAIL FROM:<>") == "451 4.3.0 Internal error; try again later"
    assert "354" in str(errors[0])
    with pytest.raises(ValueError, match="below 300"):
        Accept(go_on)


def test_what_nobody_foresaw_is_told_and_ends_the_session():
    """The replies owed before it go out; of the exception the client learns nothing."""
    errors = []
    talk = Talk(on_server_error=lambda s, error: errors.append(error)).greet()

    def broken(*_: object) -> None:
        raise RuntimeError("a secret path")

    talk.server._house.why_no_mail = broken
    assert talk.say("NOOP", "MAIL FROM:<>", "NOOP") == "250 2.0.0 Ok\n421 4.3.0 Internal error; try again later"
    assert talk.wish is Wish.CLOSE and str(errors[0]) == "a secret path"


@pytest.mark.parametrize(("days", "reply"), [(13, "250 2.1.0"), (15, "501 5.5.4"), (-1, "250 2.1.0")])
def test_nobody_holds_a_message_longer_than_announced(days, reply):
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * 86_400))
    assert Talk(service="submission").greet().say(f"MAIL FROM:<> HOLDUNTIL={until}")[:9] == reply


def test_bare_line_feeds_may_be_normalised_under_data_and_refused_in_chunks():
    talk = Talk(bare_line_ends="normalise", bare_line_ends_in_chunks="refuse").to_content()
    assert talk.say("a\nb", ".").startswith("250 2.0.0 Ok: queued")
    talk.say("MAIL FROM:<>", "RCPT TO:<b@b.test>")
    assert talk.say("BDAT 5 LAST", "a\nb")[:9] == "550 5.6.0"


def test_the_programs_own_words_are_said_once_the_message_is_kept():
    store = Memory()
    talk = Talk(store=store, on_message_received=lambda session, message: Accept("Filed under x")).to_content()
    assert talk.say(*LETTER) == "250 2.0.0 Filed under x" and len(store.kept) == 1


def test_a_list_of_replies_is_for_lmtp_only():
    errors = []
    talk = Talk(
        on_message_received=lambda session, message: [Reply(250)], on_server_error=lambda s, error: errors.append(error)
    ).to_content()  # fmt: skip
    assert talk.say(*LETTER).startswith("451 4.3.0") and "LMTP only" in str(errors[0])


def test_a_hundred_hops_are_a_loop():
    hops = ["Received: from somewhere"] * 101
    assert Talk().to_content().say(*hops, "", ".").startswith("554 5.4.6")
    assert Talk().to_content().say(*hops[1:], "", *hops, ".").startswith("250 ")


def test_submission_adds_what_a_message_lacks():
    store = Memory()
    talk = Talk(store=store, service="submission").to_content()
    talk.say("Subject: x", "", "Date: in the body", ".")
    talk.say("MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")
    talk.say("date: Mon, 1 Jan 2024 00:00:00 +0000", "Message-Id: <mine@a.test>", "", ".")
    first, second = (content for _, content in store.kept)
    assert b"\r\nDate: " in first and b"\r\nMessage-ID: <" in first
    assert b"\r\nDate: " not in second and b"\r\nMessage-ID: <" not in second


# -- ends


def test_a_client_that_vanishes_in_the_content_leaves_a_partial_message():
    diary = Diary()
    talk = Talk(on_partial_message=lambda session, message: diary.note((message.sender, message.as_bytes())))
    talk.to_content()
    talk.say("Subject: half", "", "a line")
    talk.dialogue.end_of_input(ConnectionResetError())
    talk.go()
    assert talk.wish is Wish.CLOSE
    talk.turn.free = False
    assert talk.dialogue.closed(talk.turn, "reset") is Wish.NEED_SLOT
    talk.turn.free = True
    assert talk.dialogue.closed(talk.turn, "reset") is None
    assert diary.entries == [("a@a.test", b"Subject: half\r\n\r\na line")]  # a last CRLF might have been the end's


def test_a_timeout_in_the_content_is_a_partial_message_too():
    diary = Diary()
    talk = Talk(on_partial_message=lambda session, message: diary.note(message.size)).to_content()
    talk.say("12345678")
    talk.dialogue.overdue("data")
    assert talk.go().startswith("421 4.4.2") and talk.wish is Wish.CLOSE
    talk.dialogue.closed(talk.turn, "data")
    assert diary.entries == [8]


def test_stop_lets_a_transaction_finish_and_then_says_421():
    talk = Talk().to_content()
    talk.dialogue.overdue("stop")
    assert talk.go() == "" and talk.wish is Wish.NEED_BYTES
    reply = talk.say(*LETTER)
    assert reply.startswith("250 ") and reply.endswith("\n421 4.3.2 Shutting down; try again later")
    assert talk.wish is Wish.CLOSE


def test_halt_ends_it_at_once():
    talk = Talk().to_content()
    talk.dialogue.overdue("halt")
    assert talk.go().startswith("421 4.3.2") and talk.wish is Wish.CLOSE


def test_a_full_disk_in_the_middle_is_one_452_at_the_end(tmp_path):
    talk = Talk(drafts=str(tmp_path / "gone")).to_content()  # no file can be made there
    line = "x" * 70
    replies = [talk.say(*[line] * 1000) for _ in range(5)]
    assert replies == [""] * 5
    assert talk.say(".") == "452 4.3.1 Insufficient storage; try again later"
    assert talk.say("NOOP") == "250 2.0.0 Ok"


def test_a_failed_login_waits_without_a_thread():
    talk = Talk(
        auth="offered",
        user_accounts=[UserAccount("ann", "secret")],
        clear_text_without_tls=True,
        guard=GuardSettings(login_delay=2.0),
    )
    talk.greet()
    assert talk.say("AUTH PLAIN AGFubgB3cm9uZw==") == ""
    assert isinstance(talk.wish, Pause) and talk.wish.seconds == 2.0
    assert talk.go().startswith("535 5.7.8")


def test_a_handler_with_every_event_costs_nothing_where_it_overrides_none():
    talk = Talk(server=SmtpServer(Handler(), server_name="mx.test", store=Memory())).to_content()
    talk.say(*LETTER)
    assert talk.turn.entered == []


def test_a_trusted_peer_speaks_for_the_client_behind_it():
    store = Memory()
    talk = Talk(store=store, xclient_from=("192.0.2.0/24",)).greet()
    talk.say("MAIL FROM:<>")
    assert talk.say("RSET", "XCLIENT ADDR=IPV6:2001:db8::7 PORT=25 HELO=real.test LOGIN=ann").endswith(
        "220 mx.test ready"
    )
    session = talk.dialogue.session
    assert (session.address, session.port, session.user_name) == ("2001:db8::7", 25, "ann")
    talk.say("EHLO real.test", "MAIL FROM:<>", "RCPT TO:<b@b.test>", "DATA")
    talk.say(*LETTER)
    envelope, content = store.kept[0]
    assert envelope.origin.address == "2001:db8::7" and envelope.origin.user == "ann"
    assert b"from real.test ([IPv6:2001:db8::7])" in content and b"with ESMTPA" in content
    stranger = Talk(xclient_from=("10.0.0.0/8",)).greet()
    assert Talk(address="", xclient_from=("10.0.0.0/8",)).go() == "220 mx.test ready"  # on a unix socket
    unknown = Talk(outbox=Memory("b.test"), store=None, xclient_from=("192.0.2.0/24",), relay_from=("10.0.0.0/8",))
    unknown.greet().say("XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE]", "EHLO x", "MAIL FROM:<>")
    assert unknown.say("RCPT TO:<b@b.test>")[:9] == "550 5.7.1"  # a stranger, not a client on a unix socket
    assert stranger.say("XCLIENT ADDR=10.0.0.1")[:9] == "550 5.7.1"
