"""The inbox waits instead of sleeping, and says what it saw when it waited in vain."""

import pytest

from smtpd_core.testing.inbox import Inbox
from smtpd_core.testing.letter import Letter
from smtpd_core.threads import start_loop
from smtpd_core.wire.envelope import Envelope, Origin, Recipient


def letter(to: str = "ann@a.test", sender: str = "bob@b.test", subject: str = "Hello", body: str = "Hi") -> Letter:
    content = f"Subject: {subject}\r\nX-Kind: test\r\n\r\n{body}\r\n".encode()
    return Letter(Envelope(sender, (Recipient(to),), origin=Origin(hello="probe", user="u1")), content)


def test_a_letter_that_comes_later_is_waited_for() -> None:
    inbox = Inbox()
    loop = start_loop("later", lambda: inbox.deliver(letter(subject="Late")))
    assert inbox.wait_for(subject="late").subject == "Late"
    assert loop.join(5)


def test_waiting_in_vain_names_the_filter_and_what_arrived() -> None:
    inbox = Inbox()
    inbox.deliver(letter(subject="Other"))
    with pytest.raises(AssertionError, match=r"to='nobody@\*'.*\n.*Other"):
        inbox.wait_for(to="nobody@*", timeout=0.01)


@pytest.mark.parametrize(
    "wanted",
    [
        {"to": "*@a.test"},
        {"sender": "BOB@b.test"},
        {"subject": "hel*"},
        {"headers": {"X-Kind": "test"}},
        {"user": "u1"},
        {"hello": "probe"},
    ],
)
def test_filters_match_patterns_whatever_the_case(wanted: dict[str, str]) -> None:
    inbox = Inbox()
    inbox.deliver(letter())
    assert len(inbox.filter(**wanted)) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["[Shop] Hello (1/2)?", "[shop] *", "[Shop]*", "*[Sho?]*"])
def test_brackets_in_a_pattern_are_brackets(pattern: str) -> None:
    """They were a set of characters, so that a subject was not found by itself."""
    inbox = Inbox()
    inbox.deliver(letter(subject="[Shop] Hello (1/2)?", to="ann@[192.0.2.1]"))
    assert inbox.filter(subject=pattern, to="*@[192.0.2.1]")
    assert not inbox.filter(to="*@[12]")


def test_a_header_that_is_missing_fits_no_pattern() -> None:
    inbox = Inbox()
    inbox.deliver(letter())
    assert not inbox.filter(headers={"List-Unsubscribe": "*"})
    assert inbox.filter(headers={"List-Unsubscribe": ""})
    assert inbox.filter(headers={"x-kind": "*"})


def test_no_letter_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match=r"count 0: 1 or more is due; for none there is assert_none"):
        Inbox().wait_for(count=0)


def test_none_is_asserted_only_after_open_connections_are_handled() -> None:
    inbox = Inbox(settle=lambda timeout: inbox.deliver(letter(to="late@a.test")))
    inbox.assert_none(to="other@*")
    with pytest.raises(AssertionError, match=r"late@a\.test"):
        inbox.assert_none(to="late@*")


def test_links_and_codes_are_found_in_text_and_html() -> None:
    plain = letter(body="Your code is 482913. See https://a.test/reset?t=123456 (or call 555).")
    assert plain.codes == ["482913"]
    assert plain.links == ["https://a.test/reset?t=123456"]
    page = Letter(
        Envelope("", (Recipient("a@a.test"),)),
        b'Content-Type: text/html\r\n\r\n<p style="color:#112233">Code <b>AB12CD</b> '
        b'<a href="https://a.test/?a=1&amp;b=2">here</a></p>\r\n',
    )
    assert page.codes == ["AB12CD"]
    assert page.links == ["https://a.test/?a=1&b=2"]


def test_attachments_come_by_name() -> None:
    email = letter().email
    email.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="a.bin")
    assert Letter(Envelope("", ()), email.as_bytes()).attachments == {"a.bin": b"\x00\x01"}
