"""`python -m certs`: certificates without learning openssl.

Exit codes: 0 done or good, 1 `check` found an error, 2 the arguments or a file are not what they should be, or
the answer could not be written, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from certs import commands
from certs.check import WARN_DAYS
from certs.issue import AUTHORITY_DAYS, DEFAULT_DAYS, SELF_SIGNED_DAYS, USAGES
from certs.keys import DEFAULT_KIND, KINDS
from certs.program import WRONG, ended, port
from certs.trouble import CertificateError

Option = Callable[[argparse.ArgumentParser], None]

_PASSWORD = 'a file whose first line it is, "-" for standard input, "ask" to be asked'


_EXAMPLES = {
    "self-signed": "mx.example.com --folder certs",
    "ca": '"Example Mail CA" --folder certs',
    "issue": "mx.example.com --ca Example_Mail_CA --folder certs",
    "csr": "mx.example.com --folder certs",
    "sign": "mx.example.com.csr --ca Example_Mail_CA --folder certs",
    "revoke": "mx.example.com --ca Example_Mail_CA --folder certs",
    "list": "--folder certs",
    "show": "certs/mx.example.com.pem",
    "check": "certs/mx.example.com.pem --key certs/mx.example.com.key --host mx.example.com",
    "pfx-import": "bundle.pfx --password ask --folder certs",
    "pfx-export": "mx.example.com --password ask --folder certs",
    "cer-import": "answer.cer --folder certs",
    "tlsa": "certs/mx.example.com.pem",
    "samples": "samples",
}


def _naming(days: int) -> Option:
    def naming(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--name", default="", help="name of the files (default: from the certificate)")
        sub.add_argument("--days", type=_days, default=days, help=f"validity (default {days})")

    return naming


def _keyed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--key-type", choices=KINDS, default=DEFAULT_KIND, help=f"default {DEFAULT_KIND}")


def _used(sub: argparse.ArgumentParser) -> None:
    known = ", ".join(USAGES)
    sub.add_argument("--usage", action="append", help=f"{known} or a dotted number (default server); repeatable")


def _named(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("names", nargs="+", metavar="NAME", help="host (*.example.com too), address or mailbox")


def _subject(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--subject", default="", help="common name, or CN=mx.example.com,O=Example (default: NAME)")


def _signing(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--ca", required=True, help="the authority's name in the folder")


def _source(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("certificate", help="a PEM, DER or PFX file, or a name in the folder")
    sub.add_argument("--password", default="", metavar="FROM", help=f"password of the file: {_PASSWORD}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m certs", description="Certificates and keys for mail servers.")
    parser.set_defaults(command=None)
    subs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: commands.Command, text: str, *options: Option) -> argparse.ArgumentParser:
        sub = subs.add_parser(
            name,
            help=text,
            description=text[:1].upper() + text[1:] + ".",
            epilog=f"example:\n  python -m certs {name} {_EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        sub.add_argument("--folder", default=".", help="where certificates and keys lie (default: here)")
        sub.add_argument("--key-password", default="", metavar="FROM", help=f"encrypts private keys: {_PASSWORD}")
        sub.add_argument("--json", action="store_true", help="answer in JSON")
        for option in options:
            option(sub)
        return sub

    made = (_named, _keyed, _used, _subject)
    add(
        "self-signed",
        commands.self_signed,
        "make a certificate that vouches for itself",
        *made,
        _naming(SELF_SIGNED_DAYS),
    )
    sub = add("ca", commands.ca, "make a certification authority of your own", _naming(AUTHORITY_DAYS), _keyed)
    sub.add_argument("subject", metavar="SUBJECT", help='its name, like "Example Mail CA"')
    sub.add_argument("--parent", default="", metavar="CA", help="an authority in the folder to stand under")
    text = "make a key and a certificate signed by an authority of yours"
    add("issue", commands.issue, text, *made, _naming(DEFAULT_DAYS), _signing)
    sub = add("csr", commands.csr, "make a key and a request for an authority elsewhere", _named, _keyed, _subject)
    sub.add_argument("--name", default="", help="name of the files")
    text = "sign somebody's request with an authority of yours"
    sub = add("sign", commands.sign, text, _naming(DEFAULT_DAYS), _used, _signing)
    sub.add_argument("request", metavar="FILE", help="the request, PEM or DER")
    sub.add_argument("names", nargs="*", metavar="NAME", help="replace the names in the request")
    sub = add("revoke", commands.revoke, "write a revocation list of an authority of yours", _signing)
    sub.add_argument("names", nargs="*", metavar="CERTIFICATE", help="names in the folder")
    sub.add_argument("--days", type=_days, default=30, help="until the next list (default 30)")
    sub.add_argument("--out", default="", help="file to write (default CA.crl)")
    add("list", commands.listing, "list the certificates in the folder")
    add("show", commands.show, "show what a certificate says", _source)
    text = "say what is wrong with certificate, key, chain and names, one line each"
    sub = add("check", commands.check, text, _source)
    sub.add_argument("--key", default="", help="the private key's file, where it is not in the certificate's")
    sub.add_argument("--chain", action="append", default=[], metavar="FILE", help="more of the chain; repeatable")
    sub.add_argument("--host", action="append", default=[], help="a name that it must cover; repeatable")
    sub.add_argument("--purpose", choices=["server", "client", "email", "authority"], default="server")
    sub.add_argument("--roots", default="", metavar="FILE", help='trusted authorities (PEM), or "system"')
    sub.add_argument("--crl", default="", metavar="FILE", help="revocation lists")
    sub.add_argument("--warn-days", type=int, default=WARN_DAYS[0], help=f"default {WARN_DAYS[0]}")
    sub = add("pfx-import", commands.pfx_import, "take key, certificate and chain from a PFX (PKCS#12) file")
    sub.add_argument("file")
    sub.add_argument("--password", default="", metavar="FROM", help=f"password of the PFX file: {_PASSWORD}")
    sub.add_argument("--name", default="", help="name of the files")
    sub = add("pfx-export", commands.pfx_export, "write key, certificate and chain as a PFX (PKCS#12) file")
    sub.add_argument("certificate", help="a name in the folder")
    sub.add_argument("--password", default="", metavar="FROM", help=f"password for the PFX file: {_PASSWORD}")
    sub.add_argument("--out", default="", help="file to write (default NAME.pfx)")
    sub = add("cer-import", commands.cer_import, "take a certificate (DER or PEM), such as the answer to a request")
    sub.add_argument("file")
    sub.add_argument("--name", default="", help="name of the files")
    sub = add("tlsa", commands.tlsa_record, "print the DNS record for DANE", _source)
    sub.add_argument("--host", action="append", default=[], help="the mail server (default: the certificate's names)")
    sub.add_argument("--port", type=port, default=25)
    sub.add_argument(
        "--usage", dest="tlsa_usage", type=int, choices=[2, 3], default=3, help="3 this one, 2 its authority"
    )
    sub.add_argument("--selector", type=int, choices=[0, 1], default=1, help="0 certificate, 1 public key (default)")
    sub.add_argument("--matching", type=int, choices=[0, 1, 2], default=1, help="0 all, 1 SHA-256 (default), 2 SHA-512")
    sub = add("samples", commands.samples, "write a set of good and bad certificates for tests")
    sub.add_argument("folder_to_write", metavar="FOLDER")
    sub.add_argument("--host", default="mx.example.test")
    return parser


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 36_500:
        raise argparse.ArgumentTypeError("days: more than 0, at most 36500")
    return days


# What others wrote into a certificate may hold what a terminal would obey, and marks that turn the order of what
# follows or end a line (Unicode TR 36 3.4).
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS |= {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


def _shown(line: str) -> str:
    return line.translate(_CONTROLS)


def main(arguments: Sequence[str] | None = None) -> int:
    return ended(lambda: _run(_parser().parse_args(arguments)), lead="error", failed=WRONG)


def _run(args: argparse.Namespace) -> int:
    if getattr(args, "usage", False) is None:
        args.usage = ["server"]
    try:
        answer: commands.Answer = args.command(args)
    except (CertificateError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        if args.json:
            print(json.dumps({"error": text}))
        else:
            print(_shown(f"error: {text}"), file=sys.stderr)
        return WRONG
    print(json.dumps(answer.data, indent=2) if args.json else "\n".join(map(_shown, answer.lines)))
    return answer.code


if __name__ == "__main__":
    sys.exit(main())
