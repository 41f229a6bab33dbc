"""Codes are found in mails as they are written, and no other number is taken for one."""

# ruff: noqa: RUF001, E501 (mails of all languages, one a row)

from __future__ import annotations

from email.message import EmailMessage

import pytest

from smtpd_core.testing import Letter
from smtpd_core.testing.codes import codes_in
from smtpd_core.wire.envelope import Envelope

FOOTER = """
© 2026 Shop Code Ltd, 1500 Market Street, San Francisco, CA 94107. Call +1 415 555 0134 or (415) 555-0199.
"""

# What a mail says (subject first), and the codes in it.
MAILS = [
    ("Welcome\n\nYour code is 482913.", ["482913"]),
    ("Welcome\n\nYour code: 482913", ["482913"]),
    ("482913 is your Shop code\n\nDon't share it.", ["482913"]),
    ("Your Shop verification code\n\n482913\n\nIt expires in 10 minutes.", ["482913"]),
    ("Sign in\n\nPlease enter the code below. It expires in 10 minutes.\n\n    482913\n", ["482913"]),
    ("Sign in\n\nUse 482913 to sign in with a one-time code.", ["482913"]),
    ("Sign in\n\nEnter 482 913 as your verification code.", ["482913"]),
    ("Sign in\n\nYour code is 482-913.", ["482913"]),
    ("Sign in\n\nYour code is 4 8 2 9 1 3", ["482913"]),
    ("Sign in\n\nYour code:\n\n4\n8\n2\n9\n1\n3\n\nThank you", ["482913"]),
    ("G-482913 is your verification code", ["482913"]),
    ("Your PIN is 2026", ["2026"]),
    ("Your PIN\n\nYour PIN is:\n\n1984\n", ["1984"]),
    ("Card\n\nThe PIN for the card ending in 4417 is 9052.", ["9052"]),
    ("Sign in\n\nYour code for order 100234 is 482913.", ["482913"]),
    ("Sign in\n\nYour code is AB12CD.", ["AB12CD"]),
    ("Device\n\nOpen the page and enter the code: WDJB-MJHT", ["WDJB-MJHT"]),
    ("Invitation\n\nYour code: k7x2m9", ["k7x2m9"]),
    ("Backup codes\n\nKeep these codes:\n\n48291375\n11820034\n90417725\n", ["48291375", "11820034", "90417725"]),
    ("Verify your address\n\nTo verify it, enter this number: 482913", ["482913"]),
    ("Login\n\n482913 is the OTP for INR 4,500.00 on the card ending 4417 at 14:30.", ["482913"]),
    ("Anmeldung\n\nIhr Bestätigungscode lautet 482913.", ["482913"]),
    ("Banking\n\nIhre TAN: 482913 für den Auftrag vom 04.05.2026 über 1.250,00 EUR", ["482913"]),
    ("Connexion\n\nVotre code de vérification est 482913", ["482913"]),
    ("Acceso\n\nTu código es 482913", ["482913"]),
    ("登录\n\n您的验证码是482913，请在10分钟内使用。", ["482913"]),
    ("ログイン\n\n認証コード：482913", ["482913"]),
    ("Login\n\nToken: 482913. Requested on 3 May 2026 at 14:30 from 192.0.2.17.", ["482913"]),
    ("Your Shop code\n\nHi Ann,\n\nyour order 20260143 of 2026-05-04 (1234.50 EUR) ships.\n\n482913\n" + FOOTER, ["482913"]),
    ("Sign in\n\nYour code is 482913." + FOOTER, ["482913"]),
    # none
    ("Your order\n\nOrder 482913 of 4 May 2026 has shipped." + FOOTER, []),
    ("Your invoice 20260143\n\nTotal: 1234.50 EUR. Due on 04.05.2026." + FOOTER, []),
    ("Happy new year\n\n2026 will be great. In 2025 we wrote code for 1500 users." + FOOTER, []),
    ("Sale\n\nUse promo code SAVE2026 for 1000 points. Zip code 94107." + FOOTER, []),
    ("Error\n\nThe job ended with exit code 1024 after 3600 seconds.", []),
    ("Conduct\n\nOur code of conduct changed in 2024.", []),
    ("Meeting\n\nRoom 4021, 10115 Berlin, tomorrow at 14:30. Call 5550134.", []),
    ("Reset\n\nFollow https://shop.test/reset?code=482913 to set a password.", []),
    ("Code review\n\nAnn pushed May 4, 2026: version 20260504.", []),
    ("Your code\n\nIt comes by text message. $4829 were paid, 4829 EUR are due, 100 % of 2026.", []),
    ("Membership\n\nMember number 48291375, no code is needed.", []),
    ("Paket\n\nIhre Bestellung Nr. 4829137 kommt.", []),
    ("", []),
]  # fmt: skip


@pytest.mark.parametrize(("mail", "codes"), MAILS, ids=[mail.partition("\n")[0] or "empty" for mail, _ in MAILS])
def test_the_codes_of_a_mail_are_found_and_nothing_else(mail: str, codes: list[str]) -> None:
    assert codes_in(mail) == codes


# Pages, and the codes in them.
PAGES = [
    ("<p>Your code is <b>482913</b>.</p>", ["482913"]),
    ("<style>p { width: 4829px; color: #112233 }</style><h1>482913</h1><p>is your sign-in code</p>", ["482913"]),
    ('<p>Your code</p><div style="font-size:32px;letter-spacing:8px">482913</div><p>Valid until 2026</p>', ["482913"]),
    ("<p>Your code</p><table><tr><td>4</td><td>8</td><td>2</td><td>9</td><td>1</td><td>3</td></tr></table>", ["482913"]),
    ("<p>Code: <span>4</span><span>8</span><span>2</span><span>9</span></p><p>&copy; 2026 Shop</p>", ["4829"]),
    ('<p>Follow <a href="https://shop.test/482913">this link</a>, no code is needed.</p>', []),
    ("<p>Order <b>482913</b> of 2026</p>", []),
]  # fmt: skip


@pytest.mark.parametrize(("page", "codes"), PAGES, ids=range(len(PAGES)))
def test_the_codes_of_a_page_are_found_and_nothing_else(page: str, codes: list[str]) -> None:
    message = EmailMessage()
    message["Subject"] = "Sign in"
    message.set_content(page, subtype="html")
    assert Letter(Envelope("a@a.test", ()), message.as_bytes()).codes == codes


def test_a_code_may_stand_in_the_subject_alone() -> None:
    letter = Letter(Envelope("a@a.test", ()), b"Subject: Your code is 482913\r\n\r\nHello Ann\r\n")
    assert letter.codes == ["482913"]
