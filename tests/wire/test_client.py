"""The client half without a socket: what it says, whose answer is whose, and what can't be smuggled into a command."""

from __future__ import annotations

import pytest

from smtpd_core.wire.client import Client, Step, mail_parameters, rcpt_parameters, xtext
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.parameters import decode_utf8_address
from smtpd_core.wire.sasl.client import Credentials, mechanism


def answers(client: Client, data: bytes, size: int = 1 << 20) -> list[tuple[Step, int, int]]:
    found = []
    for at in range(0, len(data), size):
        client.receive(data[at : at + size])
        while (one := client.next_answer()) is not None:
            found.append((one.step, one.answer.code, one.number))
    return found


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_every_answer_goes_to_the_oldest_command_without_one(size: int) -> None:
    client = Client()
    client.hello("relay.test")
    client.mail("a@b.test", "SIZE=3")
    client.rcpt("c@d.test")
    client.rcpt("e@f.test", "NOTIFY=NEVER")
    client.data()
    assert client.take_output() == (
        b"EHLO relay.test\r\nMAIL FROM:<a@b.test> SIZE=3\r\nRCPT TO:<c@d.test>\r\n"
        b"RCPT TO:<e@f.test> NOTIFY=NEVER\r\nDATA\r\n"
    )
    said = b"220 hi\r\n250-mx\r\n250 SIZE 5\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"
    assert answers(client, said, size) == [
        (Step.GREETING, 220, 0),
        (Step.HELLO, 250, 0),
        (Step.MAIL, 250, 0),
        (Step.RCPT, 550, 0),
        (Step.RCPT, 250, 1),
        (Step.DATA, 354, 0),
    ]
    assert client.owed == 0
    client.content(b".a")
    client.end_content()
    assert client.take_output() == b"..a\r\n.\r\n"
    assert answers(client, b"250 done\r\n421 bye\r\n") == [(Step.CONTENT, 250, 0), (Step.UNASKED, 421, 0)]


def test_lmtp_owes_an_answer_for_each_accepted_recipient() -> None:
    client = Client(lmtp=True)
    client.hello("relay.test")
    client.mail("a@b.test")
    for name in "xyz":
        client.rcpt(f"{name}@b.test")
    client.data()
    answers(client, b"220 hi\r\n250 mx\r\n250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
    client.end_content()
    assert client.owed == 2
    assert answers(client, b"250 a\r\n452 b\r\n") == [(Step.CONTENT, 250, 0), (Step.CONTENT, 452, 2)]


def test_extensions_are_read_in_any_case_and_forgotten_under_tls() -> None:
    client = Client()
    client.hello("relay.test")
    answers(
        client, b"220 hi\r\n250-mx.test greets\r\n250-size 100\r\n250-AUTH=LOGIN\r\n250-auth PLAIN\r\n250 STARTTLS\r\n"
    )
    assert client.peer_name == "mx.test"
    assert client.extensions == {"SIZE": "100", "AUTH": "LOGIN PLAIN", "STARTTLS": ""}
    client.starttls()
    # What is said in clear text behind the 220 is not taken for an answer under TLS.
    assert answers(client, b"220 go\r\n250 INJECTED\r\n")[0] == (Step.STARTTLS, 220, 0)
    client.tls_came_up({})
    assert client.extensions == {}
    client.hello("relay.test")
    assert answers(client, b"250 mx.test\r\n") == [(Step.HELLO, 250, 0)]


@pytest.mark.parametrize(
    "address",
    [
        "a@b>\r\nRCPT TO:<x@y",
        "a@b> NOTIFY=NEVER",
        "a b@c",
        "a@b\n",
        "a\0@b",
        '"a\r\n"@b',
        "<a@b>",
        '"open@b',
    ],
)
def test_an_address_can_not_end_its_command(address: str) -> None:
    client = Client()
    with pytest.raises(ValueError):
        client.mail(address)
    with pytest.raises(ValueError):
        client.rcpt(address)
    assert not client.has_output


@pytest.mark.parametrize("address", ["", "a@b.test", '"a b"@c.test', '"a>b\\" c"@d.test', "ä@ö.test", "a@[127.0.0.1]"])
def test_an_address_of_the_grammar_passes(address: str) -> None:
    client = Client()
    client.rcpt(address)
    assert client.take_output() == f"RCPT TO:<{address}>\r\n".encode()


def test_a_log_in_answers_challenges_and_shows_no_secret() -> None:
    heard: list[str] = []

    class Ear:
        def command(self, text: str) -> None:
            heard.append(text)

        def reply(self, answer: object) -> None:
            heard.append(str(answer))

    client = Client(observer=Ear())
    answers(client, b"220 hi\r\n")
    client.log_in(mechanism("LOGIN", Credentials("ann", "sesame")))
    assert client.take_output() == b"AUTH LOGIN\r\n"
    assert answers(client, b"334 VXNlcm5hbWU6\r\n") == []
    assert client.take_output() == b"YW5u\r\n"
    assert answers(client, b"334 UGFzc3dvcmQ6\r\n") == []
    assert client.take_output() == b"c2VzYW1l\r\n"
    assert answers(client, b"235 2.7.0 in\r\n") == [(Step.AUTH, 235, 0)]
    assert client.login_error == ""
    client.log_in(mechanism("PLAIN", Credentials("ann", "sesame")))
    assert b"AUTH PLAIN AGFubgBzZXNhbWU=" in client.take_output()
    assert not any("sesame" in line or "c2VzYW1l" in line or "AGFubg" in line for line in heard)


def test_a_server_that_does_not_prove_itself_is_not_logged_in_to() -> None:
    client = Client()
    answers(client, b"220 hi\r\n")
    client.log_in(mechanism("SCRAM-SHA-256", Credentials("ann", "sesame")))
    answers(client, b"235 welcome\r\n")
    assert "did not prove" in client.login_error
    client.log_in(mechanism("SCRAM-SHA-256", Credentials("ann", "sesame")))
    client.take_output()
    answers(client, b"334 !!!\r\n")
    assert client.take_output() == b"*\r\n"
    assert "base64" in client.login_error


def test_parameters_follow_what_the_hop_offers() -> None:
    asked = MailParameters(ret="HDRS", envid="a+b=c", priority=3)
    assert mail_parameters(asked, {}, size=10, body="8BITMIME") == ""
    offered = {"SIZE": "", "8BITMIME": "", "DSN": "", "SMTPUTF8": "", "MT-PRIORITY": ""}
    assert mail_parameters(asked, offered, size=10, body="8BITMIME", utf8=True) == (
        "SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc MT-PRIORITY=3"
    )
    ann = Recipient("ann@a.test", ("SUCCESS", "DELAY"), "rfc822;an n@a.test")
    assert rcpt_parameters(ann, {}) == ""
    assert rcpt_parameters(ann, offered) == "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;an+20n@a.test"
    back = Recipient("ann@a.test", orcpt="utf-8;n\u00f6 \\x+=@a.test")
    assert rcpt_parameters(back, offered) == r"ORCPT=utf-8;n\x{F6}\x{20}\x{5C}x\x{2B}\x{3D}@a.test"
    assert decode_utf8_address(r"n\x{F6}\x{20}\x{5C}x\x{2B}\x{3D}@a.test") == "n\u00f6 \\x+=@a.test"
    assert xtext("ü") == "\\x{FC}"
