"""What a hook may return, in all its spellings."""

from __future__ import annotations

import pytest

from smtpd_core import Accept, Redirect, Refuse, Reply
from smtpd_core.server.verdicts import said_instead
from smtpd_core.wire.replies import recipient_250


@pytest.mark.parametrize(
    "refusal, said",
    [
        (Refuse(), "550 5.7.1 Refused"),
        (Refuse("No mail today"), "550 5.7.1 No mail today"),
        (Refuse(451, "Try later"), "451 4.7.1 Try later"),
        (Refuse(450, "4 hours from now"), "450 4.7.1 4 hours from now"),
        (Refuse(550, "5.1.1", "No such user"), "550 5.1.1 No such user"),
        (Refuse(452), "452 4.3.1 Refused"),
        (Refuse(Reply(554, "5.7.1", "Mine")), "554 5.7.1 Mine"),
    ],
)
def test_a_refusal_has_an_enhanced_code_of_its_class(refusal, said):
    assert str(refusal.reply) == said


@pytest.mark.parametrize("wrong", [(250, "Fine"), (Reply(250),), (550, "4.1.1", "classes differ"), (799, "no code")])
def test_what_is_no_refusal_is_not_built(wrong):
    with pytest.raises(ValueError):
        Refuse(*wrong)


def test_an_accept_changes_the_words_or_the_whole_reply():
    assert said_instead(Accept(), recipient_250) is None
    assert str(said_instead(Accept("Welcome"), recipient_250)) == "250 2.1.5 Welcome"
    assert said_instead(Accept(Reply(251, "2.1.5", "Forwarded")), recipient_250).code == 251
    with pytest.raises(ValueError, match="below 300"):
        Accept(Reply(550))


@pytest.mark.parametrize("wrong", ["a b@c.test", "<a@b.test>", "a@b.test\r\nRCPT"])
def test_a_redirect_holds_addresses_only(wrong):
    with pytest.raises(ValueError, match="no address"):
        Redirect(wrong)
    with pytest.raises(TypeError):
        Redirect(5)
