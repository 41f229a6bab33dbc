"""The mail of a shop, as Django sends it."""

from __future__ import annotations

from django.core.mail import EmailMultiAlternatives, get_connection, send_mass_mail


def reset_password(address: str, token: str) -> None:
    link = f"https://shop.test/reset?token={token}"
    letter = EmailMultiAlternatives("Reset your password", f"Follow {link}", to=[address])
    letter.attach_alternative(f'<a href="{link}">Reset</a>', "text/html")
    letter.send()


def newsletter(addresses: list[str]) -> int:
    """One message to each over one connection; how many went out."""
    letters = [("News", "Nothing new.", "news@shop.test", [address]) for address in addresses]
    return send_mass_mail(letters, connection=get_connection(fail_silently=True))
